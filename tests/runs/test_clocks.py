"""Inputs that change under a run's hands, and clocks that do not go forward."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import HELD, SMALL, Fcn, MakeImages, command, journal_of, python_with, run_process, wait_until


@pytest.mark.long
@pytest.mark.parametrize("how", ["replaced", "grown", "rewritten", "gone"])
def test_an_image_that_changes_while_it_is_read_is_redone_next_time(
    how: str, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "held.png", "z.png"])
    image = made / "held.png"
    with Image.open(image) as opened:
        flipped = opened.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    running = subprocess.Popen(
        command("segment", "made", *SMALL, "-o", "out"),
        cwd=tmp_path,
        env=python_with(HELD, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (tmp_path / "opened").exists(), running)
    match how:
        case "replaced":
            flipped.save(tmp_path / "new.png")
            (tmp_path / "new.png").replace(image)
        case "grown":
            with image.open("ab") as stream:
                stream.write(b"more")
        case "rewritten":
            flipped.save(image)
        case "gone":
            image.unlink()
    (tmp_path / "go").touch()
    _, errors = running.communicate(timeout=60)
    assert "Traceback" not in errors
    assert running.returncode in {0, 1}, errors
    first = journal_of(tmp_path / "out")
    assert set(first) == {"a.png", "held.png", "z.png"}
    if how == "gone":
        return
    again = fcn("segment", "made", *SMALL, "-o", "out", "-v")
    assert "1 to segment, 0 to complete, 2 done before" in again.stderr
    fcn("segment", image, *SMALL, "-o", "alone")
    one, other = (np.array(Image.open(tmp_path / name / "masks/held.png")) for name in ("out", "alone"))
    assert np.array_equal(one, other)


@pytest.mark.long
def test_an_image_with_an_older_time_is_redone_too(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """A backup put back, or a clock that was wrong: another content is another image, newer or not."""
    made = make_images(["a.png", "b.png", "c.png"])
    with (made / "b.png").open("ab") as file:
        file.write(bytes(9999))
    os.utime(made / "b.png", (4_000_000_000, 4_000_000_000))
    fcn("segment", "made", *SMALL, "-o", "out")
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    other = (made / "c.png").read_bytes()
    (made / "b.png").write_bytes(other.ljust((made / "b.png").stat().st_size, b"\0"))
    os.utime(made / "b.png", (100_000_000, 100_000_000))
    assert "1 done, 2 done before" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr


# A clock that goes back by a day whenever it is asked.
BACKWARDS = """
import time
real, asked = time.time, [0]
def back():
    asked[0] += 1
    return real() - 86400 * asked[0]
time.time = back
"""


@pytest.mark.slow
def test_a_clock_that_jumps_back_does_not_matter(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "b.png"])
    line = ("segment", "made", *SMALL, "-o", "out")
    environment = python_with(BACKWARDS, tmp_path)
    assert "2 done, 0 failed" in run_process(*line, cwd=tmp_path, env=environment).stderr
    make_images(["a.png", "b.png", "c.png"])
    for name, record in journal_of(tmp_path / "out").items():
        os.utime(tmp_path / "made" / name, ns=(record["mtime_ns"], record["mtime_ns"]))
    assert "1 done, 2 done before" in run_process(*line, cwd=tmp_path, env=environment).stderr
    assert "nothing to do" in run_process(*line, cwd=tmp_path, env=environment).stderr
