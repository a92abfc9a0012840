"""The totals of a watch, counted from its journal."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

from ..common import files
from ..inputs.discovery import Found, Source
from ..outputs.journal import Journal
from ..outputs.json_text import utc_now
from ..outputs.record import Record
from ..outputs.run_file import Counts
from ..outputs.statistics import Totals
from .plan import Complete, Plan, Prune, Refuse, Remake, Segment, Step
from .report import Summary
from .request import SegmentRequest


class WatchReport:
    """Counts the images of the watched directories: each one once, with what became of it last.

    What the journal has is counted from there: what finished since the watch began is its work, the rest was
    done before. An image that is gone counts while its outputs are kept, a failure only while its file is
    there. Kept here is only what no record says: refused images, and sums over batches.
    """

    def __init__(self, request: SegmentRequest, fingerprint: str, journal: Journal) -> None:
        self._journal = journal
        self._fingerprint = fingerprint
        self._directories = [os.path.abspath(given) for given in request.inputs.inputs]
        self._start = utc_now()
        # By absolute path: a refused image may have the name of the one that it is refused for.
        self._refused: dict[str, Record] = {}
        self._batch_start, self._to_do = self._start, frozenset[str]()
        self._pruned = self._segmented = 0
        self._seconds = 0.0
        self._how: dict[str, Any] = {}

    def begin(self, plan: Plan, found: Found) -> Counts:
        """Begin a batch; return how many images are done, have failed, and are left."""
        for step in plan.steps:
            if isinstance(step, Refuse):
                self._refused[step.record.path] = step.record
            elif not isinstance(step, Prune):
                self._refused.pop(os.path.abspath(step.source.path), None)
        self._batch_start = utc_now()
        self._to_do = frozenset(step.image for step in plan.of(Segment, Complete, Remake))
        recorded = self._journal.index
        without = {record.image for record in recorded.without_files()}
        failed = without.intersection(source.image for source in found.sources) - self._to_do
        again = sum(image in recorded and image not in without for image in self._to_do)
        done = len(recorded) - len(without) - again - self._elsewhere
        return Counts(done, len(failed) + len(self._refused), len(self._to_do))

    def end(self, batch: Summary) -> None:
        """Add what no record says about a batch."""
        self._pruned += batch.pruned
        self._segmented += batch.segmented
        self._seconds += batch.seconds
        self._how |= batch.how

    def vanished(self, sources: Iterable[Source]) -> None:
        """Note that these images are gone."""
        for source in sources:
            self._refused.pop(os.path.abspath(source.path), None)

    def is_refused(self, source: Source) -> bool:
        """Say whether another image has this image's name."""
        return os.path.abspath(source.path) in self._refused

    def knows(self, step: Step) -> bool:
        """Say whether a step is a refusal that was reported already."""
        if not isinstance(step, Refuse):
            return False
        record = self._refused.get(step.record.path)
        return record is not None and record.error == step.record.error

    def summary(self, batch: Summary, found: Found) -> Summary:
        """Return the summary of the watch so far; `batch` is that of the last one, `found` what is there."""
        there = {source.image for source in found.sources}
        done = skipped = 0
        failures = list(self._refused.values())
        totals = Totals()
        for record in self._journal.index:
            if record.fingerprint != self._fingerprint or not self._is_watched(record):
                continue
            if batch.left and record.image in self._to_do and record.finished < self._batch_start:
                # Its record is of an earlier state; it counts as left.
                continue
            if not record.ok:
                if record.image in there:
                    failures.append(record)
                continue
            totals.add(record)
            if record.finished >= self._start:
                done += 1
            else:
                skipped += 1
        failures.sort(key=lambda record: record.image)
        return replace(
            batch,
            total=done + skipped + len(failures) + batch.left,
            done=done,
            skipped=skipped,
            failed=len(failures),
            failures=failures,
            # They were reported with their batches.
            known_failures={record.image for record in failures},
            refused=list(self._refused.values()),
            totals=totals,
            pruned=self._pruned,
            segmented=self._segmented,
            seconds=self._seconds,
            how=dict(self._how),
            watched=True,
        )

    @cached_property
    def _elsewhere(self) -> int:
        """How many images of other directories are done; a watch adds none."""
        return sum(record.ok and not self._is_watched(record) for record in self._journal.index)

    def _is_watched(self, record: Record) -> bool:
        return any(files.is_within(record.path, directory) for directory in self._directories)
