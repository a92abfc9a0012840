"""Temporary directories: gone with their run, or with the next one after a kill; and never anybody else's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn_cli.common.swept_directory import SweptDirectory

from ..conftest import (
    HELD,
    SAMPLES,
    SMALL,
    MakeImages,
    command,
    python_with,
    run_process,
    tree,
    wait_until,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="removes nothing of other runs elsewhere")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # As short as a socket needs it, which `tmp_path` is not always.
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def abandoned(parent: Path) -> Path:
    """Make what a killed run leaves; its lock is held by no process."""
    directory = SweptDirectory()
    made = Path(directory.path)
    left = parent / f"{made.name}x"
    shutil.copytree(made, left)
    directory.remove()
    assert (left / ".lock").read_bytes()
    return left


def sweep() -> None:
    SweptDirectory().remove()


def left_after_sweeping(temporary: Path) -> int:
    sweep()
    return len(list(temporary.iterdir()))


# multiprocessing has sockets from the start.
FORKSERVER = 'import multiprocessing; multiprocessing.set_start_method("forkserver")\n'


@pytest.mark.slow
@pytest.mark.parametrize("start", ["", FORKSERVER])
def test_what_a_killed_run_left_the_next_one_removes(
    start: str, temporary: Path, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png", "held.png"])
    env = {**python_with(start + HELD, tmp_path), "TMPDIR": str(temporary)}
    running = [
        subprocess.Popen(
            command("segment", made, *SMALL, "-o", name), cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
        )
        for name in ("killed", "alive")
    ]
    wait_until(lambda: (tmp_path / "opened").exists())
    wait_until(lambda: len(list(temporary.glob("fcn-tmp-*/.lock"))) == 4)
    killed, alive = running
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(temporary.iterdir())) == 4
    # Its workers hold the locks until they have noticed.
    wait_until(lambda: left_after_sweeping(temporary) == 2)
    (tmp_path / "go").touch()
    assert alive.wait(60) == 0
    assert not list(temporary.iterdir())
    run_process("segment", made, *SMALL, "-o", "killed", cwd=tmp_path, env=env)
    assert not list(temporary.iterdir())


def test_what_others_have_stays(temporary: Path, tmp_path: Path) -> None:
    lock = (abandoned(tmp_path) / ".lock").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("stdin", "pixels-1", ".lock"):
        (elsewhere / name).write_bytes(lock)
    # A virtual environment has an empty lock; under our own prefix others may have anything.
    for name in ("fcn-venv", "fcn-tmp-venv", "fcn-tmp-text"):
        (temporary / name / "bin").mkdir(parents=True)
        (temporary / name / "stdin").touch()
        (temporary / name / ".lock").write_text("" if name.endswith("venv") else "mine")
    (temporary / "fcn-tmp-link").symlink_to(elsewhere)
    for name in ("linked-lock", "pipe", "no-lock", "directory"):
        (temporary / f"fcn-tmp-{name}").mkdir()
        (temporary / f"fcn-tmp-{name}/stdin").touch()
    (temporary / "fcn-tmp-linked-lock/.lock").symlink_to(elsewhere / ".lock")
    os.mkfifo(temporary / "fcn-tmp-pipe/.lock")
    (temporary / "fcn-tmp-directory/.lock").mkdir()
    (temporary / "fcn-tmp-file").write_bytes(lock)
    before = sorted(temporary.rglob("*"))
    directory = SweptDirectory()
    directory.remove()
    directory.remove()
    assert sorted(temporary.rglob("*")) == before
    assert len(tree(elsewhere)) == 3


def test_only_our_own_files_go_and_never_a_tree(temporary: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "stdin").write_text("precious")
    left = abandoned(temporary)
    for name in ("stdin", "pixels-1-abc", "manifest.jsonl", "notes.txt"):
        (left / name).write_text(name)
    (left / "pixels-tree").mkdir()
    (left / "pixels-tree/stdin").touch()
    (left / "pixels-link").symlink_to(precious)
    sweep()
    assert {str(path.relative_to(left)) for path in left.rglob("*")} == {
        *(".lock", "notes.txt", "pixels-tree", "pixels-tree/stdin"),
    }
    assert tree(precious) == {"stdin": b"precious"}
    (left / "notes.txt").unlink()
    shutil.rmtree(left / "pixels-tree")
    sweep()
    assert not list(temporary.iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("given_away", [".", ".lock"])
def test_another_users_directory_stays(given_away: str, temporary: Path) -> None:
    left = abandoned(temporary)
    (left / "stdin").touch()
    os.chown(left / given_away, 12345, 12345)
    sweep()
    assert {path.name for path in left.iterdir()} == {".lock", "stdin"}


def test_a_directory_goes_only_when_its_owner_has_gone(temporary: Path) -> None:
    first = SweptDirectory()
    (Path(first.path) / "pixels-1").write_bytes(b"x" * 10)
    second = SweptDirectory()
    assert {path.name for path in temporary.iterdir()} == {Path(one.path).name for one in (first, second)}
    first.remove()
    second.remove()
    assert not list(temporary.iterdir())


@pytest.mark.long
def test_stdins_copy_goes_with_the_run_or_with_the_next(temporary: Path, tmp_path: Path) -> None:
    line = command("segment", "-", *SMALL, "-o", "-")
    env = {**os.environ, "TMPDIR": str(temporary)}
    data = (SAMPLES / "chelsea.png").read_bytes()
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=tmp_path
    ) as running:
        assert running.stdin is not None
        running.stdin.write(data + bytes(3 << 20))
        running.stdin.flush()
        wait_until(lambda: [path.stat().st_size for path in temporary.glob("*/stdin")] > [1 << 20])
        running.kill()
    assert len(list(temporary.glob("*/stdin"))) == 1
    done = subprocess.run(line, input=data, capture_output=True, env=env, cwd=tmp_path, check=True)
    assert done.stdout.startswith(b"\x89PNG")
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_no_directory_of_pytorchs_compiler_is_needed_or_made(
    temporary: Path, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])
    env = {**os.environ, "TMPDIR": str(temporary), "USER": "me", "LOGNAME": "me"}
    run_process("segment", made, *SMALL, "-o", "first", cwd=tmp_path, env=env)
    assert not list(temporary.iterdir())
    (temporary / "torchinductor_me").touch()
    run_process("segment", made, *SMALL, "-o", "out", cwd=tmp_path, env=env)
    # A file, and a directory that cannot be made.
    for place in (tmp_path / "first/settings.json", tmp_path / "first/settings.json/below"):
        run_process("info", env={**env, "TORCHINDUCTOR_CACHE_DIR": str(place)})
    assert [path.name for path in temporary.iterdir()] == ["torchinductor_me"]
