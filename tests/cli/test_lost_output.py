"""What stdout and a log file do not take is said in one line, with exit code 5; stderr stops nothing."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest

from fcn_cli.__main__ import run
from fcn_cli.cli.app import app

from ..conftest import SMALL, Fcn, MakeImages, command, need, run_line, tree, untimed, wait_until
from ..made_output import failed_record, make_output

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")

LOST = "fcn: stdout: cannot be written ({}); part of the output is lost\n"
FULL = LOST.format("No space left on device")

# Each command that prints data, with its usual exit code. What segments is not in here.
PRINTING = {
    "--version": 0,
    "--help": 0,
    "report --help": 0,
    "weights list": 0,
    "weights verify": 0,
    "weights fetch efficientnet_lite0": 0,
    "list out": 0,
    "list out --status failed --null": 0,
    "status out": 1,
    "status out --json": 1,
    "verify out": 1,
    "verify out --json": 1,
    "merge out --json": 1,
    "compare out/masks out/masks": 0,
    "compare out/masks out/masks --json": 0,
    "evaluate photos out/masks --predictions out --json": 0,
}
SLOW = (
    "info",
    f"segment photos -o new --json {shlex.join(SMALL)}",  # otherwise 1: one image is broken
    f"segment photos -o new --dry-run {shlex.join(SMALL)}",
    f"segment photos/a.png -o - {shlex.join(SMALL)}",
)
# Where everything goes to stderr and into files.
SILENT = {"export out --format coco -o coco.json": 0}


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a mask, a failed image, and a damaged mask."""
    monkeypatch.chdir(tmp_path)
    labels = {name: np.full((8, 8), 8, np.uint8) for name in ("a.png", "b.png")}
    output = make_output(tmp_path / "out", labels, tmp_path / "photos")
    with (output / "manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(failed_record("broken.jpg")) + "\n")
    (output / "color/b.png").write_bytes(b"?")
    (tmp_path / "photos/broken.png").write_bytes(b"?")
    return output


@contextlib.contextmanager
def streams(monkeypatch: pytest.MonkeyPatch, **names: str | None) -> Iterator[None]:
    """Run with `stdout` or `stderr` written to a file; None: closed."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        for stream, name in names.items():
            opened: TextIO | None = stack.enter_context(open(name, "w")) if name is not None else None
            patch.setattr(sys, stream, opened)
        yield


def run_again(line: str) -> int:
    shutil.rmtree("new", ignore_errors=True)
    shutil.rmtree("out/report", ignore_errors=True)
    Path("coco.json").unlink(missing_ok=True)
    return run(shlex.split(line))


@pytest.mark.parametrize(("line", "code"), [*PRINTING.items(), *SILENT.items()])
def test_every_command_says_that_its_output_is_lost(
    line: str,
    code: int,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lost = line not in SILENT
    assert run_again(line) == code
    said = untimed(capfd.readouterr().err)
    for name, reason in (("/dev/full", "No space left on device"), (None, "it is closed")):
        with streams(monkeypatch, stdout=name):
            assert run_again(line) == (5 if lost else code)
        assert untimed(capfd.readouterr().err) == said + LOST.format(reason) * lost
    for name in ("/dev/full", None):
        with streams(monkeypatch, stderr=name):
            assert run_again(line) == code
        with streams(monkeypatch, stderr=name, stdout="/dev/full"):
            assert run_again(line) == (5 if lost else code)


@pytest.mark.long
@pytest.mark.parametrize("line", SLOW)
def test_those_that_load_a_network_too(
    line: str, output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with streams(monkeypatch, stdout="/dev/full"):
        assert run_again(line) == 5
    said = untimed(capfd.readouterr().err)
    assert said.count("stdout") == said.count(FULL) == 1
    if "--json" in line:
        assert set(tree(Path("new/masks"))) == {"a.png", "b.png"}
        assert "no mask for photos/broken.png" in said


@pytest.mark.slow
def test_a_benchmark_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with streams(monkeypatch, stdout="/dev/full"):
        assert run(["bench", *SMALL[:2], "--size", "64x64", "--rounds", "1", "--kernels", "torch"]) == 5
    assert FULL in untimed(capfd.readouterr().err)


def test_no_command_is_left_out() -> None:
    import typer

    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert names == {line.split()[0] for line in (*PRINTING, *SLOW, *SILENT, "bench")} - {
        "--version",
        "--help",
    }


def test_codes_that_say_more_stay(
    output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = Path("weights")
    weights.mkdir()
    (weights / "fcn_resnet50_coco-1167a1af.pth").write_bytes(b"damaged")
    monkeypatch.setenv("FCN_WEIGHTS_DIR", str(weights))
    with streams(monkeypatch, stdout="/dev/full"):
        assert run(["weights", "verify"]) == 2
    said = untimed(capfd.readouterr().err)
    assert FULL in said
    assert "fcn_resnet50_coco-1167a1af.pth" in said


@pytest.mark.long
def test_in_processes_of_their_own(output: Path, tmp_path: Path) -> None:
    """As a shell starts them: full, closed, a reader that goes, a pipe that does not block."""
    need("bash")
    listing = shlex.join(command("list", "out"))
    for script, code, said in (
        (f"{listing} >/dev/full", 5, FULL),
        (f"{listing} >&-", 5, LOST.format("it is closed")),
        (f"{listing} 2>&-", 0, ""),
        (f"{listing} >/dev/full 2>&1", 5, ""),
        (f"set -o pipefail; {listing} | head -c 1 >/dev/null", 0, ""),
        (f"set -o pipefail; {shlex.join(command('--help'))} | head -c 1 >/dev/null", 0, ""),
    ):
        assert run_line(["bash", "-c", script], cwd=tmp_path, code=code).stderr == said, script


@pytest.mark.long
def test_a_pipe_that_does_not_block(tmp_path: Path) -> None:
    """Another process with the same pipe (node, for example) has made it so: nothing is lost."""
    many = {f"{'x' * 200}{number}.png": np.zeros((1, 1), np.uint8) for number in range(400)}
    make_output(tmp_path / "many", many)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    running = subprocess.Popen(command("list", "many"), cwd=tmp_path, stdout=writer)
    os.close(writer)
    # More than a pipe holds: it is full before anybody reads.
    wait_until(lambda: select.select([reader], [], [], 0)[0])
    with open(reader) as stream:
        assert len(stream.read().splitlines()) == 400
    assert running.wait(timeout=60) == 0


@pytest.mark.long
def test_a_log_on_a_full_disk(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """One line when it happens, one at the end, and 5; the masks are whole."""
    make_images(["a.png", "b.png"])
    first = "--log-file /dev/full: cannot be written (No space left on device); the run continues without it"
    last = "--log-file /dev/full: lines are missing (No space left on device)"
    done = fcn("segment", "made", *SMALL, "-q", "--log-file", "/dev/full", code=5)
    assert done.stderr == f"fcn: {first}\nfcn: {last}\n"
    assert len(tree(tmp_path / "fcn_output/masks")) == 2
    # Also where one image has no mask; a wrong request stays one.
    (tmp_path / "made/bad.png").write_bytes(b"?")
    assert last in fcn("segment", "made", *SMALL, "--log-file", "/dev/full", code=5).stderr
    assert last in fcn("segment", "nowhere", *SMALL, "--log-file", "/dev/full", code=2).stderr


@pytest.mark.long
def test_a_log_that_cannot_be_opened_again(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """Its folder is removed while a run waits for stdin: what comes later is lost."""
    make_images(["a.png"])
    (tmp_path / "logs").mkdir()
    need("bash")
    line = shlex.join(
        command("segment", "--files-from", "-", *SMALL, "-q", "--log-file", "logs/fcn.log", "-o", "out")
    )
    script = f"(until [ -e logs/fcn.log ]; do sleep 0.01; done; rm -r logs; echo made/a.png) | {line}"
    done = run_line(["bash", "-c", script], cwd=tmp_path, code=5)
    assert "--log-file logs/fcn.log: cannot be written (No such file or directory)" in done.stderr
    assert len(tree(tmp_path / "out/masks")) == 1
