"""What the Makefile installs, and when; a stand-in for Python writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .conftest import need

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> log
if [ "$*" = "-m venv .venv" ]; then
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    cp "$0" .venv/bin/fcn
fi
"""


def made(folder: Path, *words: str) -> list[str]:
    """Run make; return what pip was asked to install, and the last thing that was run."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    line = ["make", f"PYTHON={folder}/python3", *words]
    subprocess.run(line, cwd=folder, env=environment, capture_output=True, check=True)
    lines = log.read_text().splitlines()
    installed = [line.partition("--disable-pip-version-check ")[2] for line in lines if " pip " in line]
    return [*installed, lines[-1].split(" --")[0]]


def test_the_demo_installs_what_running_needs_and_tests_add_theirs(tmp_path: Path) -> None:
    need("make")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    demo, tests = "fcn segment sample_images", "python -m pytest"
    assert made(tmp_path, "demo") == ["--editable .", demo]
    assert made(tmp_path, "demo") == [demo]
    assert made(tmp_path, "test") == ["--editable .[dev]", tests]
    assert made(tmp_path, "test") == [tests]
    assert made(tmp_path, "demo") == [demo]
    # New requirements.
    later = (tmp_path / ".venv/.ready").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert made(tmp_path, "demo")[0] == "--editable ."
    shutil.rmtree(tmp_path / ".venv")
    cpu = "https://download.pytorch.org/whl/cpu"
    assert made(tmp_path, "demo", f"TORCH_INDEX={cpu}") == [
        f"--index-url {cpu} torch torchvision", "--editable .", demo
    ]  # fmt: skip
