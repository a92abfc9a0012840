"""What ``--prune`` removes in a watch: at its start as in any run, then what is seen to go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..common.errors import RequestError
from ..inputs.arrivals import Look
from ..inputs.discovery import Found
from ..outputs import pruning
from ..outputs.journal import Journal
from ..outputs.record import Record
from .observers import RunObserver


class WatchPruning:
    """Finds the records of photos that are gone.

    Parameters
    ----------
    mode
        `pruning.CAREFUL`, `pruning.FORCE`, or None: every record stays.
    journal
        Of the output directory.
    observer
        Is told of what looks like a disk that is not mounted.
    """

    def __init__(self, mode: str | None, journal: Journal, observer: RunObserver) -> None:
        self._mode = mode
        self._journal = journal
        self._observer = observer
        self._candidates: set[str] = set()
        self._warning = ""

    def at_the_start(self, found: Found) -> Sequence[Record]:
        """Return what any run would prune; raises RequestError as `pruning.find` does."""
        return self._find(self._journal, found) if self._mode is not None else ()

    def gone(self, look: Look, found: Found) -> Sequence[Record]:
        """Return the records of photos that vanished and are gone.

        What looks like a disk that is not mounted is a warning and not the end. The photos stay candidates:
        if most of them come back, the rest is pruned with the next one that vanishes.
        """
        if self._mode is None or not look.vanished or not found.directories:
            return ()
        self._candidates.update(source.image for source in look.vanished)
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
