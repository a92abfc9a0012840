"""Run a command on a terminal of a given width, and read what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

COLORS = re.compile(r"\x1b\[[0-9;]*m")
BAR = re.compile(r"\r[^\r\n]*\x1b\[J\r")
"""A drawing of the bar, an empty one too: what the next one is written over."""
BOXES = re.compile("[\u2500-\u257f]")


def what_stays(shown: str) -> str:
    """Return what a terminal still shows at the end, without colours: the bars are gone."""
    return BAR.sub("", COLORS.sub("", shown)).replace("\r", "")


def is_painted(shown: str) -> bool:
    """Say whether anything is in colour."""
    paints = {code for codes in COLORS.findall(shown) for code in re.findall(r"\d+", codes)}
    return bool(paints & {"38", "48", *map(str, [*range(30, 38), *range(40, 48)])})


def on_a_terminal(
    line: Sequence[str | Path], columns: int, *, cwd: Path, environment: Mapping[str, str], code: int = 0
) -> str:
    """Return all that a command writes on stdout and stderr, which are a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    running = subprocess.Popen(
        [str(part) for part in line],
        cwd=cwd,
        env={**kept, "TERM": "xterm-256color", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = read_until(ours, None)
    os.close(ours)
    assert running.wait(timeout=60) == code, shown
    return shown.replace("\r\n", "\n")


def read_until(terminal: int, awaited: str | None, seconds: float = 60) -> str:
    """Read a terminal until a text has come, or with None until its other side is closed."""
    shown = b""
    deadline = time.monotonic() + seconds
    # Linux says so by an error when nobody holds the other side any more.
    with contextlib.suppress(OSError):
        while awaited is None or awaited not in shown.decode(errors="replace"):
            assert time.monotonic() < deadline, shown
            got = os.read(terminal, 65536)
            if not got:
                break
            shown += got
    return shown.decode(errors="replace")
