"""The watched directories: when to search them, what is new, and what ``--prune`` removes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..common.errors import RequestError
from ..inputs.arrivals import Arrivals, ChangeEvents, Scan
from ..inputs.discovery import Found, Source, discover
from ..outputs import pruning
from ..outputs.journal import Journal
from ..outputs.record import Record
from .observers import RunObserver
from .request import SegmentRequest

_REST = 10
"""After a search its directories rest for so many times as long as it took: a tenth of a CPU at most."""
_SECONDS_WITHOUT_EVENTS = 60.0
"""With events: after how long to search all the same. A network file system has events of its own only."""


class WatchedDirectories:
    """Searches directories for images; a context manager, in which the system's events are listened to.

    An image is taken when it has not changed for `settle` seconds, which is also between two searches. Raises
    RequestError where a directory cannot be listed, or is an output directory of ours, or a pattern is wrong.
    """

    def __init__(self, request: SegmentRequest, observer: RunObserver, settle: float) -> None:
        self._request = request
        self._observer = observer
        self._settle = settle
        self._arrivals = Arrivals(settle)
        self._missing: set[str] = set()
        self._warning = ""
        self._woken = self._again = False
        self.found = Found()
        self._began = self._ended = 0.0
        self._search(request.inputs.inputs)
        if len(self.found.directories) < len(set(map(os.path.abspath, request.inputs.inputs))):
            raise RequestError(f"--watch: nothing to watch: {self.found.ignored_text()}")
        self._arrivals.scan(self.found.sources, self._began, self._ended)
        self._events = ChangeEvents(self.found.directories, str(request.output.store))

    def __enter__(self) -> WatchedDirectories:
        self._events.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.stop()

    @property
    def waiting(self) -> int:
        """The number of images that may still be copied."""
        return self._arrivals.waiting

    def give_back(self, source: Source) -> bool:
        """Let an image come again that changed since it was found; see `Arrivals.give_back`."""
        return self._arrivals.give_back(source)

    def how(self) -> str:
        """Say how changes are noticed."""
        return "by events" if self._events.alive else f"searching every {self._settle:g} s"

    def is_due(self) -> bool:
        """Say whether it is time to search."""
        if self._events.have_come():
            self._woken = True
        wait = max(self._settle, _REST * (self._ended - self._began))
        if self._events.alive and not (self._woken or self._again or self._arrivals.waiting):
            wait = max(wait, _SECONDS_WITHOUT_EVENTS)
        return time.monotonic() >= self._ended + wait

    def scan(self) -> Scan:
        """Search, and return what is new."""
        # The system may report a directory and lose what came into it in the same moment: search twice.
        self._again, self._woken = self._woken, False
        if self._events.problem:
            self._warn(f"no events about changes ({self._events.problem}); {self.how()}", detail=True)
        inputs = self._request.inputs.inputs
        missing = {given for given in inputs if not os.path.isdir(given)}
        for given in sorted(missing - self._missing):
            self._observer.warn(f"{given}: this directory is gone; its images wait until it is back")
        for given in sorted(self._missing - missing):
            self._observer.warn(f"{given}: this directory is back")
        if self._missing - missing:
            self._events.start()
        self._missing = missing
        try:
            self._search([given for given in inputs if given not in missing])
        except RequestError as error:
            self._began = self._ended = time.monotonic()
            self._warn(str(error))
            return Scan([], [])
        return self._arrivals.scan(self.found.sources, self._began, self._ended)

    def _search(self, inputs: Sequence[str]) -> None:
        request, output = self._request.inputs, self._request.output
        self._began = time.monotonic()
        self.found = discover(
            replace(request, inputs=inputs, several=len(request.inputs) > 1),
            output=str(output.store),
            keep_extension=output.keep_extension,
        )
        self._ended = time.monotonic()

    def _warn(self, text: str, *, detail: bool = False) -> None:
        """Warn, but not twice in a row of the same."""
        if text != self._warning:
            self._warning = text
            (self._observer.detail if detail else self._observer.warn)(text)


class WatchPruning:
    """Finds the records of images that are gone; `mode` as in `ResumeOptions.prune`."""

    def __init__(self, mode: str | None, journal: Journal, observer: RunObserver) -> None:
        self._mode = mode
        self._journal = journal
        self._observer = observer
        self._candidates: set[str] = set()
        self._warning = ""

    def at_the_start(self, found: Found) -> Sequence[Record]:
        """Return what any run would prune; raises RequestError as `pruning.find` does."""
        return self._find(self._journal, found) if self._mode is not None else ()

    def gone(self, scan: Scan, found: Found) -> Sequence[Record]:
        """Return the records of images that vanished and are gone.

        What looks like a disk that is not mounted is a warning and not the end. The images stay candidates:
        if most of them come back, the rest is pruned with the next one that vanishes.
        """
        if self._mode is None or not scan.vanished or not found.directories:
            return ()
        self._candidates.update(source.image for source in scan.vanished)
        records = [record for image in self._candidates if (record := self._journal.get(image)) is not None]
        try:
            gone = self._find(records, found)
        except RequestError as error:
            if str(error) != self._warning:
                self._warning = str(error)
                self._observer.warn(f"nothing is pruned: {error}")
            return ()
        self._candidates.clear()
        return gone

    def _find(self, records: Iterable[Record], found: Found) -> list[Record]:
        return pruning.find(
            records,
            found.sources,
            found.directories,
            force=self._mode == pruning.FORCE,
            total=len(self._journal),
        )
