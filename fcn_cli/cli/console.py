"""Lines for people, on stderr and in the log file if there is one; light, as every command starts with it."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ..common.errors import RequestError

_log: TextIO | None = None


def one_line(text: str) -> str:
    """Return a text with everything that is not printable (line ends, escape codes, odd bytes) escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def print_message(text: str, *, show: bool = True) -> None:
    """Print one line for people, with the time of day where that is no terminal.

    Parameters
    ----------
    text
        What to say.
    show
        False says it to the log file only.
    """
    text = one_line(text)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    # Nobody is told when the one place to tell it is full or closed; the work is what counts.
    with contextlib.suppress(OSError, ValueError):
        if show:
            time = "" if sys.stderr.isatty() else f"{now} "
            print(f"{time}fcn: {text}", file=sys.stderr, flush=True)  # noqa: T201
    with contextlib.suppress(OSError, ValueError):
        if _log is not None:
            print(f"{now} {text}", file=_log, flush=True)


def write_line(text: str, to: TextIO) -> None:
    """Write a line, with escapes for what the stream's encoding does not have."""
    encoding = to.encoding or "utf-8"
    to.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def redirect_stdout_to_null(error: OSError) -> str | None:
    """Write what still goes to stdout nowhere; return why, unless a reader has had enough (`| head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return None if isinstance(error, BrokenPipeError) else error.strerror


def open_log(path: Path) -> None:
    """Append everything that is said from here on to a file, quiet or not.

    Raises
    ------
    RequestError
        It cannot be written.
    """
    global _log  # as stderr, there is one for the process
    close_log()
    try:
        _log = path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RequestError(f"--log-file {path}: cannot be written ({error.strerror})") from None


def close_log() -> None:
    """Say nothing to a file any more."""
    global _log
    if _log is not None:
        with contextlib.suppress(OSError):
            _log.close()
        _log = None
