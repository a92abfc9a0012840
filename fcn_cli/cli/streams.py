"""stdout and stderr of a command. Full, closed or gone, neither stops the work; what is lost is known."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from typing_extensions import override


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
