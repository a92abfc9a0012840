"""A signal is obeyed whenever it comes, in one line and with its exit code: in the middle of imports, too."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import SMALL, MakeImages, command, journal_of, python_with, run_process
from ..interrupts import COMMANDS, NUMBERS, strike

# Python code that runs something when a module is about to be imported.
AT_IMPORT = """
import os, signal, sys, time
class AtImport:
    done = False
    def find_spec(self, name, *_):
        if name == {module!r} and not AtImport.done:
            AtImport.done = True
            def send():
                os.kill(os.getpid(), {number})
                time.sleep(0.05)
            {how}
sys.meta_path.insert(0, AtImport())
"""

LOST = {
    "as it should": "send()",
    "except Exception": """
            try:
                send()
            except Exception:
                pass""",
    "except": """
            try:
                send()
            except:
                pass""",
    "another error": """
            try:
                send()
            except BaseException:
                raise ImportError("it fits nothing")""",
    "callback": """
            class Dies:
                def __del__(self):
                    send()
            Dies()""",
}


# The same when a function is called, which then takes its time.
AT_CALL = """
import os, signal, time
import {module} as module
real = module.{function}
def function(*arguments, **options):
    if True:
        if True:
            def send():
                os.kill(os.getpid(), {number})
                time.sleep(0.05)
            {how}
    time.sleep(5)
    return real(*arguments, **options)
module.{function} = function
"""


def interrupted(cwd: Path, code: str, number: int, *arguments: str | Path) -> str:
    """Run a command that a signal ends when Python starts with some code; return what it wrote to stderr."""
    done = run_process(*arguments, code=128 + number, cwd=cwd, env=python_with(code, cwd))
    shutil.rmtree(cwd / "site")
    return done.stderr


@pytest.mark.parametrize("number", NUMBERS)
def test_before_the_command_line_is_read(number: signal.Signals, tmp_path: Path) -> None:
    code = AT_IMPORT.format(module="typer", number=int(number), how=LOST["callback"])
    assert interrupted(tmp_path, code, number, "status", "nowhere") == f"fcn: interrupted ({number.name})\n"


@pytest.mark.long
@pytest.mark.parametrize("where", [AT_IMPORT, AT_CALL], ids=["import", "call"])
@pytest.mark.parametrize("how", LOST)
def test_it_does_not_get_lost(how: str, where: str, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    module, function = ("torch", "") if where == AT_IMPORT else ("fcn_cli.runs.segment", "discover")
    code = where.format(module=module, function=function, number=int(signal.SIGTERM), how=LOST[how])
    errors = interrupted(tmp_path, code, signal.SIGTERM, "segment", "made", *SMALL, "-q", "-o", "out")
    assert errors == "fcn: interrupted (SIGTERM)\n"
    assert not (tmp_path / "out/manifest.jsonl").exists() or not journal_of(tmp_path / "out")


@pytest.mark.long
def test_other_commands(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    run_process("segment", "made", *SMALL, "-o", "out", cwd=tmp_path)
    for module, function, *arguments in (
        ("fcn_cli.report.directory", "write_report", "report", "out"),
        ("fcn_cli.report.exports.export", "export", "export", "out", "--format", "coco", "-o", "exported"),
        ("fcn_cli.evaluation.accuracy", "evaluate", "evaluate", "made", "out/masks", *SMALL),
    ):
        code = AT_CALL.format(module=module, function=function, number=int(signal.SIGINT), how=LOST["except"])
        assert interrupted(tmp_path, code, signal.SIGINT, *arguments) == "fcn: interrupted (SIGINT)\n"
        assert not (tmp_path / "exported").exists()
        assert not (tmp_path / "out/report.html").exists()


@pytest.mark.long
def test_a_signal_while_the_last_image_is_done_leaves_no_report(
    make_images: MakeImages, tmp_path: Path
) -> None:
    """The run ends with the signal's exit code, also when it had nothing left to do but the report."""
    make_images(["a.png"])
    code = """
import os, signal
from fcn_cli.outputs import write_queue
real = write_queue.WriteQueue.commit
def commit(self, *, everything=False):
    real(self, everything=everything)
    if everything and os.path.exists("out/masks/a.png"):
        os.kill(os.getpid(), signal.SIGTERM)
write_queue.WriteQueue.commit = commit
"""
    done = run_process(
        *("segment", "made", *SMALL, "--report", "-o", "out"),
        code=143,
        cwd=tmp_path,
        env=python_with(code, tmp_path),
    )
    assert "1 done, 0 failed" in done.stderr
    assert "interrupted (SIGTERM)" in done.stderr
    assert not (tmp_path / "out/report.html").exists()
    assert json.loads((tmp_path / "out/summary.json").read_text())["run"]["not_reached"] == 0
    assert run_process("segment", "made", *SMALL, "--report", "-o", "out", cwd=tmp_path).code == 0


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    code = AT_IMPORT.format(module="typer", number=int(signal.SIGHUP), how=LOST["as it should"])
    line = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command("--version")]
    done = subprocess.run(line, env=python_with(code, tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segment", "shard", "watch", "evaluate", "report", "ray"])
def test_signals_at_any_time(name: str, make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{i:03}.png" for i in range(400)], folder="photos")
    run_process("segment", "photos", *SMALL, "-q", "-o", "whole", cwd=tmp_path)
    chance = random.Random(0)
    for nth in range(12):
        struck = strike(tmp_path, COMMANDS[name], chance.choice(NUMBERS), (nth + chance.random()) / 4)
        struck.check(endings=(0,) if name == "watch" else ())
        assert struck.seconds_more < 30


@pytest.mark.long
def test_ctrl_c_while_the_clean_process_starts(make_images: MakeImages, tmp_path: Path) -> None:
    """A terminal sends it to all processes; those that start leave it to the run, which is killed here."""
    make_images(["a.png", "b.png"])
    code = """
import os, signal, sys
if "multiprocessing.forkserver" in " ".join(sys.orig_argv):
    os.kill(os.getpid(), signal.SIGINT)
"""
    script = """
import os, signal
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.decode_pool import DecodePool
from fcn_cli.inputs.decoder import DecodeSettings
from fcn_cli.inputs.discovery import InputRequest, discover
sources = discover(InputRequest(["made"])).sources
pool = DecodePool(sources, DecodeSettings(DecodeOptions(64)), 1, clean=True)
image = next(filter(None, pool))
print(image.pixels.shape, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    line = [sys.executable, "-c", script]
    done = subprocess.run(
        line, cwd=tmp_path, env=python_with(code, tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert done.stdout.endswith(", 3)\n")
