"""A run that is killed at any moment is resumed as if nothing had happened; see ``make crash-test``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        (
            "--moments",
            "6",
            "--palettes",
            "0",
            "--event",
            "decode",
            "half a file",
            "renamed",
            "half a line",
            "recorded",
            "projection",
        ),
        ("--moments", "0", "--palettes", "0", "--signals"),
        ("--moments", "0", "--palettes", "6"),
    ],
)
def test_killed_and_interrupted_runs_are_resumed(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.moments", "--images", "12", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 failed\n")
    # Six attempts, and the sum.
    assert len(done.stdout.splitlines()) == 7
