"""How a run may end early: signals, a full disk, a lost directory, another run, a reader that goes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import filelock
import pytest

from ..conftest import (
    HELD,
    SMALL,
    Fcn,
    MakeImages,
    command,
    journal_of,
    python_with,
    run_line,
    run_on_a_small_disk,
    run_process,
    start_and_wait_for_records,
    tree,
    untimed,
    wait_until,
    without_roots_rights,
)


def assert_consistent(output: Path) -> int:
    """Every record has its files whole, every file has its record; return the number of records."""
    records = journal_of(output)
    names = {name for record in records.values() for name in record["outputs"]}
    for record in records.values():
        for name, size in zip(record["outputs"], record["output_bytes"], strict=True):
            assert (output / name).stat().st_size == size
    files = {
        str(p.relative_to(output)) for kind in ("masks", "color") for p in (output / kind).rglob("*.png")
    }
    assert files == names
    return len(records)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_cleanly_and_the_next_one_goes_on(
    number: signal.Signals, code: int, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images([f"p{i:03}.png" for i in range(150)])
    running = start_and_wait_for_records(tmp_path, 3)
    # timeout(1) sends two, to the process and to its group: that is one request to end.
    running.send_signal(number)
    time.sleep(0.02)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == code, errors
    assert number.name in errors
    assert "Traceback" not in errors
    done = assert_consistent(tmp_path / "out")
    run = json.loads((tmp_path / "out/summary.json").read_text())["run"]
    assert run["ok"] == done < 150
    assert run["ok"] + run["not_reached"] == run["images"] == 150
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_signal_before_the_loop_ends_at_once(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    fifo = tmp_path / "list"
    os.mkfifo(fifo)
    running = subprocess.Popen(
        command("segment", *SMALL, "--files-from", "list"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    with fifo.open("wb"):
        # The run has opened its list and waits for what is in it.
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 143
    assert untimed(errors) == "fcn: interrupted (SIGTERM)\n"


@pytest.mark.long
def test_a_full_disk_ends_with_5_and_nothing_torn(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """A limit on file size stands for the disk: the journal is the first file to hit it."""
    make_images([f"p{i:02}.png" for i in range(40)])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    # With that limit Python would leave compiled modules torn, for whatever runs after.
    how: dict[str, Any] = {"env": {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, "preexec_fn": limit}
    done = run_process("segment", "made", *SMALL, "-o", "out", code=5, cwd=tmp_path, **how)
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*.tmp"))
    # The line that did not fit is gone as a whole.
    assert (tmp_path / "out/manifest.jsonl").read_bytes().endswith(b"\n")
    again = fcn("segment", "made", *SMALL, "-o", "out")
    assert "done before, 0 failed" in again.stderr
    assert assert_consistent(tmp_path / "out") == 40


@pytest.mark.long
def test_a_really_full_disk(make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i:02}.png" for i in range(60)], size=(300, 300))
    done = run_on_a_small_disk(command("segment", "made", *SMALL, "-o", "out"), tmp_path)
    assert done.code == 5, done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.long
def test_an_output_directory_that_disappears(make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i:03}.png" for i in range(150)])
    running = start_and_wait_for_records(tmp_path, 3)
    (tmp_path / "out").rename(tmp_path / "away")
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 5, errors
    assert "out" in errors
    assert "Traceback" not in errors


@pytest.mark.long
def test_an_output_directory_that_becomes_read_only(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "held.png", "z.png"])
    running = subprocess.Popen(
        [*without_roots_rights(tmp_path), *command("segment", "made", *SMALL, "-o", "out")],
        cwd=tmp_path,
        env=python_with(HELD, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "out/manifest.jsonl"
    wait_until(lambda: (tmp_path / "opened").exists() and journal.exists() and journal.read_bytes(), running)
    folders = [tmp_path / "out" / name for name in ("masks", "color", ".")]
    for folder in folders:
        folder.chmod(0o555)
    (tmp_path / "go").touch()
    _, errors = running.communicate(timeout=60)
    for folder in folders:
        folder.chmod(0o755)
    assert running.returncode == 5, errors
    assert "cannot be written (Permission denied)" in errors
    assert "Traceback" not in errors
    assert "2 done, 1 done before, 0 failed" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    assert assert_consistent(tmp_path / "out") == 3


def test_an_output_directory_that_cannot_be_made(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"])
    done = fcn("segment", "made", *SMALL, "-o", "/proc/nowhere/x", code=5)
    assert "/proc/nowhere/x: cannot be written" in done.stderr


@pytest.mark.slow
def test_two_runs_never_share_an_output_directory(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i:03}.png" for i in range(150)])
    running = start_and_wait_for_records(tmp_path, 1)
    before = time.monotonic()
    done = fcn("segment", "made", *SMALL, "-o", "out", code=4)
    assert time.monotonic() - before < 5
    assert f"process {running.pid} on" in done.stderr
    running.kill()
    running.communicate()
    # A dead holder does not block, and what it left half-written is swept.
    left = tmp_path / "out/masks/.fcn-1-1.tmp"
    left.write_bytes(b"half")
    fcn("segment", "made", *SMALL, "-o", "out")
    assert not left.exists()
    assert not (tmp_path / "out/.fcn.holder.json").exists()
    assert assert_consistent(tmp_path / "out") == 150


@pytest.mark.long
def test_a_lock_that_is_only_lying_there_does_not_block(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    assert (tmp_path / "out/.fcn.lock").exists()
    fcn("segment", "made", *SMALL, "-o", "out")
    with filelock.FileLock(tmp_path / "out/.fcn.lock"):
        # Held by this process's own hand: nobody to name, still locked.
        done = run_process("segment", "made", *SMALL, "-o", "out", code=4, cwd=tmp_path)
        assert "another run is writing there" in done.stderr


def test_json_gives_one_record_a_line_and_the_skipped_ones_too(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png"])
    first = fcn("segment", "made", *SMALL, "--json").records
    assert [(r["image"], r["status"], r["skipped"]) for r in first] == [
        ("a.png", "ok", False),
        ("b.png", "ok", False),
    ]
    second = fcn("segment", "made", *SMALL, "--json").records
    assert [(r["image"], r["status"], r["skipped"]) for r in second] == [
        ("a.png", "ok", True),
        ("b.png", "ok", True),
    ]
    journal = journal_of(tmp_path / "fcn_output")
    assert {key: value for key, value in second[0].items() if key != "skipped"} == journal["a.png"]


@pytest.mark.long
def test_a_reader_that_goes_away_does_not_stop_the_work(make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i}.png" for i in range(5)])
    script = f"set -o pipefail; {' '.join(command('segment', 'made', *SMALL, '--json', '-q'))} | head -1"
    done = run_line(["bash", "-c", script], cwd=tmp_path)
    assert json.loads(done.stdout)["image"] == "p0.png"
    assert done.stderr == ""
    assert len(tree(tmp_path / "fcn_output/masks")) == 5


@pytest.mark.long
def test_under_cron_with_nothing_open_and_no_environment(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    script = f"{' '.join(command('segment', 'made', *SMALL))} <&- >&- 2>&-"
    done = subprocess.run(["env", "-i", "LC_ALL=C", "sh", "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert len(tree(tmp_path / "fcn_output/masks")) == 1


@pytest.mark.long
def test_a_bar_on_a_terminal_and_only_there(make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i}.png" for i in range(12)])
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    running = subprocess.Popen(
        command("segment", "made", *SMALL), cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    out, _ = running.communicate()
    assert running.returncode == 0
    assert out == b""
    assert re.search(rb"\r\d+/12 .* images/s", shown)
    assert b"12 images: 12 done, 0 failed" in shown


@pytest.mark.long
def test_quiet_says_only_what_went_wrong(fcn: Fcn, make_images: MakeImages) -> None:
    folder = make_images(["a.png"])
    assert fcn("segment", "made", *SMALL, "-q").stderr == ""
    (folder / "bad.png").write_bytes(b"?")
    done = fcn("segment", "made", *SMALL, "-q", code=1)
    assert done.stderr == "fcn: no mask for made/bad.png: not an image in a supported format or variant\n"


def test_a_bug_is_owned_up_to(fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcn_cli.runs import segment

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    make_images(["a.png"])
    monkeypatch.setattr(segment, "make_plan", broken)
    done = fcn("segment", "made", *SMALL, code=70)
    assert "this is a bug in fcn (ZeroDivisionError: oh)" in done.stderr


def test_the_summary_table_shows_every_class_seen(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "b.png"])
    done = fcn("segment", "made", *SMALL, "-v")
    rows = (tmp_path / "fcn_output/stats.csv").read_text().splitlines()[1:]
    for name in {row.split(",")[4] for row in rows}:
        assert name in done.stderr
    assert "images/s" in done.stderr
    assert "decoding worker" in done.stderr
