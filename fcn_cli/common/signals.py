"""Signals that end the process: raised as `Interrupted`, or kept by a `Stop` until the batch is done.

Only the command line handles them (`handle`). It does so before it imports anything that takes time, so this
module imports next to nothing.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

ENDING_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""The termination signals that this system has."""

_ECHO_SECONDS = 0.2
_REMINDER = signal.SIGURG
"""Interrupts the main thread in what it waits for; elsewhere it is ignored."""
_REMINDER_SECONDS = 0.01


class Interrupted(BaseException):
    """A signal asked the process to end; as for KeyboardInterrupt, `except Exception` does not catch it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted ({signal.Signals(signum).name})")
        self.signum = signum
        self.exit_code = 128 + signum


class _Received:
    """What this process has received, and what a signal does now. There is one, as there is one process.

    `signum` is the first signal, `since` when it came. `is_taken`: somebody ends the run in order because of
    it. `stop` keeps it; otherwise it is raised while `raises`, and before and after that it ends the process.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.since = 0.0
        self.is_taken = False
        self.raises = False
        self.stop: Stop | None = None
        self._main = _thread.get_ident()

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            if time.monotonic() - self.since > _ECHO_SECONDS:
                os._exit(128 + signum)
            return
        self.signum, self.since = signum, time.monotonic()
        if self.stop is not None:
            self.stop.signum, self.is_taken = signum, True
            return
        if not self.raises:
            _end(signum)
        # Not `threading`: the signal may have come while that holds its own lock.
        _thread.start_new_thread(self._remind, ())
        if not _is_in_import(frame):
            raise Interrupted(signum)

    def raise_again(self, _signum: int, frame: FrameType | None) -> None:
        """Handle a reminder."""
        is_open = self.signum is not None and self.raises and not self.is_taken
        if is_open and not _is_on_its_way() and not _is_in_import(frame):
            assert self.signum is not None  # noqa: S101 - see above
            raise Interrupted(self.signum)

    def _remind(self) -> None:
        """Send reminders as long as nobody has taken what it raised.

        An exception out of a handler can be lost anywhere: in a `__del__` or another callback, in C code that
        clears errors, in an ``except:``.
        """
        while True:
            time.sleep(_REMINDER_SECONDS)
            if self.is_taken or not self.raises:
                return
            signal.pthread_kill(self._main, _REMINDER)


_received = _Received()


def handle() -> None:
    """Let termination signals, SIGINT included, end this process from now on, but for those it ignores.

    A second signal ends it at once, with the exit code of that signal; files under their final names are
    complete then, as after a power cut. One that comes within `_ECHO_SECONDS` is taken for the first one
    again: timeout(1) and others signal the process and then its whole group.
    """
    global _received  # one for the process, like its handlers
    _received = _Received()
    for number in ENDING_SIGNALS:
        # nohup ignores SIGHUP, and it must stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _received.handle)
    signal.signal(_REMINDER, _received.raise_again)
    sys.unraisablehook = _report_unraisable


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise `Interrupted` when a signal comes in the context, where things may have to be put in order.

    While a module is imported it waits. It is raised at the end at the latest, whatever became of it before.
    """
    _received.raises = True
    try:
        yield
    finally:
        _received.raises = False
        if _received.signum is not None and not _received.is_taken:
            caught()
            raise Interrupted(_received.signum) from None


def caught() -> None:
    """Say that an `Interrupted` was caught, and that the process ends in order: it is not raised again."""
    _received.is_taken = True


class Stop:
    """A context manager (in the main thread) that stores the first signal in `signum` and raises nothing."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._outer: Stop | None = None

    def __enter__(self) -> Stop:
        self._outer, _received.stop = _received.stop, self
        if _received.signum is not None and not _received.is_taken:
            # It was raised, and got lost.
            self.signum = _received.signum
            caught()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _received.stop = self._outer

    @property
    def error(self) -> Interrupted | None:
        """The exception to end the run with; None before a signal has arrived."""
        return Interrupted(self.signum) if self.signum is not None else None


def _is_on_its_way() -> bool:
    """Say whether an `Interrupted` has been caught for a moment, to put things in order."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


def _is_in_import(frame: FrameType | None) -> bool:
    """Say whether a module is being imported: at some moments in PyTorch's own, an exception aborts."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _end(signum: int) -> NoReturn:
    """End the process at once: there is nothing to put in order."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with contextlib.suppress(OSError):
        written = "" if os.isatty(2) else f"{now[:-2]}:{now[-2:]} "
        os.write(2, f"{written}fcn: {Interrupted(signum)}\n".encode())
    os._exit(128 + signum)


def _report_unraisable(unraisable: Any) -> None:
    """Print what Python cannot raise, as it would; but not once a signal has come.

    An `Interrupted` is raised again, and what it has left half made may fail when it is deleted.
    """
    if _received.signum is None:
        sys.__unraisablehook__(unraisable)
