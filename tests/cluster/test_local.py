"""``fcn segment --ray local``: Ray comes with the run and goes with it, however that ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import (
    SMALL,
    Fcn,
    MakeImages,
    command,
    journal_of,
    run_on_a_small_disk,
    run_process,
    start_and_wait_for_records,
    stray_lines,
    wait_until,
)
from .test_ray import NAMES, how, pictures

pytestmark = pytest.mark.slow

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""What Ray starts to help; they notice within a minute that the rest was killed."""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return a directory for temporary files, with a short name: Ray puts sockets there."""
    pytest.importorskip("ray", reason="needs Ray")
    folder = tempfile.mkdtemp(prefix="f", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


def processes(temporary: Path) -> set[str]:
    """Return the names of the processes that were started with this directory for temporary files."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={temporary}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.add((process / "cmdline").read_text().split("\0")[0].strip())
        except OSError:
            continue
    return found


def local(*arguments: str) -> list[str]:
    return command("segment", "made", *SMALL, "-o", "out", "--ray", "local", "--threads", "1", *arguments)


def test_ray_comes_and_goes_with_the_run(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, temporary: Path
) -> None:
    names = NAMES[:40]
    make_images(names)
    fcn("segment", "made", *SMALL, "-o", "plain", "--threads", "1")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = run_process(*local()[3:], cwd=tmp_path, env=environment)
    assert stray_lines(done.stderr) == []
    assert pictures(tmp_path / "out") == pictures(tmp_path / "plain")
    ray = how(tmp_path / "out")["ray"]
    assert (ray["address"], ray["nodes"], ray["actors"]) == ("local", 1, min(2, len(os.sched_getaffinity(0))))
    assert how(tmp_path / "out")["threads"] == 1
    assert ray["start_seconds"] > 0
    wait_until(lambda: not processes(temporary))
    assert list(temporary.glob("fcn*")) == []


def listening(temporary: Path) -> set[str]:
    """Return the addresses, as the kernel writes them, on which this directory's processes listen."""
    sockets = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={temporary}".encode() in (process / "environ").read_bytes().split(b"\0"):
                sockets |= {os.readlink(link) for link in (process / "fd").iterdir()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
    ]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


def test_a_local_ray_listens_on_the_loopback_address_only(
    make_images: MakeImages, tmp_path: Path, temporary: Path
) -> None:
    make_images(NAMES)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    running = start_and_wait_for_records(tmp_path, 1, line=local(), env=environment)
    found = listening(temporary)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    # 127.0.0.1, in the order of a little-endian machine's bytes; with its IPv6 forms.
    allowed = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert found
    assert found <= allowed


def test_a_full_disk_under_an_actor_ends_the_run(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, temporary: Path
) -> None:
    make_images(NAMES, size=(300, 300))
    done = run_on_a_small_disk(local(), tmp_path, 600, env={**os.environ, "TMPDIR": str(temporary)})
    assert done.code == 5, done.stderr
    assert stray_lines(done.stderr) == []
    assert "No space left on device" in done.stderr
    known = journal_of(tmp_path / "copy")
    assert 0 < len(known) < len(NAMES)
    assert all(record["status"] == "ok" for record in known.values())
    fcn("segment", "made", *SMALL, "-o", "copy")
    assert how(tmp_path / "copy")["skipped"] == len(known)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal_nothing_is_left_and_the_next_run_goes_on(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    make_images(NAMES)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    running = start_and_wait_for_records(tmp_path, 10, line=local(), env=environment, start_new_session=True)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert (running.returncode, "interrupted (SIGTERM)" in errors) == (143, True), errors
        wait_until(lambda: not processes(temporary))
    else:
        wait_until(lambda: processes(temporary) <= set(AGENTS))
    assert "Traceback" not in errors
    known = journal_of(tmp_path / "out")
    assert 10 <= len(known) < len(NAMES)
    # Without Ray, as any run continues any other.
    fcn("segment", "made", *SMALL, "-o", "out", "--threads", "1")
    assert how(tmp_path / "out")["skipped"] == len(known)
    fcn("segment", "made", *SMALL, "-o", "plain", "--threads", "1")
    assert pictures(tmp_path / "out") == pictures(tmp_path / "plain")
