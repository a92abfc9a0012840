"""Messages for people: on stderr, and in the log file. Every command imports this module, so it is light."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ..common.errors import RequestError
from ..common.redaction import redacted


class _Log:
    """A log file that is appended to; opened again when it was moved or removed, as logrotate does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = self._open()

    def write(self, line: str) -> None:
        if self._is_away():
            with contextlib.suppress(OSError):
                moved, self._stream = self._stream, self._open()
                moved.close()
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()

    def _open(self) -> TextIO:
        return self._path.open("a", encoding="utf-8", errors="backslashreplace")

    def _is_away(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._stream.fileno()))
        except OSError:
            return True


_log: _Log | None = None


def one_line(text: str) -> str:
    """Escape all characters that are not printable: line ends, escape codes, undecodable bytes."""
    # Nearly every text, and a plan has hundreds of thousands.
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def print_message(text: str, *, show: bool = True, log: bool = True) -> None:
    """Print one line on stderr and to the log file; where stderr is not a terminal, with date and time.

    Parameters
    ----------
    text
        The message.
    show, log
        False leaves it out on stderr, or in the log file.
    """
    text = one_line(redacted(text))
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    # A full or closed stderr cannot report its own failure, and must not stop the work.
    with contextlib.suppress(OSError, ValueError):
        if show:
            time = "" if sys.stderr.isatty() else f"{now} "
            print(f"{time}fcn: {text}", file=sys.stderr, flush=True)  # noqa: T201
    with contextlib.suppress(OSError, ValueError):
        if _log is not None and log:
            _log.write(f"{now} {text}")


def write_line(text: str, stream: TextIO) -> None:
    """Write a line; escape the characters that the stream's encoding lacks."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def redirect_stdout_to_null(error: OSError) -> str | None:
    """Discard all further output to stdout.

    Returns
    -------
    str or None
        The reason of the error; None if the reader closed the pipe, as `head` does.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return None if isinstance(error, BrokenPipeError) else error.strerror


def open_log(path: Path) -> None:
    """Append all further messages to a file, also those that ``--quiet`` hides.

    Raises
    ------
    RequestError
        The file cannot be written.
    """
    global _log  # one for the process, like stderr
    close_log()
    try:
        _log = _Log(path)
    except OSError as error:
        raise RequestError(f"--log-file {path}: cannot be written ({error.strerror})") from None


def close_log() -> None:
    """Close the log file, if one is open."""
    global _log
    if _log is not None:
        _log.close()
        _log = None
