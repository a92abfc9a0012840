"""The system's events about changes below directories, where the extra `watch` (watchfiles) is installed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from ..common import files

_STEP_MILLISECONDS = 200


class ChangeEvents:
    """Notes in a thread that something below directories has changed; a context manager.

    Events only say *when* to look: which photos there are is for a search to say. So no harm is done where
    the system loses an event, as long as somebody looks now and then anyway.

    Parameters
    ----------
    directories
        The directories.
    ignored
        A directory whose changes do not count.
    """

    def __init__(self, directories: Sequence[str], ignored: str) -> None:
        self._directories = list(directories)
        self._ignored = os.path.realpath(ignored)
        self._changed = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem = ""

    @property
    def alive(self) -> bool:
        """Whether events come; else `problem` says why they do not."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> ChangeEvents:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin, or begin anew: the events of a directory end when it is unmounted or deleted."""
        self.stop()
        try:
            import watchfiles  # noqa: F401 - an extra; the thread needs it
        except ImportError:
            self.problem = "the extra 'watch' is not installed"
            return
        self.problem = ""
        self._end.clear()
        self._thread = threading.Thread(target=self._listen, name="fcn-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def take(self) -> bool:
        """Say whether something has changed since the last call."""
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    def _listen(self) -> None:
        import watchfiles

        real = {os.path.realpath(directory) for directory in self._directories}
        try:
            for _ in watchfiles.watch(
                *real,
                watch_filter=lambda _change, path: not files.is_within(path, self._ignored),
                step=_STEP_MILLISECONDS,
                debounce=_STEP_MILLISECONDS,
                stop_event=self._end,
                ignore_permission_denied=True,
            ):
                self._changed.set()
        except Exception as error:  # noqa: BLE001 - whatever it is, looking without events does the same
            self.problem = str(error)
        # Without events, whoever waits for one has to look.
        self._changed.set()
