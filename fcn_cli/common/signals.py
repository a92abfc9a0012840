"""Signals that ask a run to end: a first one ends it after the batch in hand, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from .errors import Interrupted

ENDING_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""The signals that ask a process to end, as far as this system has them."""


class Stop:
    """While entered (in the main thread), turns the first signal into `signum` instead of an exception.

    A second signal ends the process at once with the exit code of that signal; what is under its final name
    by then is whole, as after a power cut.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in _heeded():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum

    @property
    def error(self) -> Interrupted | None:
        """The exception to end with, once a signal has come."""
        return Interrupted(self.signum) if self.signum is not None else None


def raise_on_signals() -> None:
    """Make the signals that end a process raise `Interrupted` from here on, SIGINT among them."""

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Interrupted(signum)

    for number in _heeded():
        signal.signal(number, handle)


def _heeded() -> list[signal.Signals]:
    """Return the ending signals but those that are ignored: under nohup SIGHUP is, and shall stay so."""
    return [number for number in ENDING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
