"""What a watch has done: what became of each photo, batch by batch and in all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..common.errors import FailureKind
from ..inputs.discovery import Found, Source
from ..outputs.journal import Journal
from ..outputs.record import Record
from ..outputs.statistics import Totals
from .observers import RunObserver
from .request import ResolvedRequest, SegmentRequest
from .resume_plan import Action, Step
from .run_report import RunReport
from .summary import Summary


class Tally:
    """What became of each photo of a watch last; a photo is known by its absolute path.

    A photo that is segmented twice counts once. A failed photo that is deleted counts no more; one that was
    done does, because its outputs are kept.
    """

    def __init__(self) -> None:
        self._done: set[str] = set()
        self._skipped: set[str] = set()
        self._failures: dict[str, Record] = {}
        self._pruned = self._segmented = 0
        self._seconds = 0.0
        self._how: dict[str, Any] = {}

    def count(self, record: Record, *, skipped: bool) -> None:
        """Count a photo's latest record, in place of an earlier one."""
        path = record.path
        if record.ok and skipped and path in self._done:
            return
        self.forget(path)
        if not record.ok:
            self._failures[path] = record
        else:
            (self._skipped if skipped else self._done).add(path)

    def pruned(self, record: Record) -> None:
        """Count a photo whose outputs were removed."""
        self.forget(record.path)
        self._pruned += 1

    def vanished(self, sources: Sequence[Source]) -> None:
        """Count no more the failures of photos that are gone."""
        for source in sources:
            self._failures.pop(os.path.abspath(source.path), None)

    def forget(self, path: str) -> None:
        """Count a photo no more."""
        self._done.discard(path)
        self._skipped.discard(path)
        self._failures.pop(path, None)

    def add_batch(self, batch: Summary) -> None:
        """Add the figures of a batch that are not about single photos."""
        self._segmented += batch.segmented
        self._seconds += batch.seconds
        self._how |= batch.how

    def is_refused(self, source: Source) -> bool:
        """Say whether another photo has this photo's name."""
        record = self._failures.get(os.path.abspath(source.path))
        return record is not None and _is_refusal(record)

    def knows(self, step: Step) -> bool:
        """Say whether a step is a refusal that was counted and reported already."""
        if step.action != Action.REFUSED or step.source is None:
            return False
        record = self._failures.get(os.path.abspath(step.source.path))
        return record is not None and record.error is not None and record.error.message == step.reason

    def totals(self, journal: Journal) -> Totals:
        """Return the sums over the photos that are done; each is read from the journal."""
        totals = Totals()
        for record in journal:
            if record.path in self._done or record.path in self._skipped:
                totals.add(record)
        return totals

    def sum_up(self, last: Summary, left: int) -> Summary:
        """Return the summary of the watch so far.

        Parameters
        ----------
        last
            The summary of the last batch, for what is the same in all of them.
        left
            The number of photos that were found and not reached.
        """
        failures = sorted(self._failures.values(), key=lambda record: record.image)
        done, skipped, failed = len(self._done), len(self._skipped), len(failures)
        return replace(
            last,
            total=done + skipped + failed + left,
            done=done,
            skipped=skipped,
            failed=failed,
            failures=failures,
            # They were reported with their batches.
            known_failures={record.image for record in failures},
            refused=[record for record in failures if _is_refusal(record)],
            pruned=self._pruned,
            segmented=self._segmented,
            seconds=self._seconds,
            how=dict(self._how),
            watched=True,
        )


class BatchReport(RunReport):
    """The report of one batch of a watch, which adds to the watch's tally.

    Parameters
    ----------
    request, resolved, found, observer
        See `RunReport`.
    tally
        What became of each photo of the watch.
    """

    def __init__(
        self,
        request: SegmentRequest,
        resolved: ResolvedRequest,
        found: Found,
        observer: RunObserver,
        tally: Tally,
    ) -> None:
        super().__init__(request, resolved, found, observer)
        self._tally = tally

    def count(self, record: Record, *, skipped: bool) -> None:
        """Count a photo's record in the batch and in the tally."""
        super().count(record, skipped=skipped)
        self._tally.count(record, skipped=skipped)

    def pruned(self, record: Record) -> None:
        """Count a removed photo whose outputs were removed."""
        super().pruned(record)
        self._tally.pruned(record)

    def drop(self, count: int) -> None:
        """Count so many photos of the batch no more: they come again in a later one, or are gone."""
        self.summary.total -= count


def _is_refusal(record: Record) -> bool:
    return record.error is not None and record.error.kind == FailureKind.NAME_TAKEN
