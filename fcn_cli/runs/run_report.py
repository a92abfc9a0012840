"""The report of a run: counts, failures, and the projections of the journal at the end."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

from .. import __version__
from ..common import files, utc_time
from ..common.class_names import class_name
from ..common.errors import OutputLost, StoppedEarly
from ..common.label_map import VOID_INDEX
from ..common.output_layout import SUMMARY_BYTES, SUMMARY_FILE
from ..inputs.discovery import Found
from ..outputs import statistics
from ..outputs.directory import read_classes
from ..outputs.journal import Journal
from ..outputs.json_text import read_name
from ..outputs.output_store import Place
from ..outputs.record import Record
from ..outputs.write_queue import Outcome
from .observers import RunObserver
from .plan import KnownFailure, NetworkStep, Plan, Prune, Refuse, Segment, Skip
from .request import ResolvedRequest, SegmentRequest
from .summary import Summary


class RunReport:
    """Counts every photo of a run once, tells the observer, and writes the projections at the end.

    Parameters
    ----------
    request, resolved
        The request, and what exactly it stands for.
    found
        The photos.
    observer
        Is told of every photo.
    """

    def __init__(
        self, request: SegmentRequest, resolved: ResolvedRequest, found: Found, observer: RunObserver
    ) -> None:
        self._request = request
        self._resolved = resolved
        self._observer = observer
        self._output = request.output.store
        self._failed_before: dict[str, Record] = {}
        self._refused_before = _refused_last_time(self._output)
        self.first_failure: StoppedEarly | None = None
        # Of a watch: it writes the projections now and then.
        self.goes_on = False
        self.summary = Summary(
            str(self._output),
            palette=resolved.look.palette,
            total=len(found.sources),
            ignored=found.ignored_text(),
            shard=request.shard,
        )

    def planned(self, plan: Plan, *, count: bool = True) -> None:
        """Count the photos of a plan that need no work: done before, failed before, refused."""
        self._observer.planned(plan)
        # Of a shard, fewer than were found.
        self.summary.total = len(plan.steps) - plan.count(Prune)
        if not count:
            return
        for step in plan.steps:
            if isinstance(step, Segment):
                failed = plan.records(step.image)
                if failed is not None and failed.status == "failed" and failed.is_of(step.source):
                    self._failed_before[step.image] = failed
            elif isinstance(step, (Skip, KnownFailure, Refuse)):
                record = plan.record_of(step)
                assert record is not None  # noqa: S101 - these steps always have one
                if isinstance(step, KnownFailure) or step.image in self._refused_before:
                    self.summary.known_failures.add(step.image)
                if isinstance(step, Refuse):
                    self.summary.refused.append(record)
                self.count(record, skipped=not isinstance(step, Refuse))

    def all_failed_before(self, steps: Sequence[NetworkStep]) -> bool:
        """Say whether every image to segment has failed in an earlier run and has not changed."""
        return all(step.image in self._failed_before for step in steps)

    def finished(self, outcome: Outcome) -> None:
        """Count an image whose record is in the journal."""
        record = outcome.record
        before = self._failed_before.get(record.image)
        if before is not None and before.error and record.error and before.error.kind == record.error.kind:
            self.summary.known_failures.add(record.image)
        self.count(record, skipped=False)
        if not record.ok and self._request.fail_fast and self.first_failure is None:
            self.first_failure = StoppedEarly(
                f"--fail-fast: stopped at the first failed image, {record.source}"
            )

    def pruned(self, record: Record) -> None:
        """Count a removed photo whose outputs were removed."""
        self.summary.pruned += 1
        self._observer.pruned(record)

    def class_names(self) -> Sequence[str] | None:
        """Return the class names, from the network or the request; None if not even their number is known."""
        names = self.summary.class_names or self._resolved.model.class_names
        if names is None and (recorded := read_classes(self._output)) is not None:
            return [class_name((), index) for index in range(len(recorded))]
        return names

    def project(self, journal: Journal, *, changed: bool) -> None:
        """Write stats.csv and summary.json from the journal; only the run if they are up to date."""
        names = self.describe()
        refused = {record.image for record in self.summary.refused}
        changed = changed or refused != self._refused_before
        run, fingerprint = self.summary.as_json(), self._resolved.fingerprint
        try:
            with OutputLost.when_refused(self._output):
                if not changed and statistics.up_to_date(self._output, names):
                    statistics.write_run(self._output, run)
                else:
                    statistics.write(self._output, journal, fingerprint, names, run)
        except OutputLost as error:
            self.summary.stopped = self.summary.stopped or error

    def describe(self) -> Sequence[str]:
        """Complete the summary with what its counts do not say; return the class names."""
        self.summary.class_names = self.class_names() or [f"class_{index}" for index in range(VOID_INDEX)]
        self.summary.end = None if self.goes_on else utc_time.now()
        self.summary.how.update(kinds=list(self._request.output.kinds), versions=_versions())
        return self.summary.class_names

    def count(self, record: Record, *, skipped: bool) -> None:
        """Count a photo's record, of this run or (`skipped`) of an earlier one, and tell the observer."""
        if not record.ok:
            self.summary.failed += 1
            self.summary.failures.append(record)
        elif skipped:
            self.summary.skipped += 1
        else:
            self.summary.done += 1
        self.summary.totals.add(record)
        self._observer.finished(record, skipped=skipped)


def _refused_last_time(output: Place) -> set[str]:
    """Return the images that the last run refused; they are in no journal."""
    try:
        refused = files.read_small_json(output / SUMMARY_FILE, SUMMARY_BYTES)["run"]["refused"]
        return {read_name(record, "image") for record in refused}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "pillow")}
    if (torch := sys.modules.get("torch")) is not None:
        # This names the build too, as in 2.10.0+cu128.
        packages["torch"] = torch.__version__
    return {"fcn": __version__, "python": platform.python_version(), **packages}
