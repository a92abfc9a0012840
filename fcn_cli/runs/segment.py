"""One segmentation run: discover, plan, work, summarise."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from ..common import redaction, resources
from ..common.errors import DeviceLost, FailureKind, NothingFound, OutputLost, RequestError
from ..common.output_layout import SETTINGS_FILE, find_output_type, output_type_of
from ..common.shard import Shard
from ..common.signals import Interrupted, Stop
from ..common.wording import counted
from ..inputs import decoder, workers
from ..inputs.discovery import Found, InputRequest, discover
from ..inputs.patterns import NOT_INCLUDED, PathFilter
from ..outputs import pruning, settings
from ..outputs.directory import OutputDirectory, read_classes
from ..outputs.journal import Journal, RecordIndex
from ..outputs.lock import OutputLock
from ..outputs.output_store import LocalStore, OutputStore
from ..outputs.record import Record, gone
from ..outputs.write_queue import WriteQueue
from . import shards
from .network_stage import NetworkStage
from .observers import RunObserver
from .plan import Complete, Plan, Prune, Remake, Segment, Wanted, make_plan
from .prediction_writer import make_from_labels
from .report import RunProgress, RunReport, Summary
from .request import ResolvedRequest, SegmentRequest

MakeNetworkStage = Callable[
    [SegmentRequest, ResolvedRequest, OutputDirectory, RunObserver, Stop], NetworkStage
]
"""Makes what segments the images that need the network, in this process or elsewhere."""

_SAMPLE = 200
"""From how many records, evenly among all, the size of what is to come is estimated."""
_BLOCK = 4096
"""What file systems give out, in bytes."""


def segment(
    request: SegmentRequest, observer: RunObserver, make_network: MakeNetworkStage = NetworkStage
) -> Summary:
    """Segment images into an output directory.

    What ends a run early once it has begun is in the summary (`Summary.stopped`), with what was done.

    Raises
    ------
    NothingFound
        The inputs hold no image.
    RequestError
        The request is wrong; nothing was written.
    OutputLocked, OutputLost
        The output directory is another run's, or cannot be written.
    """
    request.check()
    output = request.output.store
    decoder.prepare_process(request.prediction.decoding.max_pixels)
    found = _find(request)
    nothing = _why_nothing(request, found)
    if nothing and (request.dry_run or settings.read_fingerprint(output) is None):
        # There is no directory in which to say that this run has ended.
        if request.inputs.is_empty_list:
            return Summary(str(output))
        raise NothingFound(nothing)
    request.output.check()
    resolved = request.resolve()
    if request.dry_run:
        return Run(request, observer, found, resolved).dry()
    if request.shard is not None:
        return _segment_share(request, request.shard, observer, found, resolved, make_network)
    with OutputLock(output, request.wait, observer.note) as lock:
        if lock.waited:
            # Images and a checkpoint may have come or changed in the meantime.
            found, resolved = _find(request), request.resolve()
        return _not_empty(Run(request, observer, found, resolved, make_network=make_network).execute())


def _segment_share(
    request: SegmentRequest,
    shard: Shard,
    observer: RunObserver,
    found: Found,
    resolved: ResolvedRequest,
    make_network: MakeNetworkStage,
) -> Summary:
    """Segment a shard's images; in whatever way that ends, merge if it was the last one."""
    output = request.output.store
    with contextlib.ExitStack() as held:
        while True:
            settings, overwrite = resolved.settings, request.resume.overwrite
            begun = shards.begun(output, shard, settings, request.wait, observer.note, overwrite=overwrite)
            if held.enter_context(begun).waited:
                found, resolved = _find(request), request.resolve()
            if resolved.settings == settings:
                break
            # It has told others of other settings than it has now.
            held.close()
        try:
            with held:
                summary = Run(request, observer, found, resolved, make_network=make_network).execute()
        except (Exception, Interrupted):
            with contextlib.suppress(OutputLost):
                shards.end(output, shard, observer.note)
            raise
    try:
        shards.end(output, shard, observer.note)
    except OutputLost as error:
        summary.stopped = summary.stopped or error
    return _not_empty(summary)


def _not_empty(summary: Summary) -> Summary:
    if isinstance(summary.stopped, NothingFound):
        raise summary.stopped
    return summary


@resources.without_cycle_collection()
def _find(request: SegmentRequest) -> Found:
    output = request.output
    return discover(request.inputs, output=str(output.store), keep_extension=output.keep_extension)


def _why_nothing(request: SegmentRequest, found: Found) -> str:
    """Say that no image was found, and where; empty when the run has something to do."""
    if found.sources or request.resume.prune is not None:
        return ""
    empty = found.empty_directories()
    where = f"no images found in {', '.join(found.directories)}"
    if empty and len(empty) == len(found.directories):
        what = "the directory is empty; is its disk" if len(empty) == 1 else "all are empty; are their disks"
        where = f"{where}: {what} mounted?"
    elif empty:
        where = (
            f"{where}; {' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty; is a disk not "
            "mounted?"
        )
    elif not found.directories:
        where = "no images found"
    return "; ".join(filter(None, [where, _why_not_included(request.inputs, found), found.ignored_text()]))


def _why_not_included(request: InputRequest, found: Found) -> str:
    """Say what the patterns of ``--include`` looked at, when they match nothing."""
    if not found.not_included:
        return ""
    places = ", ".join(map(redaction.public_url, request.inputs[:3])) + (" …" if request.inputs[3:] else "")
    paths = counted(found.ignored[NOT_INCLUDED], "path")
    text = f"--include looked at {paths} below {places}, for example"
    any_case = PathFilter(request.include, request.exclude, ignore_case=True)
    for example in found.not_included:
        if not any_case.left_out(example):
            return f"{text} {example}, which matches with --ignore-case"
    return f"{text} {found.not_included[0]}"


class Run:
    """One run, from the plan to the summary; a watch (see `watch`) makes one for each batch of images.

    `network` is that of earlier runs of this process; where there is none, `make_network` makes it.
    """

    def __init__(
        self,
        request: SegmentRequest,
        observer: RunObserver,
        found: Found,
        resolved: ResolvedRequest,
        network: NetworkStage | None = None,
        make_network: MakeNetworkStage = NetworkStage,
    ) -> None:
        self.request = request
        self.observer = observer
        self.found = found
        self.resolved = resolved
        self.output = request.output.store
        self.folder = OutputDirectory(self.output, resolved.look)
        self.report = RunReport(request, resolved, found, observer)
        self.network = network or make_network(request, resolved, self.folder, observer, Stop())
        self.stop = self.network.stop

    def dry(self) -> Summary:
        """Plan and report; write nothing."""
        with OutputLost.when_refused(self.output):
            opened = Journal(self.output)
        with contextlib.closing(opened) as journal:
            self._check_settings(journal)
            plan = self._plan(journal)
            self.report.planned(plan, count=False)
            self._tell_of_the_directories(plan, journal)
        return self.report.summary

    def execute(self) -> Summary:
        """Do what the plan says."""
        with OutputLost.when_refused(self.output):
            journal = Journal(self.output, self.request.shard)
        try:
            plan = self.prepare(journal)
            with RunProgress(
                self.output, self.request.output.types, lambda: self.report.summary, self.request.shard
            ) as progress:
                progress.begin(journal, plan, self.report.summary.counts)
                self._tell_of_the_directories(plan, journal)
                self.work(plan, journal)
                self._sum_up(plan, journal)
        finally:
            journal.close()
        return self.report.summary

    def _sum_up(self, plan: Plan, journal: Journal) -> None:
        summary = self.report.summary
        nothing = _why_nothing(self.request, self.found)
        if nothing and not self.request.inputs.is_empty_list:
            summary.stopped = NothingFound(nothing)
        if summary.stopped is None:
            # After a signal there is no report either, even if every image is done.
            summary.stopped = self.stop.error or (self.report.first_failure if summary.left else None)
        try:
            with OutputLost.when_refused(journal.path):
                journal.end_appending()
        except OutputLost as error:
            summary.stopped = summary.stopped or error
        if self.request.shard is None:
            self.report.project(journal, changed=bool(plan.work or summary.pruned))
        else:
            self.report.describe()

    def prepare(self, journal: Journal) -> Plan:
        """Plan, and bring the directory into the state that the plan begins from."""
        described = self._check_settings(journal)
        plan = self._plan(journal)
        with OutputLost.when_refused(self.output):
            if settings.has_other_schema(self.output):
                journal.set_aside()
            _repair(self.output, journal, self.resolved, self.observer, described=described)
            _bring_up_to_date(plan, journal, self.folder, self.report)
        for record in plan.over:
            self.observer.detail(f"{record.source}: no longer fails; its record is removed")
        self.report.planned(plan)
        return plan

    def work(self, plan: Plan, journal: Journal) -> None:
        """Do what the plan says; how it ended is in `report`."""
        if not plan.work:
            return
        decoding = self.request.prediction.decoding
        if any(find_output_type(each).shows_image for each in self.request.output.types):
            workers.start(plan.work)
        try:
            with WriteQueue(self.folder, journal, self.report.finished, decoding) as writes:
                with self.stop:
                    unusable = list(make_from_labels(plan.from_labels, self.folder, writes, self._ended))
                    writes.commit(everything=True)
                steps = sorted([*plan.through_network, *unusable], key=lambda step: step.image)
                if steps and not self._ended():
                    self.network.run(steps, plan, writes, self.report)
        except (OutputLost, DeviceLost) as error:
            self.report.summary.stopped = error

    def _check_settings(self, journal: Journal) -> bool:
        """Refuse a directory with other settings; say whether its settings file is there."""
        if self.request.resume.overwrite:
            return True
        fingerprints = (record.fingerprint for record in journal.index)
        described = self.resolved.settings.check(self.output, fingerprints)
        names = self.resolved.class_names if self.resolved.model.asked_names is not None else None
        recorded = read_classes(self.output)
        if names is not None and recorded is not None and len(names) != len(recorded):
            count = counted(len(names), "name")
            raise RequestError(f"--class-names: {count} for the {len(recorded)} classes of {self.output}")
        return described

    @resources.without_cycle_collection()
    def _plan(self, journal: Journal) -> Plan:
        pruned = self._to_prune(journal)
        plan = make_plan(self.found.sources, journal, self.folder, self._wanted(), pruned, self._hashing)
        if self.request.shard is None:
            plan.over = pruning.over(journal, self.found, listed=self.request.inputs.listed is not None)
        return plan

    def _hashing(self, count: int) -> None:
        images = "1 image has" if count == 1 else f"{count:,} images have"
        self.observer.note(f"{images} a new modification time: comparing the content")

    def _wanted(self) -> Wanted:
        return Wanted(
            self.request.output.types,
            self.resolved.fingerprint,
            self.request.resume.overwrite,
            self.request.resume.retry_failed,
            self._limit_of,
            self.request.shard,
            dry=self.request.dry_run,
        )

    def _to_prune(self, journal: Journal) -> Sequence[Record]:
        if self.request.resume.prune is None:
            return ()
        force = self.request.resume.prune == pruning.FORCE
        return pruning.find(journal, self.found.sources, self.found.directories, force=force)

    def _tell_of_the_directories(self, plan: Plan, journal: Journal) -> None:
        types = self.request.output.types
        _warn_of_a_small_disk(plan, journal, self.output, self.observer, types)
        if self.found.sources:
            tell_what_is_not_there(journal, self.found, self.observer)

    def _limit_of(self, kind: FailureKind) -> float | None:
        return self.request.prediction.decoding.max_pixels if kind == FailureKind.TOO_MANY_PIXELS else None

    def _ended(self) -> bool:
        return self.stop.signum is not None or self.report.first_failure is not None


def _repair(
    output: OutputStore,
    journal: Journal,
    resolved: ResolvedRequest,
    observer: RunObserver,
    *,
    described: bool,
) -> None:
    """Make good what earlier runs or a failing disk left; `described`: the settings file is there."""
    if journal.index.damaged:
        observer.warn(f"{journal.path}: {_damage(journal.index)}")
    journal.consolidate()
    if not described and len(journal):
        known = resolved.model.identity
        resolved.settings.save(output, known if len(known) == 64 else None)
        observer.warn(f"{output / SETTINGS_FILE} was missing or damaged: written again")


def _damage(index: RecordIndex) -> str:
    lines = f"{counted(index.damaged, 'damaged line')} dropped"
    told = index.damaged - index.unknown
    if told:
        lines += f"; {'its image' if told == 1 else 'their images'} will be done again"
    if index.unknown:
        which = "its image" if index.damaged == 1 else f"the image of {index.unknown}"
        lines += f"; {which} is unknown: an earlier record is used, and fcn verify finds what does not match"
    return lines


def tell_what_is_not_there(journal: Journal, found: Found, observer: RunObserver) -> None:
    """Name empty directories, and say how many recorded images are gone."""
    counts, more = pruning.absent(journal, found)
    for directory in found.empty_directories():
        text = f"{directory}: this directory is empty; is its disk mounted?"
        if count := counts.pop(directory, 0):
            are = "recorded image is" if count == 1 else "recorded images are"
            observer.warn(f"{text} {'At least ' if more else ''}{count} {are} from it")
        else:
            observer.note(text)
    if number := counts.total():
        is_gone = "recorded image is gone" if number == 1 else "recorded images are gone"
        observer.note(f"{'at least ' if more else ''}{number} {is_gone}; see --prune")


def _warn_of_a_small_disk(
    plan: Plan, journal: Journal, output: OutputStore, observer: RunObserver, types: Sequence[str]
) -> None:
    """Warn when what is to come, at the size of what the records have so far, does not fit on the disk."""
    known = journal.index
    new = sum(step.image not in known for step in plan.of(Segment)) if len(known) else 0
    wanted = Counter(dict.fromkeys(types, new))
    for step in plan.of(Complete, Remake):
        there = set(map(output_type_of, step.record.outputs))
        wanted.update(output_type for output_type in step.types if output_type not in there)
    if not wanted.total() or not isinstance(output, LocalStore):
        return
    sizes: dict[str, list[int]] = {}
    for record in known.sample(_SAMPLE):
        for name, size in record.output_sizes().items():
            sizes.setdefault(output_type_of(name), []).append(-(-size // _BLOCK) * _BLOCK)
    need = sum(
        count * fmean(sizes[output_type]) for output_type, count in wanted.items() if output_type in sizes
    )
    try:
        free = shutil.disk_usage(output.root).free
    except OSError:
        return
    if need > free:
        images = counted(max(wanted.values()), "image")
        observer.warn(
            f"{output}: {images} will need about {_size(need)}, judging by those before, but this disk "
            f"has only {_size(free)} free: the run will end early, with exit code 5"
        )


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _bring_up_to_date(plan: Plan, journal: Journal, folder: OutputDirectory, report: RunReport) -> None:
    """Remove images that are gone, journal first, then their files; note moves, times and colours."""
    journal.append(gone(record) for record in plan.over)
    records = [step.record for step in plan.of(Prune)]
    journal.append(gone(record) for record in records)
    folder.remove_with_directories(
        name for record in records for name in record.outputs if journal.owner(name) is None
    )
    for record in records:
        report.pruned(record)
    journal.append(plan.renewed.values())
    names = report.class_names()
    if len(journal) and names is not None and not plan.through_network:
        # Else the network says how many classes there are.
        folder.write_classes(names)
