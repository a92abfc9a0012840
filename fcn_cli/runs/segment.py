"""One segmentation run: find, plan, work, sum up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..common import resources
from ..common.errors import DeviceLost, FailureKind, NothingFound, OutputLost
from ..common.label_map import Segmentation
from ..common.output_layout import SETTINGS_FILE, output_file
from ..common.signals import Stop
from ..common.wording import counted
from ..inputs import decoder
from ..inputs.discovery import Found, discover
from ..outputs import pruning, settings
from ..outputs.directory import OutputDirectory
from ..outputs.journal import Journal
from ..outputs.lock import OutputLock
from ..outputs.record import Record, gone
from ..outputs.write_queue import WriteQueue
from . import merging, resume_plan
from .network_stage import NetworkStage
from .observers import RunObserver
from .request import ResolvedRequest, SegmentRequest
from .resume_plan import Action, ResumePlan, Step
from .run_progress import RunProgress
from .run_report import RunReport
from .summary import Summary

# How many photos are plan ready at once for files that a record stands for to be written again.
_REWRITE_GROUP = 16


def segment(request: SegmentRequest, observer: RunObserver) -> Summary:
    """Segment photos into an output directory.

    What ends a run early once it has begun is in the summary (`Summary.stopped`), with what was done.

    Raises
    ------
    NothingFound
        The inputs hold no photo.
    RequestError
        The request is wrong; nothing was written.
    OutputLocked, OutputLost
        The output directory is another run's, or cannot be written.
    """
    request.check()
    decoder.prepare_process(request.prediction.decoding.max_pixels)
    if request.inputs.is_empty_list:
        return Summary(Path(request.output.directory))
    found, resolved = _find(request), request.resolve()
    if request.dry_run:
        return _Run(request, observer, found, resolved).dry()
    with OutputLock(Path(request.output.directory), request.wait, observer.note, request.shard) as lock:
        if lock.waited:
            # Photos and a checkpoint may have come or changed in the meantime.
            found, resolved = _find(request), request.resolve()
        if request.shard is not None:
            merging.begin_shard(lock, resolved.settings, overwrite=request.resume.overwrite)
        summary = _Run(request, observer, found, resolved).execute()
        if request.shard is not None:
            try:
                merging.end_shard(lock, observer.note)
            except OutputLost as error:
                summary.stopped = summary.stopped or error
        return summary


@resources.without_cycle_collection()
def _find(request: SegmentRequest) -> Found:
    output = request.output
    found = discover(request.inputs, output=output.directory, keep_extension=output.keep_extension)
    if not found.sources and request.resume.prune is None:
        raise NothingFound("; ".join(filter(None, ["nothing to segment was found", found.ignored_text()])))
    return found


class _Run:
    """One run, from the plan to the summary."""

    def __init__(
        self, request: SegmentRequest, observer: RunObserver, found: Found, resolved: ResolvedRequest
    ) -> None:
        self.request = request
        self.observer = observer
        self.found = found
        self.resolved = resolved
        self.output = Path(request.output.directory)
        self.folder = OutputDirectory(self.output, resolved.palette, resolved.palette_name)
        self.report = RunReport(request, resolved, found, observer)
        self.stop = Stop()

    def dry(self) -> Summary:
        """Plan and report; write nothing."""
        with contextlib.closing(Journal(self.output)) as journal:
            self._check_settings(journal)
            self.report.planned(self._plan(journal), count=False)
        return self.report.summary

    def execute(self) -> Summary:
        """Do what the plan says."""
        with OutputLost.when_refused(self.output):
            journal = Journal(self.output, self.request.shard)
        try:
            described = self._check_settings(journal)
            plan = self._plan(journal)
            with OutputLost.when_refused(self.output):
                if settings.has_other_schema(self.output):
                    journal.set_aside()
                self._repair(journal, described=described)
                self._update(plan, journal)
            self.report.planned(plan)
            summary, shard = self.report.summary, self.request.shard
            with RunProgress(self.output, self.request.output.kinds, summary, shard) as progress:
                progress.begin(journal, plan)
                self._work_until_lost(plan, journal)
                self._sum_up(plan, journal)
        finally:
            journal.close()
        return self.report.summary

    def _sum_up(self, plan: ResumePlan, journal: Journal) -> None:
        summary = self.report.summary
        if summary.stopped is None and summary.left:
            summary.stopped = self.stop.error or self.report.first_failure
        journal.end_appending()
        if self.request.shard is None:
            self.report.project(journal, changed=bool(plan.work or summary.pruned))
        else:
            self.report.describe()

    def _check_settings(self, journal: Journal) -> bool:
        """Refuse a directory with other settings; say whether its settings file is there."""
        if self.request.resume.overwrite:
            return True
        return self.resolved.settings.check(self.output, (record.fingerprint for record in journal))

    @resources.without_cycle_collection()
    def _plan(self, journal: Journal) -> ResumePlan:
        wanted = resume_plan.Wanted(
            self.request.output.kinds,
            self.resolved.fingerprint,
            self.request.resume.overwrite,
            self.request.resume.retry_failed,
            self._limit_of,
            self.request.shard,
        )
        pruned: Sequence[Record] = ()
        if self.request.resume.prune is not None:
            force = self.request.resume.prune == pruning.FORCE
            pruned = pruning.find(journal, self.found.sources, self.found.directories, force=force)
        return resume_plan.make(self.found.sources, journal, self.folder, wanted, pruned)

    def _limit_of(self, kind: FailureKind) -> float | None:
        return self.request.prediction.decoding.max_pixels if kind == FailureKind.TOO_MANY_PIXELS else None

    def _repair(self, journal: Journal, *, described: bool) -> None:
        """Make good what earlier runs or a failing disk left; for the directory's holder."""
        if journal.damaged:
            lines = counted(journal.damaged, "damaged line")
            images = "its image" if journal.damaged == 1 else "their images"
            self.observer.warn(f"{journal.path}: {lines} dropped; {images} will be done again")
        journal.mend()
        if not described and len(journal):
            known = self.resolved.model.identity
            self.resolved.settings.save(self.output, known if len(known) == 64 else None)
            self.observer.warn(f"{self.output / SETTINGS_FILE} was missing or damaged: written again")

    def _update(self, plan: ResumePlan, journal: Journal) -> None:
        """Remove photos that are gone, first from the journal, then their files; note moves and colours."""
        records = [step.record for step in plan.of(Action.PRUNE) if step.record is not None]
        journal.append(gone(record) for record in records)
        self.folder.remove_with_directories(
            name for record in records for name in record.outputs if journal.owner(name) is None
        )
        for record in records:
            self.report.pruned(record)
        journal.append(step.record for step in plan.steps if step.moved and step.record is not None)
        names = self.report.class_names()
        if len(journal) and names is not None and not plan.through_network:
            # Else the network says how many classes there are.
            self.folder.write_classes(names)

    def _work_until_lost(self, plan: ResumePlan, journal: Journal) -> None:
        if not plan.work:
            return
        limit = self.request.prediction.decoding.max_pixels
        try:
            with WriteQueue(self.folder, journal, self.report.finished, limit) as writes:
                with self.stop:
                    unusable = list(self._make_from_labels(plan.from_labels, writes))
                    writes.commit(everything=True)
                steps = sorted([*plan.through_network, *unusable], key=lambda step: step.image)
                if steps and not self._ended():
                    stage = NetworkStage(
                        self.request, self.resolved, self.folder, self.report, self.observer, self.stop
                    )
                    stage.run(steps, plan, writes)
        except (OutputLost, DeviceLost) as error:
            self.report.summary.stopped = error

    def _make_from_labels(self, steps: Sequence[Step], writes: WriteQueue) -> Iterator[Step]:
        """Write kinds of output from label maps on disk; yield the photos whose maps are not usable."""
        for first in range(0, len(steps), _REWRITE_GROUP):
            group = steps[first : first + _REWRITE_GROUP]
            if self._ended():
                return
            writes.withdraw((step.source, step.kinds) for step in group if step.source is not None)
            for step in group:
                if not self._make_one(step, writes):
                    yield Step(Action.SEGMENT, step.image, "its label map cannot be used", step.source)
                writes.commit()

    def _make_one(self, step: Step, writes: WriteQueue) -> bool:
        record, source = step.record, step.source
        assert record is not None and source is not None and step.label_file is not None  # noqa: S101, PT018 - `Step`
        labels = self.folder.read_labels(step.label_file, record)
        if labels is None:
            return False
        rest = record.without(output_file(source.output, kind) for kind in step.kinds)
        writes.add(source, rest, Segmentation(labels), step.kinds, keep_on_failure=True)
        return True

    def _ended(self) -> bool:
        return self.stop.signum is not None or self.report.first_failure is not None
