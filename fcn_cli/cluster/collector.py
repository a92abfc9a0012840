"""What takes the journal's place in an actor: the driver keeps the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..outputs.json_text import to_line
from ..outputs.record import Record
from .ledger import Entry


class Collector:
    """Takes the records of a block's photos from a `WriteQueue`, and sends them to the ledger.

    The driver has withdrawn earlier records of the files that are written here, so there is none.

    Parameters
    ----------
    ledger
        The run's `Ledger`, as an actor.
    block
        The block.
    photo_of
        Image → place in the run.
    """

    path = "the run's ledger"

    def __init__(self, ledger: Any, block: int, photo_of: Mapping[str, int]) -> None:
        self._ledger = ledger
        self._block = block
        self._photo_of = photo_of
        self._lasting: set[str] = set()
        self._entries: list[Entry] = []
        self.sent: set[int] = set()

    def get(self, image: str) -> Record | None:  # noqa: ARG002 - as the journal has it
        """Return None: the driver knows earlier records."""
        return None

    def owner(self, output: str) -> str | None:  # noqa: ARG002 - as the journal has it
        """Return None: the driver knows who owns a file."""
        return None

    def append(self, records: Iterable[Record]) -> None:
        """Be told which records replace earlier ones, and that their files are on disk.

        `finished` is called for each of them, and for the failures that leave an earlier record as it is.
        """
        self._lasting.update(record.image for record in records)

    def finished(self, record: Record) -> None:
        """Take the record of a photo that is done, or failed."""
        entry = Entry(self._photo_of[record.image], to_line(record.as_json()), record.image in self._lasting)
        self._entries.append(entry)

    def send(self) -> None:
        """Send what came since the last time; what is called next at the ledger comes after it."""
        if self._entries:
            self._ledger.finish.remote(self._block, self._entries)
            self.sent.update(entry.photo for entry in self._entries)
            self._entries = []
