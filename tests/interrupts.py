"""Signals at any time of a command, also while it starts: each is obeyed, in one line, with its exit code.

`python -m tests.interrupts` sends 200; it is part of ``make crash-test``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .conftest import SMALL, command, untimed
from .moments import assert_same, assert_sound, make_images, run_until

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

COMMANDS = {
    "segment": ("segment", "photos", *SMALL, "--workers", "2", "-q", "-o", "out"),
    "tiles": ("segment", "photos", *SMALL, "--tile", "64", "--workers", "0", "-q", "-o", "tiles"),
    "shard": ("segment", "photos", *SMALL, "--shard", "1/1", "-q", "-o", "shard"),
    "watch": ("segment", "photos", *SMALL, "--watch", "-q", "-o", "watched"),
    "ray": ("segment", "photos", *SMALL, "--ray", "local", "-q", "-o", "ray"),
    "one": ("segment", "photos/p001.png", *SMALL, "-o", "-"),
    "evaluate": ("evaluate", "photos", "whole/masks", *SMALL, "-q"),
    "compare": ("compare", "whole", "voc", "-q"),
    "report": ("report", "whole", "-q"),
    "export": ("export", "whole", "--format", "coco", "-o", "exported", "-q"),
    "verify": ("verify", "whole", "-q"),
    "bench": ("bench", "--backbone", "efficientnet_lite0", "--size", "64x64"),
    "status": ("status", "whole"),
    "info": ("info",),
}


@dataclass
class Struck:
    """How a command ended that got a signal after so many seconds; `code` as a shell has it.

    `where`: before ours, when Python was still starting; in time; or too late, when it had ended.
    """

    number: signal.Signals
    code: int
    stderr: str
    where: str
    seconds_more: float

    def check(self, *, endings: Sequence[int] = ()) -> None:
        """Fail unless the signal was obeyed; `endings` are other exit codes that mean so."""
        shown = f"{self.number.name} {self.where}: exit code {self.code}\n{self.stderr}"
        if self.where == "too late":
            assert self.code in {0, 1}, shown
            return
        # Python ends with 1 where a signal keeps it from starting.
        of_python = {1} if self.where == "before ours" else set[int]()
        assert self.code in {128 + self.number, *endings, *of_python}, shown
        if self.where == "in time":
            assert "Traceback" not in self.stderr, shown
            assert "Exception ignored" not in self.stderr, shown
            told = [line for line in untimed(self.stderr).splitlines() if "interrupted (" in line]
            assert told in ([f"fcn: interrupted ({self.number.name})"], [] if endings else None), shown
            assert "this is a bug" not in self.stderr, shown


def strike(folder: Path, arguments: Sequence[str], number: signal.Signals, seconds: float) -> Struck:
    """Run a command and send it a signal after so many seconds."""
    running = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(seconds)
    where = "too late" if running.poll() is not None else "in time"
    if where == "in time" and not _handles(running.pid, number):
        where = "before ours" if running.poll() is None else "too late"
    running.send_signal(number)
    sent = time.monotonic()
    try:
        _, errors = running.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        running.kill()
        _, errors = running.communicate()
        errors += "not obeyed within 60 s"
    code = running.returncode
    return Struck(number, 128 - code if code < 0 else code, errors, where, time.monotonic() - sent)


def _handles(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has its own handlers: Python itself has one for SIGINT only."""
    try:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False
    wanted = signal.SIGTERM if number == signal.SIGINT else number
    return caught is not None and bool(int(caught[1], 16) >> (wanted - 1) & 1)


def main() -> None:
    """Send signals to commands at times spread evenly from their start on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, nargs=2, default=(0.0, 3.0), metavar=("FROM", "TO"))
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=["segment"])
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    first, last = options.seconds
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "photos", options.images)
        for output in ("whole", "voc"):
            whole = run_until(folder, [*COMMANDS["segment"], "-o", output])
            assert whole.code == 1, whole.stderr
        for chosen in options.commands:
            table: dict[tuple[str, str], list[Struck]] = collections.defaultdict(list)
            for nth in range(options.count):
                seconds = first + (last - first) * (nth + chance.random()) / options.count
                struck = strike(folder, COMMANDS[chosen], chance.choice(NUMBERS), seconds)
                table[struck.number.name, struck.where].append(struck)
                try:
                    struck.check(endings=(0, 1) if chosen == "watch" else ())
                    if chosen == "segment" and (folder / "out").exists():
                        assert_sound(folder / "out")
                        assert struck.where == "before ours" or not [*(folder / "out").rglob("*.tmp")]
                except AssertionError as error:
                    failed += 1
                    print(f"FAILED: {chosen} at {seconds:.3f} s: {error}", flush=True)
                if struck.where == "too late":
                    shutil.rmtree(folder / "out", ignore_errors=True)
            for (number, where), all_struck in sorted(table.items()):
                codes = sorted({struck.code for struck in all_struck})
                longest = max(struck.seconds_more for struck in all_struck)
                print(
                    f"{chosen:8} {number:7} {where:11} {len(all_struck):4} exit codes {codes}, "
                    f"ended within {longest:.2f} s",
                    flush=True,
                )
        if "segment" in options.commands:
            resumed = run_until(folder, COMMANDS["segment"])
            assert resumed.code == 1, resumed.stderr
            assert_same(folder / "out", folder / "whole")
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
