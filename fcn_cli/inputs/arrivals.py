"""Images that come, change and go in watched directories: which of them are whole, and which are gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    Parameters
    ----------
    settle
        The seconds for which an image must not have changed.
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
        """Return what is new since the last scan.

        Parameters
        ----------
        sources
            All images that are there.
        began, ended
            When their states were asked for: a monotonic time in seconds.
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
