"""What cron and service managers see: logs, waiting for the run before, streams that are not there."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import filelock
import pytest

from fcn_cli.__main__ import run

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
    tree,
    wait_until,
)

README = Path(__file__).parents[2] / "README.md"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ")


def test_lines_have_the_time_of_day_off_a_terminal(
    make_images: MakeImages,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (make_images(["a.png"]) / "bad.png").write_bytes(b"?")
    monkeypatch.chdir(tmp_path)
    assert run(["segment", "made", *SMALL]) == 1
    shown = capfd.readouterr()
    lines = [line for line in shown.err.splitlines() if "fcn: " in line]
    assert len(lines) == 3
    assert all(STAMP.match(line) for line in lines)
    assert shown.out == ""


def test_a_log_file_has_everything_quiet_or_not(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    (make_images(["a.png"]) / "bad\nname.png").write_bytes(b"?")
    log = tmp_path / "fcn.log"
    done = fcn("segment", "made", *SMALL, "-q", "--log-file", log, code=1)
    assert len(done.stderr.splitlines()) == 1
    first = log.read_text().splitlines()
    for text in ("2 images: 2 to segment", "batches of up to", "not an image", "2 images: 1 done, 1 failed"):
        assert any(text in line for line in first), text
    assert all(STAMP.match(line) for line in first)
    # A second run adds to it; so does an error that ends one before it begins.
    fcn("segment", "made", *SMALL, "--log-file", log, code=1)
    fcn("segment", "nowhere", *SMALL, "--log-file", log, code=2)
    text = log.read_text()
    assert text.splitlines()[: len(first)] == first
    assert "nowhere: no such file or directory" in text
    refused = fcn("segment", "made", *SMALL, "--log-file", "no/such/folder.log", code=2)
    assert "--log-file no/such/folder.log: cannot be written" in refused.stderr


@pytest.mark.long
def test_a_log_does_not_grow_with_what_was_done_before(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """Images done before are one line a night, whatever their number; a failure is one line."""
    (make_images([f"{name}.png" for name in "abcd"]) / "bad.png").write_bytes(b"?")
    line = ("segment", "made", *SMALL, "-o", "out", "-q", "--log-file", "fcn.log")
    fcn(*line, code=1)
    first = (tmp_path / "fcn.log").read_text()
    assert len(re.findall(r"made/[a-d]\.png: done", first)) == 4
    assert first.count("bad.png") == 1
    fcn(*line, code=1)
    second = (tmp_path / "fcn.log").read_text().removeprefix(first)
    assert second.count("4 done before") == 2  # the plan, and the counts at the end
    assert ".png: done" not in second
    assert second.count("no mask for made/bad.png: not an image") == 1
    # With -v too, and each failure once.
    shown = fcn(*(part for part in line if part != "-q"), "-v", code=1).stderr
    assert shown.count("bad.png") == 1
    assert ".png: done" not in shown


@pytest.mark.long
@pytest.mark.parametrize("rotated", ["moved", "copied and cut"])
def test_a_log_that_is_rotated_during_a_run(rotated: str, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["held.png", "z.png"])
    log = tmp_path / "fcn.log"
    running = subprocess.Popen(
        command("segment", "made", *SMALL, "-q", "--log-file", log),
        cwd=tmp_path,
        env=python_with(HELD, tmp_path),
    )
    wait_until((tmp_path / "opened").exists)
    wait_until(lambda: "batches of up to" in log.read_text())
    before = log.read_text()
    if rotated == "moved":
        log.rename(tmp_path / "fcn.log.1")
    else:
        os.truncate(log, 0)
    (tmp_path / "go").touch()
    assert running.wait(timeout=60) == 0
    after = log.read_text()
    assert "2 images: 2 done, 0 failed" in after
    assert "batches of up to" not in after
    if rotated == "moved":
        assert (tmp_path / "fcn.log.1").read_text() == before


@pytest.mark.slow
def test_waiting_for_the_run_before(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "held.png"])
    line = command("segment", "made", *SMALL, "-o", "out")
    first = subprocess.Popen(line, cwd=tmp_path, env=python_with(HELD, tmp_path))
    wait_until(lambda: (tmp_path / "opened").exists())
    with (tmp_path / "err").open("wb") as stream:
        second = subprocess.Popen([*line, "--wait", "60"], cwd=tmp_path, stderr=stream)
        told = f"waiting for another run (process {first.pid}".encode()
        wait_until(lambda: told in (tmp_path / "err").read_bytes())
        # An image that comes while the second run waits is the second run's.
        make_images(["late.png"])
        (tmp_path / "go").touch()
        assert first.wait(timeout=60) == 0
        assert second.wait(timeout=60) == 0
    assert "3 images: 1 done, 2 done before, 0 failed" in (tmp_path / "err").read_text()


@pytest.mark.long
def test_waiting_ends(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    with filelock.FileLock(tmp_path / "out/.fcn.lock"):
        before = time.monotonic()
        fcn("segment", "made", *SMALL, "-o", "out", code=4)
        at_once = time.monotonic() - before
        before = time.monotonic()
        done = fcn("segment", "made", *SMALL, "-o", "out", "--wait", "1.5", code=4)
        assert time.monotonic() - before > 1.5 > at_once
    assert "waiting for another run" in done.stderr


def test_waiting_is_interrupted(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out/.fcn.lock"), (tmp_path / "err").open("wb") as stream:
        line = command("segment", "made", *SMALL, "-o", "out", "--wait", "60")
        waiting = subprocess.Popen(line, cwd=tmp_path, stderr=stream)
        wait_until(lambda: b"waiting for another run" in (tmp_path / "err").read_bytes())
        waiting.terminate()
        assert waiting.wait(timeout=10) == 143


@pytest.mark.long
@pytest.mark.parametrize(("stream", "state"), [("stderr", "full"), ("stdout", "gone")])
def test_messages_that_nobody_can_read_stop_nothing(
    stream: str, state: str, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])
    if state == "full":
        target: int = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    other = "stdout" if stream == "stderr" else "stderr"
    done = subprocess.run(
        command("segment", "made", *SMALL, "-v", "--log-file", "log"),
        cwd=tmp_path,
        check=False,
        **{stream: target, other: subprocess.PIPE},  # type: ignore[call-overload]
    )
    os.close(target)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    assert b"Traceback" not in (done.stderr or b"")
    assert len(tree(tmp_path / "fcn_output/masks")) == 1


@pytest.mark.long
def test_a_pipe_that_nobody_empties_holds_the_run_up_and_loses_nothing(
    make_images: MakeImages, tmp_path: Path
) -> None:
    make_images([f"p{i:03}.png" for i in range(40)])
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # As small as Linux has them: some records fill it.
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    running = subprocess.Popen(
        command("segment", "made", *SMALL, "-o", "out", "--json", "-q"),
        cwd=tmp_path,
        stdout=writer,
        text=True,
    )
    os.close(writer)
    # It stops where the pipe is full. Then somebody reads.
    wait_until(lambda: len(list((tmp_path / "out/masks").glob("*.png"))) > 3, running)
    with os.fdopen(reader) as stream:
        lines = stream.read().splitlines()
    assert running.wait(timeout=60) == 0
    assert len(lines) == 40


@pytest.mark.slow
def test_without_home_terminal_or_locale(make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png"])
    (made / "sch\u00f6n.png").write_bytes((made / "a.png").read_bytes())
    for locale in ({"LC_ALL": "POSIX"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {}):
        done = subprocess.run(
            command("segment", "made", *SMALL, "--overwrite", "--json"),
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), **locale},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"2 images: 2 done" in done.stderr
        assert len(done.stdout.splitlines()) == 2


@pytest.mark.long
def test_a_dry_run_looks_whether_listed_images_are_there(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png"])
    (made / "dead.png").symlink_to("nowhere")
    (tmp_path / "list").write_text("made/a.png\nmade/lost.png\nmade/dead.png\nmade/b.png\n")
    line = ("segment", "--files-from", "list", "--root", "made", *SMALL, "-o", "out")
    fcn("segment", made / "b.png", *SMALL, "-o", "out")
    (made / "b.png").unlink()
    done = fcn(*line, "--dry-run")
    lost = "failed\t{}.png\tno such file (or a broken link)"
    assert done.stdout.splitlines() == [
        "segment\ta.png\tnew",
        "refused\tb.png\tno such file (or a broken link); its earlier outputs are kept",
        *(lost.format(name) for name in ("dead", "lost")),
    ]
    assert "4 images: 1 to segment, 0 to complete, 0 done before, 2 failed, 1 refused" in done.stderr
    # As it is.
    assert "4 images: 1 done, 3 failed" in fcn(*line, code=1).stderr


@pytest.mark.slow
def test_a_run_that_will_not_fit_on_the_disk_is_warned_of(make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"{number}.png" for number in range(3)], folder="few", size=(200, 150))
    make_images([f"p{number:02}.png" for number in range(40)], size=(200, 150))
    few, all_of_them = (
        shlex.join(command("segment", name, *SMALL, "-o", "out", "-q")) for name in ("few", "made")
    )
    script = (
        f"{few} && {all_of_them} --include 'p0?.png' --dry-run && echo fits >&2; {all_of_them} --dry-run;"
        f"{all_of_them}; code=$?; {all_of_them} --write masks --shard 1/1; exit $code"
    )
    done = run_on_a_small_disk(["sh", "-c", script], tmp_path, kilobytes=240)
    first, planned, ran, *_ = done.stderr.splitlines()
    assert first == "fits"
    sizes = [
        -(-size // 4096) * 4096
        for record in journal_of(tmp_path / "copy").values()
        if not record["image"].startswith("p")
        for size in record["output_bytes"]
    ]
    need = 40 * sum(sizes) / 3 / 1e6
    assert planned == ran
    assert f"out: 40 images will need about {need:.1f} MB, judging by those before, but this disk" in ran
    assert done.code == 5


@pytest.mark.long
def test_the_readmes_line_runs_in_crons_environment(make_images: MakeImages, tmp_path: Path) -> None:
    """As cron runs it: by sh, with its short PATH, and mail only when something went wrong."""
    line = next(line for line in README.read_text().splitlines() if line.startswith("    15 2 * * *  "))
    assert "%" not in line  # cron takes it for a line end
    home = tmp_path / "home"
    (home / "fcn-env/bin").mkdir(parents=True)
    script = home / "fcn-env/bin/fcn"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={README.parent} exec {shlex.join(command())} "$@"\n')
    script.chmod(0o755)
    made = make_images(["a.png", "b.png"])
    called = line.split(None, 5)[5].replace("/data/photos", str(made)).replace("/data/", f"{tmp_path}/")
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "somebody"}
    whole = ["/bin/sh", "-c", f"{called} {shlex.join(SMALL)}"]
    mails = []
    for code in (0, 0, 1, 1):
        done = run_line(whole, code=code, cwd=home, env=environment)
        assert done.stdout == ""
        mails.append(done.stderr)
        if len(mails) == 2:
            (made / "broken.png").write_bytes(b"?")
    # New images, nothing new, a broken one, nothing new.
    assert [mail.count("\n") for mail in mails] == [0, 0, 1, 0]
    assert f"no mask for {made}/broken.png: not an image" in mails[2]
    assert set(tree(tmp_path / "segmented/masks")) == {"a.png", "b.png"}
    assert (home / "fcn.log").read_text().count("a.png: done, ") == 1
