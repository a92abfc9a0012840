"""stdout, stderr and the log file: messages and figures; a stream that fails stops no work.

Every command imports it, so it is light.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from typing_extensions import override

from ..common import files
from ..common.errors import RequestError
from ..common.redaction import redacted
from ..outputs.json_text import to_line


class Stream(io.RawIOBase):
    """The bytes of a stream. After the first error it takes and discards everything.

    `error` is the reason why bytes were lost; None when all were written, and when the reader closed the pipe
    as `head` does: it has what it wanted.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # The original stays referenced: collected, it would close the file.
        self._original = stream
        self._raw: Any = None
        if stream is not None:
            buffer = stream.buffer
            self._raw = getattr(buffer, "raw", buffer)
        self._discards = False
        self.error: str | None = None

    @override
    def writable(self) -> bool:
        return True

    @override
    def isatty(self) -> bool:
        return self._raw is not None and bool(self._raw.isatty())

    @override
    def fileno(self) -> int:
        if self._raw is None:
            raise io.UnsupportedOperation("fileno")
        return int(self._raw.fileno())

    @override
    def write(self, data: Any) -> int:
        if not self._discards:
            try:
                self._write_all(memoryview(data).cast("B"))
            except OSError as error:
                self._discards = True
                self.error = None if isinstance(error, BrokenPipeError) else error.strerror or str(error)
        return len(data)

    def _write_all(self, data: memoryview) -> None:
        if self._raw is None:
            raise OSError("it is closed")
        while data:
            count = self._raw.write(data)
            if count is None:
                # Another process has made the pipe that it shares with us one that does not block.
                select.select([], [self._raw], [])
            else:
                data = data[count:]


@contextlib.contextmanager
def guarded() -> Iterator[Stream]:
    """Put streams that raise no OSError in place of `sys.stdout` and `sys.stderr`; yield stdout's bytes."""
    before = sys.stdout, sys.stderr
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    for stream in filter(None, before):
        with contextlib.suppress(OSError):
            stream.flush()
    sys.stdout = _text(io.BufferedWriter(out), before[0], line_buffering=out.isatty())
    # Unbuffered: nothing is kept back for whatever flushes it later, the start of a worker for example.
    sys.stderr = _text(err, before[1], line_buffering=True, write_through=True)
    try:
        yield out
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


def _text(raw: Any, original: TextIO | None, *, line_buffering: bool, write_through: bool = False) -> TextIO:
    encoding, errors = ("utf-8", None) if original is None else (original.encoding, original.errors)
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=line_buffering, write_through=write_through)


def occupy_closed() -> None:
    """Open the null device where a standard stream is closed, as under cron it can be.

    A file that is opened later must not get its file descriptor. `sys.stdout` stays None: to write there is
    an error.
    """
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            got = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if got != number:
                os.dup2(got, number)
                os.close(got)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115


class _Log:
    """A log file that is appended to; opened again when it was moved or removed, as logrotate does."""

    def __init__(self, path: Path, output: str) -> None:
        self.path = path
        # Somebody may have prepared the output directory, but not where other logs are.
        folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        self._is_in_output = files.is_within(folder, os.path.realpath(output))
        self.error: str | None = None
        self._stream = self._open()

    def write(self, line: str) -> None:
        """Write a line. The first that cannot be written is told on stderr; none stops the work."""
        try:
            if self._is_away():
                moved, self._stream = self._stream, self._open()
                moved.close()
            self._stream.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            if self.error is None:
                self.error = error.strerror or str(error)
                text = (
                    f"--log-file {self.path}: cannot be written ({self.error}); the run continues without it"
                )
                print_message(text, log=False)

    def close(self) -> None:
        try:
            self._stream.close()
        except OSError as error:
            self.error = self.error or error.strerror or str(error)

    def _open(self) -> io.RawIOBase:
        # Unbuffered: a disk that has room again takes whole lines, not what it refused before.
        return open(self.path, "ab", buffering=0, opener=self._open_carefully)

    def _open_carefully(self, path: str, flags: int) -> int:
        """Open the file; a pipe that nobody reads is an error, and so is a link in the output directory."""
        if self._is_in_output:
            return files.open_regular(path, flags)
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
        if os.name == "posix":
            os.set_blocking(descriptor, True)
        return descriptor

    def _is_away(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._stream.fileno()))
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
    if show:
        # In one file with stdout, lines shall stand in the order of their writing.
        sys.stdout.flush()
        time = "" if sys.stderr.isatty() else f"{now} "
        print(f"{time}fcn: {text}", file=sys.stderr, flush=True)  # noqa: T201
    if _log is not None and log:
        _log.write(f"{now} {text}")


def write_line(text: str, stream: TextIO) -> None:
    """Write a line for people; escape what is not printable, and what the stream's encoding lacks."""
    encoding = stream.encoding or "utf-8"
    stream.write(one_line(redacted(text)).encode(encoding, "backslashreplace").decode(encoding) + "\n")


def open_log(path: Path, output: str) -> None:
    """Append all further messages to a file, also those that ``--quiet`` hides.

    Below the output directory it must not be a link.

    Raises
    ------
    RequestError
        The file cannot be written.
    """
    global _log  # one for the process, like stderr
    close_log()
    try:
        _log = _Log(path, output)
    except OSError as error:
        raise RequestError(f"--log-file {path}: cannot be written ({error.strerror})") from None


def close_log() -> str | None:
    """Close the log file, if one is open; return a line about what it lacks, or None."""
    global _log
    log, _log = _log, None
    if log is None:
        return None
    log.close()
    return f"--log-file {log.path}: lines are missing ({log.error})" if log.error is not None else None


def print_figures(figures: dict[str, Any], table: Callable[[dict[str, Any]], None], *, as_json: bool) -> None:
    """Print figures on stdout, and their failures on stderr.

    Parameters
    ----------
    figures
        The figures by name; `failures` holds what failed.
    table
        Prints them for people.
    as_json
        Print one line of JSON instead.
    """
    for failure in figures.get("failures", ()):
        print_message(f"{failure['image']}: {failure['message']}")
    if as_json:
        print_object(figures)
    else:
        table(figures)


def print_object(value: Mapping[str, Any]) -> None:
    """Print a line of JSON on stdout."""
    sys.stdout.write(to_line(value) + "\n")
