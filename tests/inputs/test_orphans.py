"""Workers that a fork server started end with a run that is killed, too."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..conftest import HELD, SMALL, MakeImages, command, python_with, wait_until


def children_of(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(place.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_nothing_is_left_of_a_killed_run_that_has_a_fork_server(
    make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["held.png"])
    # A watch has one from the start, as a run into a bucket has.
    running = subprocess.Popen(
        command("segment", "made", "--watch", *SMALL),
        cwd=tmp_path,
        env=python_with(HELD, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (tmp_path / "opened").exists(), running)
    children = children_of(running.pid)
    grandchildren = [one for child in children for one in children_of(child)]
    assert grandchildren
    running.kill()
    running.wait()
    for one in (*children, *grandchildren):
        wait_until(lambda one=one: not Path(f"/proc/{one}").exists(), seconds=20)  # type: ignore[misc]
