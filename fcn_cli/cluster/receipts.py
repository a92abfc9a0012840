"""Takes the records that come back from actors into the journal, and knows which are missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ..common.output_layout import output_file
from ..outputs.directory import OutputDirectory
from ..outputs.record import Record
from ..outputs.write_queue import WriteQueue
from ..runs.resume_plan import Step
from .ledger import Entry


class Receipts:
    """The records of a run's photos, as they come back.

    Parameters
    ----------
    steps
        The photos; a photo's place in it is its number.
    kinds
        The kinds of output that a photo without kinds of its own gets.
    writes, folder
        The queue in front of the journal, and the output directory.
    """

    def __init__(
        self, steps: Sequence[Step], kinds: Sequence[str], writes: WriteQueue, folder: OutputDirectory
    ) -> None:
        self._steps = steps
        self._kinds = kinds
        self._writes = writes
        self._folder = folder
        self._recorded: set[int] = set()

    def __len__(self) -> int:
        return len(self._recorded)

    def withdraw(self) -> None:
        """Append records that no longer name the files that the actors are about to write."""
        self._writes.withdraw(
            (step.source, step.kinds or self._kinds) for step in self._steps if step.source is not None
        )
        self._writes.commit(everything=True)

    def take(self, entries: Iterable[Entry]) -> None:
        """Append the records of photos whose files are on disk; of photos that failed, remove old files."""
        for entry in entries:
            if entry.photo in self._recorded:
                continue
            self._recorded.add(entry.photo)
            record = Record.from_json(json.loads(entry.line))
            step = self._steps[entry.photo]
            if entry.replaces and not record.ok and step.source is not None:
                # `withdraw` has taken their names out of the journal, which else would say what is stale.
                self._folder.remove(output_file(step.source.output, kind) for kind in self._kinds)
            self._writes.add_record(record, keep_on_failure=not entry.replaces)
        self._writes.commit(everything=True)

    def lost(self) -> list[str]:
        """Return the photos without a record, as the user gave them."""
        return [
            step.source.given
            for photo, step in enumerate(self._steps)
            if photo not in self._recorded and step.source is not None
        ]
