"""The folder for pixels on their way: gone with its run, or with the next one after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from fcn_cli.inputs.pixel_directory import PixelDirectory

from ..conftest import HELD, SMALL, MakePhotos, command, python_with, run_process, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="removes nothing of other runs elsewhere")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.long
def test_what_a_killed_run_left_the_next_one_removes(
    temporary: Path, make_photos: MakePhotos, tmp_path: Path
) -> None:
    made = make_photos(["a.png", "b.png", "held.png"])
    env = {**python_with(HELD, tmp_path), "TMPDIR": str(temporary)}
    running = [
        subprocess.Popen(
            command("segment", made, *SMALL, "-o", name), cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
        )
        for name in ("killed", "alive")
    ]
    wait_until(lambda: len(list(temporary.glob("fcn-*/.lock"))) == 2)
    killed, alive = running
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(temporary.glob("fcn-*"))) == 2
    # Its workers hold the lock until they have noticed.
    wait_until(lambda: _removed(temporary))
    (tmp_path / "go").touch()
    assert alive.wait(60) == 0
    assert not list(temporary.glob("fcn-*"))
    run_process("segment", made, *SMALL, "-o", "killed", cwd=tmp_path, env=env)


def _removed(temporary: Path) -> bool:
    PixelDirectory().remove()
    return len(list(temporary.glob("fcn-*"))) == 1


def test_folders_of_others_stay(temporary: Path, tmp_path: Path) -> None:
    (temporary / "fcn-without-a-lock").mkdir()
    (temporary / "other").mkdir()
    (temporary / "other/.lock").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".lock").touch()
    (temporary / "fcn-link").symlink_to(elsewhere)
    (temporary / "fcn-linked-lock").mkdir()
    (temporary / "fcn-linked-lock/.lock").symlink_to(elsewhere / ".lock")
    before = sorted(temporary.rglob("*"))
    directory = PixelDirectory()
    directory.remove()
    directory.remove()
    assert sorted(temporary.rglob("*")) == before
    assert (elsewhere / ".lock").exists()


def test_a_folder_goes_only_when_its_owner_has_gone(temporary: Path) -> None:
    first = PixelDirectory()
    (Path(first.path) / "1-pixels").write_bytes(b"x" * 10)
    second = PixelDirectory()
    assert {path.name for path in temporary.iterdir()} == {Path(one.path).name for one in (first, second)}
    second.remove()
    # As after a kill: the kernel lets the lock go, and nothing is removed.
    assert first._lock is not None
    os.close(first._lock)
    first._lock = None
    PixelDirectory().remove()
    assert not list(temporary.iterdir())
