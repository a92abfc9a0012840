"""Signals that end a run: the first after the current batch, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

from .errors import Interrupted

ENDING_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""The termination signals that this system has."""

_ECHO_SECONDS = 0.2


class Stop:
    """A context manager (in the main thread) that stores the first signal in `signum` and raises nothing.

    A second signal ends the process at once, with the exit code of that signal; files under their final names
    are complete then, as after a power cut. One that comes within `_ECHO_SECONDS` is taken for the first one
    again: timeout(1) and others signal the process and then its whole group.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._first = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in _handled_signals():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.signum is not None:
            # The run ends, and the signal's echo shall not interrupt how.
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if self.signum is None:
            self.signum, self._first = signum, now
        elif now - self._first > _ECHO_SECONDS:
            os._exit(128 + signum)

    @property
    def error(self) -> Interrupted | None:
        """The exception to end the run with; None before a signal has arrived."""
        return Interrupted(self.signum) if self.signum is not None else None


def raise_on_signals() -> None:
    """Make termination signals, SIGINT included, raise `Interrupted` from now on."""

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Interrupted(signum)

    for number in _handled_signals():
        signal.signal(number, handle)


def _handled_signals() -> list[signal.Signals]:
    """Return the termination signals that are not ignored: nohup ignores SIGHUP, and it must stay ignored."""
    return [number for number in ENDING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
