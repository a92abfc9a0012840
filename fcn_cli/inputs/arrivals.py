"""Arriving images in watched directories: new, changed or gone, and when they are complete."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ..common import files
from .discovery import Source

SETTLE_SECONDS = 2.0
"""For how long an image's size and mtime must not have changed before it is taken."""

State = tuple[int | None, int | None]
"""The size in bytes and mtime in nanoseconds of a file; None where it cannot be asked for."""


@dataclass(slots=True, eq=False)
class _Seen:
    """An image in its present state: seen since when, taken or not, and given back in this state or not."""

    source: Source
    since: float
    taken: bool = False
    given_back: bool = False


@dataclass(frozen=True)
class Scan:
    """What one search of the directories brought: images that are whole and new, and images that are gone."""

    ready: list[Source]
    vanished: list[Source]


class Arrivals:
    """Compares each scan of the directories with the one before.

    An image is ready once two scans that are `settle` seconds apart find it with the same size and mtime, and
    every scan between them. It is ready once for each state: again only after it changed or was away.
    """

    def __init__(self, settle: float = SETTLE_SECONDS) -> None:
        self._settle = settle
        self._seen: dict[str, _Seen] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def waiting(self) -> int:
        """The number of images that are there and not yet known to be whole."""
        return self._waiting

    def scan(self, sources: Sequence[Source], began: float, ended: float) -> Scan:
        """Return what is new since the last scan, by all images that are there.

        Their states were asked for between `began` and `ended`, monotonic times in seconds.
        """
        before, self._seen = self._seen, {}
        ready = []
        for source in sources:
            seen = before.pop(source.path, None)
            if seen is None or _state(seen.source) != _state(source):
                # Its state was asked for at some moment until `ended`.
                seen = _Seen(source, ended)
            elif not seen.taken and began - seen.since >= self._settle:
                seen.taken = True
                ready.append(seen.source)
            self._seen[source.path] = seen
        self._waiting = sum(not seen.taken for seen in self._seen.values())
        return Scan(ready, [seen.source for seen in before.values()])

    def give_back(self, source: Source) -> bool:
        """Let an image that was ready become ready again; say whether that is worth a try.

        It is not when the image was given back in this very state before: then it does not change, it only
        looks like it, or it cannot be read.
        """
        seen = self._seen.get(source.path)
        if seen is None or _state(seen.source) != _state(source):
            return True
        if seen.given_back:
            return False
        seen.given_back, seen.taken = True, False
        self._waiting += 1
        return True


def _state(source: Source) -> State:
    return source.size_bytes, source.mtime_ns


_STEP_MILLISECONDS = 200


class ChangeEvents:
    """Notes in a thread that something below directories has changed, but for an `ignored` one.

    Events only say *when* to look: which images there are is for a search to say. So no harm is done where
    the system loses an event, as long as somebody looks now and then anyway.
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

    def have_come(self) -> bool:
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
