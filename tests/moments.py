"""Runs of the real command that are struck at an exact moment, by a signal from within.

This process imports everything once and forks for each run: forked before any of torch's threads exist, a
child is as good as a fresh process, and starts in no time. `python -m tests.moments --help` says more; it is
``make crash-test``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL import Image

from fcn_cli.__main__ import main as fcn_main
from fcn_cli.common import files, palettes
from fcn_cli.common.output_layout import SUMMARY_FILE
from fcn_cli.inference import engine
from fcn_cli.inputs import decode_pool, decoder  # noqa: F401
from fcn_cli.outputs.journal import Journal, open_for_appending
from fcn_cli.runs import network_stage, prediction_stream, segment  # noqa: F401

from .conftest import SAMPLES, SMALL

EVENTS = (
    "decode",  # a decoding worker has an image in hand
    "predict",  # a batch is about to be predicted
    "half a file",  # half of an output's bytes are written
    "file fsync",  # a file is written, and about to be fsynced
    "rename",  # a whole file is about to get its final name
    "renamed",  # it has it
    "folder fsync",  # names are about to be fsynced
    "half a line",  # half of what goes to the journal is written
    "recorded",  # records are written and fsynced
    "projection",  # stats.csv is there, summary.json is not
)
REPAINT_EVENTS = tuple(event for event in EVENTS if event not in {"decode", "predict"})
KINDS = ("masks", "color")


class Moments:
    """Counts events in this process, and strikes at one of them."""

    def __init__(self, event: str, nth: int, strike: Callable[[], None]) -> None:
        self.event = event
        self.nth = nth
        self.strike = strike
        self.seen: collections.Counter[str] = collections.Counter()
        self.main = os.getpid()

    def happens(self, event: str) -> bool:
        """Count an event; say whether this is the one."""
        self.seen[event] += 1
        return event == self.event and self.seen[event] == self.nth

    def at(self, event: str) -> None:
        """Strike if this is the one."""
        if self.happens(event):
            self.strike()

    def install(self) -> None:
        """Put this into the way of everything that is counted."""
        decoder.decode_with = self.around(decoder.decode_with, before="decode")
        engine.Engine.launch = self.around(engine.Engine.launch, before="predict")  # type: ignore[method-assign]
        os.replace = self.around(os.replace, "rename", "renamed")
        os.fsync = self.fsync(os.fsync)
        files.write_whole = self.write_whole(files.write_whole)
        files.write_text = self.write_text(files.write_text)
        Journal.append = self.append(Journal.append)  # type: ignore[method-assign]

    def around(self, function: Any, before: str = "", after: str = "") -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self.at(before)
            result = function(*arguments, **options)
            self.at(after)
            return result

        return wrapper

    def fsync(self, function: Any) -> Any:
        def fsync(descriptor: int) -> None:
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            self.at("folder fsync" if folder else "file fsync")
            function(descriptor)

        return fsync

    def write_whole(self, function: Any) -> Any:
        def write_whole(path: Path, write: Callable[[BinaryIO], None], *permissions: Any) -> Any:
            if not self.happens("half a file"):
                return function(path, write, *permissions)

            def half(stream: BinaryIO) -> None:
                whole = io.BytesIO()
                write(whole)
                stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
                stream.flush()
                self.strike()
                stream.write(whole.getvalue()[len(whole.getvalue()) // 2 :])

            return function(path, half, *permissions)

        return write_whole

    def write_text(self, function: Any) -> Any:
        def write_text(path: Path, text: str) -> None:
            if path.name == SUMMARY_FILE:
                self.at("projection")
            function(path, text)

        return write_text

    def append(self, function: Any) -> Any:
        def append(journal: Journal, records: Any) -> None:
            records = list(records)
            if records and self.happens("half a line"):
                journal._stream = stream = journal._stream or open_for_appending(journal._file)
                line = json.dumps(records[0].as_json()).encode()
                stream.write(line[: len(line) // 2])
                stream.flush()
                self.strike()
            function(journal, records)
            if records:
                self.at("recorded")

        return append


@dataclass
class Ended:
    """How a run ended: `code` as a shell has it (128 + signal), its stderr, how often each event happened."""

    code: int
    stderr: str
    seen: dict[str, int]


def run_until(
    folder: Path,
    arguments: Sequence[str],
    event: str = "",
    nth: int = 0,
    number: int = signal.SIGKILL,
    times: int = 1,
) -> Ended:
    """Run the command in a fork, in `folder`; at the nth such event it gets a signal (or several)."""
    errors, counts = folder / "stderr.txt", folder / "seen.json"
    counts.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _become_command(folder, arguments, errors, counts, (event, nth, number, times))
    _, status = os.waitpid(child, 0)
    code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    seen = json.loads(counts.read_text()) if counts.exists() else {}
    return Ended(code, errors.read_text(errors="replace"), seen)


def _become_command(
    folder: Path, arguments: Sequence[str], errors: Path, counts: Path, struck: tuple[str, int, int, int]
) -> NoReturn:
    event, nth, number, times = struck
    try:
        os.chdir(folder)
        with errors.open("wb") as stream:
            os.dup2(stream.fileno(), 2)
        main = os.getpid()

        def strike() -> None:
            for nth_signal in range(times):
                if nth_signal:
                    # At once, it would be taken for the first one again.
                    time.sleep(0.3)
                os.kill(main, number)
            if number == signal.SIGKILL:
                # A worker or a thread shall not go on while the process dies.
                time.sleep(60)

        moments = Moments(event, nth, strike)
        moments.install()
        leave = os._exit

        def leaving(status: int) -> NoReturn:
            if os.getpid() == main:
                counts.write_text(json.dumps(moments.seen))
            leave(status)

        os._exit = leaving
        sys.argv = ["fcn", *arguments]
        fcn_main()
    except SystemExit as ending:
        leave(int(ending.code or 0))
    except BaseException:  # noqa: BLE001 - the child must not go on as a copy of its parent
        traceback.print_exc()
    os._exit(99)


def make_images(folder: Path, count: int) -> None:
    """Make small images that differ, and one file that is none."""
    with Image.open(SAMPLES / "astronaut.png") as opened:
        whole = opened.convert("RGB")
    (folder / "sub").mkdir(parents=True)
    for number in range(count):
        left, top = 7 * number % 300, 11 * number % 300
        where = folder / ("sub" if number % 3 == 0 else ".") / f"p{number:03}.png"
        whole.crop((left, top, left + 60 + number % 4, top + 48)).save(where)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no image")


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_sound(output: Path) -> int:
    """Check what must hold at any moment: a record describes whole files; return how many are ok."""
    journal = output / "manifest.jsonl"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    records = {record["image"]: record for record in map(json.loads, lines)}
    for record in records.values():
        for name, size in zip(record["outputs"], record["output_bytes"], strict=True):
            assert (output / name).stat().st_size == size, f"{name} is recorded, but not whole"
        if "color" in record["looks"]:
            colors = palettes.load(record["looks"]["color"]).flatten().tolist()
            with Image.open(output / Path("color", record["image"]).with_suffix(".png")) as image:
                assert image.getpalette() == colors, f"{record['image']} has not the recorded palette"
    for kind in KINDS:
        for path in (output / kind).rglob("*.png") if (output / kind).exists() else ():
            with Image.open(path) as image:
                image.load()
    return sum(record["status"] == "ok" for record in records.values())


def assert_same(output: Path, whole: Path) -> None:
    """Check that a resumed run left what an uninterrupted one leaves."""
    assert not [path for path in output.rglob("*") if path.name.endswith(".tmp")]
    for kind in KINDS:
        assert tree(output / kind) == tree(whole / kind), f"{kind} differ"
    for name in ("stats.csv", "classes.json", "settings.json"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
    totals = [json.loads((folder / "summary.json").read_text())["totals"] for folder in (output, whole)]
    assert totals[0] == totals[1]
    replayed = [
        {one.image: (one.status, one.outputs, one.classes, one.looks) for one in Journal(folder)}
        for folder in (output, whole)
    ]
    assert replayed[0] == replayed[1]
    assert not (output / ".fcn.holder.json").exists()


@contextlib.contextmanager
def material(count: int) -> Iterator[tuple[Path, list[str], Ended]]:
    """Make images and an uninterrupted run of them into ``whole``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "photos", count)
        arguments = ["segment", "photos", *SMALL, "--workers", "2"]
        uninterrupted = run_until(folder, [*arguments, "-o", "whole"])
        assert uninterrupted.code == 1, uninterrupted.stderr
        in_voc = run_until(folder, [*arguments, "-o", "voc", "--palette", "voc"])
        assert in_voc.code == 1, in_voc.stderr
        yield folder, arguments, uninterrupted


def crash(folder: Path, arguments: list[str], event: str, nth: int) -> str:
    """Kill a run at a moment, resume it, compare; return what was seen."""
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    killed = run_until(folder, [*arguments, "-o", "out"], event, nth)
    if killed.seen.get(event, nth) < nth:
        # How many records go to the journal at once depends on timing: this run had fewer such moments.
        return crash(folder, arguments, event, killed.seen[event] // 2 + 1)
    assert killed.code == 128 + signal.SIGKILL, f"exit code {killed.code}\n{killed.stderr}"
    done = assert_sound(output)
    half = len([path for path in output.rglob("*") if path.name.endswith(".tmp")])
    resumed = run_until(folder, [*arguments, "-o", "out"])
    assert resumed.code == 1, f"exit code {resumed.code}\n{resumed.stderr}"
    assert "Traceback" not in resumed.stderr
    assert_same(output, folder / "whole")
    return f"{done} done, {half} half-written"


def change_palette(folder: Path, arguments: list[str], event: str, nth: int, then: str) -> str:
    """Kill a change of the palette at a moment; then finish it, or go back to the old palette; compare."""
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(folder / "whole", output)
    change = [*arguments, "-o", "out", "--palette", "voc"]
    killed = run_until(folder, change, event, nth)
    if killed.seen.get(event, nth) < nth:
        return change_palette(folder, arguments, event, killed.seen[event] // 2 + 1, then)
    assert killed.code == 128 + signal.SIGKILL, f"exit code {killed.code}\n{killed.stderr}"
    assert_sound(output)
    resumed = run_until(folder, [*arguments, "-o", "out", "--palette", then])
    assert resumed.code == 1, f"exit code {resumed.code}\n{resumed.stderr}"
    assert_same(output, folder / ("whole" if then == "hub" else "voc"))
    assert_sound(output)
    return f"then {then}"


def interrupt(folder: Path, arguments: list[str], number: int, nth: int, times: int) -> str:
    """Interrupt a run while a batch is in hand, once or twice; resume it, compare."""
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    ended = run_until(folder, [*arguments, "-o", "out"], "predict", nth, number, times)
    assert ended.code == 128 + number, f"exit code {ended.code}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr
    done = assert_sound(output)
    if times == 1:
        # Batches are of one image here, in order: all before the one in hand are kept.
        assert done >= nth - 1, f"{done} kept, {nth - 1} were finished"
        run = json.loads((output / "summary.json").read_text())["run"]
        assert run["ok"] + run["failed"] + run["not_reached"] == run["images"]
        assert signal.Signals(number).name in ended.stderr
    else:
        assert not (output / "summary.json").exists(), "a second signal did not end it at once"
    resumed = run_until(folder, [*arguments, "-o", "out"])
    assert resumed.code == 1, f"exit code {resumed.code}\n{resumed.stderr}"
    assert_same(output, folder / "whole")
    return f"{done} done"


def main() -> None:
    """Kill runs at many moments, some in each phase, and resume them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--palettes", type=int, default=20, help="how many changes of the palette to kill")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", action="store_true", help="also interrupt runs, once and twice")
    parser.add_argument("--event", choices=EVENTS, nargs="+", default=EVENTS)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    failed = 0

    def attempt(name: str, how: Callable[[], str]) -> None:
        nonlocal failed
        try:
            seen = how()
        except AssertionError as error:
            failed += 1
            seen = f"FAILED: {error}"
        print(f"{name}: {seen}", flush=True)

    with material(options.images) as (folder, arguments, uninterrupted):
        for event in itertools.islice(itertools.cycle(options.event), options.moments):
            # Decoding is counted in the workers, each its own share.
            most = options.images // 4 if event == "decode" else uninterrupted.seen[event]
            nth = chance.randint(1, most)
            attempt(f"killed at {event} {nth} of {most}", partial(crash, folder, arguments, event, nth))
        shutil.copytree(folder / "whole", folder / "out", dirs_exist_ok=True)
        change = run_until(folder, [*arguments, "-o", "out", "--palette", "voc"])
        for event in itertools.islice(itertools.cycle(REPAINT_EVENTS), options.palettes):
            nth, then = chance.randint(1, change.seen[event]), chance.choice(["voc", "hub"])
            name = f"palette change killed at {event} {nth} of {change.seen[event]}"
            attempt(name, partial(change_palette, folder, arguments, event, nth, then))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if options.signals else ():
            for times in (1, 2):
                nth = chance.randint(2, options.images - 1)
                name = f"{number.name} x {times} in batch {nth}"
                attempt(name, partial(interrupt, folder, arguments, number, nth, times))
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
