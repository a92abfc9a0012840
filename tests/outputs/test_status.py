"""``fcn status``: how far a run is, from a second process that disturbs nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
from datetime import UTC, datetime, timedelta
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
    run_on_a_small_disk,
    start_and_wait_for_records,
    tree,
    wait_until,
)
from ..made_output import blobs, failed_record, make_output


def status(fcn: Fcn, output: str = "out", *, code: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fcn("status", output, "--json", code=code).stdout)
    assert found["total"] is None or found["total"] == found["done"] + found["failed"] + found["left"]
    return found


@pytest.mark.long
def test_while_a_run_works_and_after_it(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """The run waits in the middle, inside the decoder, until the test has looked."""
    made = make_images([*(f"a{i:02}.png" for i in range(9)), "held.png", "z.png"])
    fcn("segment", made / "a00.png", *SMALL, "--root", made, "-o", "out")
    (made / "broken.png").write_bytes(b"?")
    running = subprocess.Popen(
        command("segment", "made", *SMALL, "-o", "out", "--workers", "0"),
        cwd=tmp_path,
        env=python_with(HELD, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "opened").exists, running)
    recorded, found = -1, status(fcn, code=4)
    # Images before the one that is held may still be written.
    while recorded != (recorded := (tmp_path / "out/manifest.jsonl").read_bytes().count(b"\n")):
        found = status(fcn, code=4)
    assert (found["state"], found["alive"]) == ("running", True)
    assert (found["pid"], found["host"]) == (running.pid, socket.gethostname())
    assert found["total"] == 12
    assert found["done"] + found["failed"] == recorded
    text = fcn("status", "out", code=4).stdout
    assert f"process {running.pid}" in text
    assert f"{found['left']} left" in text
    assert fcn("verify", "out").stdout == ""
    (tmp_path / "go").touch()
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1, errors

    before = tree(tmp_path / "out")
    found = status(fcn, code=1)
    assert tree(tmp_path / "out") == before
    assert [found[key] for key in ("state", "total", "done", "failed", "left")] == ["ended", 12, 11, 1, 0]
    assert (found["exit_code"], found["stopped"], found["alive"]) == (1, None, False)
    (made / "broken.png").unlink()
    fcn("segment", "made", *SMALL, "-o", "out")
    found = status(fcn, code=0)
    assert [found[key] for key in ("total", "done", "failed", "exit_code")] == [11, 11, 0, 0]
    assert "11 images: 11 done, 0 failed\n" in fcn("status", "out").stdout


@pytest.mark.long
def test_a_killed_run(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i:03}.png" for i in range(40)])
    running = start_and_wait_for_records(tmp_path, 3)
    running.kill()
    # Not waited for: the dead process is a zombie, and its number still exists.
    wait_until(lambda: Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    found = status(fcn, code=1)
    assert (found["state"], found["done"]) == ("killed", len(journal_of(tmp_path / "out")))
    assert found["left"] == 40 - found["done"] > 0
    running.communicate()
    assert "run the same fcn segment command again" in fcn("status", "out", code=1).stdout


def test_a_file_that_is_being_written_again_is_not_done(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """Records of a rewrite in hand (here: as a killed run leaves them) lack the kind, and count as left."""
    make_images(["a.png", "b.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    run_file = tmp_path / "out/run.json"
    journal = tmp_path / "out/manifest.jsonl"
    run = json.loads(run_file.read_text())
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    run |= {"done": 0, "journal_bytes": journal.stat().st_size, "end": None}
    run_file.write_text(json.dumps(run))
    withdrawn = {**lines[0], "outputs": lines[0]["outputs"][:1], "output_bytes": lines[0]["output_bytes"][:1]}
    with journal.open("a") as stream:
        stream.write(json.dumps(withdrawn) + "\n")
        stream.write(json.dumps(lines[1]) + "\n" + json.dumps(lines[0])[:50])
    found = status(fcn, code=1)
    assert [found[key] for key in ("state", "done", "failed", "left")] == ["killed", 1, 0, 1]


def test_whose_directory_it_is(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """A process of another start with the number of the holder is not the holder; another host's may be."""
    make_images(["a.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    ticks = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19])
    holder = {"pid": os.getppid(), "host": socket.gethostname(), "ticks": ticks}
    for change, state, alive in (
        ({}, "starting", True),
        ({"ticks": 1}, "ended", False),
        ({"pid": 2**31 - 1}, "ended", False),
        ({"pid": 0}, "ended", False),
        ({"host": "far"}, "starting", None),
    ):
        (tmp_path / "out/.fcn.holder.json").write_text(json.dumps({**holder, **change}))
        found = status(fcn, code=4 if state == "starting" else 0)
        assert (found["state"], found["alive"]) == (state, alive), change
    assert "cannot be seen from this machine" in fcn("status", "out", code=4).stdout


def ended_ago(output: Path, hours: float) -> None:
    """Have the last run have ended so many hours ago."""
    run = json.loads((output / "run.json").read_text())
    then = datetime.now(UTC) - timedelta(hours=hours)
    (output / "run.json").write_text(json.dumps({**run, "end": f"{then:%Y-%m-%dT%H:%M:%SZ}"}))


@pytest.mark.long
def test_when_the_last_run_ended_also_with_nothing_to_do(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    out, line = tmp_path / "out", ("segment", "made", *SMALL, "-o", "out")
    made = make_images(["a.png"])
    fcn(*line)
    for hours, age, code in ((25, "26h", 0), (25, "24h", 1), (25, "1d", 1), (1, "61m", 0), (1, "3599s", 1)):
        ended_ago(out, hours)
        found = json.loads(fcn("status", "out", "--max-age", age, "--json", code=code).stdout)
        assert found["too_old"] is bool(code), (hours, age)
    assert "no run has ended in the last 1 h\n" in fcn("status", "out", "--max-age", "60m", code=1).stdout
    assert status(fcn, code=0)["state"] == "ended"
    # A run with nothing to do ends too, and so do an empty list and a directory without images.
    (tmp_path / "list").touch()
    for again, code in ((line, 0), (("segment", "--files-from", "list", *line[2:]), 0), (line, 3)):
        ended_ago(out, 27)
        fcn("status", "out", "--max-age", "26h", code=1)
        if code == 3:
            (made / "a.png").unlink()
        fcn(*again, code=code)
        assert fcn("status", "out", "--max-age", "26h", code=min(code, 1)).stdout.count("no run has") == 0
        assert json.loads((out / "run.json").read_text())["exit_code"] == code
        assert json.loads((out / "summary.json").read_text())["run"]["end"] is not None
    assert "no images found" in fcn("status", "out", code=1).stdout
    assert json.loads((out / "summary.json").read_text())["totals"]["images"] == 1
    # What is refused is no run.
    make_images(["a.png"])
    before = tree(out)
    fcn(*line, "--tile", "64", code=2)
    with filelock.FileLock(out / ".fcn.lock"):
        fcn(*line, code=4)
    assert tree(out) == before
    # Without a run there is no end; while one goes on, it is not old.
    (out / "run.json").unlink()
    fcn("status", "out", "--max-age", "26h", code=1)
    ticks = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19])
    holder = {"pid": os.getppid(), "host": socket.gethostname(), "ticks": ticks}
    (out / ".fcn.holder.json").write_text(json.dumps(holder))
    assert "no run has" not in fcn("status", "out", "--max-age", "1s", code=4).stdout


@pytest.mark.parametrize("age", ["26", "h", "1w", "-1h", "1.5h", ""])
def test_ages_that_are_none(age: str, fcn: Fcn) -> None:
    assert "as in 26h" in fcn("status", "out", f"--max-age={age}", code=2).stderr


@pytest.mark.long
def test_the_end_on_a_full_disk_is_known(make_images: MakeImages, tmp_path: Path) -> None:
    """The disk has no byte left when the run ends."""
    make_images([f"p{i:02}.png" for i in range(60)], size=(300, 300))
    line = shlex.join(command("segment", "made", *SMALL, "-o", "out", "-q"))
    # Whatever the run removes at its end leaves no room.
    greedy = """
import os
real = os.unlink
def unlink(path, **options):
    real(path, **options)
    try:
        os.stat("out/manifest.jsonl")
        with open("out/filler", "ab", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
    except OSError:
        pass
os.unlink = unlink
"""
    status = shlex.join(command("status", "out"))
    script = f"{line}; code=$?; {status}; exit $code"
    done = run_on_a_small_disk(["sh", "-c", script], tmp_path, env=python_with(greedy, tmp_path))
    assert done.code == 5, done.stderr
    assert re.search(r"ended \S+ \(\d+ s ago\) with exit code 5: .*No space left on device", done.stdout)


def test_a_bug_is_an_end(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fcn_cli.runs.report import RunReport

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    make_images(["a.png"])
    monkeypatch.setattr(RunReport, "project", broken)
    fcn("segment", "made", *SMALL, "-o", "out", code=70)
    assert "with exit code 70: a bug in fcn (ZeroDivisionError: oh)" in fcn("status", "out", code=1).stdout


def test_without_run_json_the_records_count(fcn: Fcn, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", {"a.jpg": blobs(1)})
    with (out / "manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(failed_record("broken.jpg")) + "\n")
    for damage in (False, True):
        if damage:
            (out / "run.json").write_bytes(b"{")
        found = status(fcn, code=1)
        assert [found[key] for key in ("state", "total", "failed")] == ["unknown", 2, 1]


def test_what_is_no_output_directory(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png"])
    assert "made: not an output directory of fcn" in fcn("status", "made", code=2).stderr
    assert "nowhere: no such directory" in fcn("status", "nowhere", code=2).stderr
    (made / "settings.json").write_text('{"fcn_settings": 1}')
    assert "another version of fcn" in fcn("status", "made", code=2).stderr


def test_a_run_that_is_refused_leaves_no_directory(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    fcn("segment", "made", "--offline", "-o", "new/out", code=2)
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    fcn("segment", "made", "--offline", "-o", "there", code=2)
    found = status(fcn, "there", code=1)
    assert (found["state"], found["exit_code"], found["left"]) == ("ended", 2, 1)
    assert re.search("weights|offline", found["stopped"])
