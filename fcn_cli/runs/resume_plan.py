"""Planning: decide what to do with each photo, from the journal and the output files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NoReturn

from ..common import output_layout
from ..common.absolute_paths import AbsolutePaths
from ..common.errors import Failure, FailureKind, ImageError, NameCollision
from ..common.shard import Shard
from ..common.store_urls import is_url
from ..common.wording import counted
from ..inputs import collisions, file_content
from ..inputs.discovery import Source
from ..inputs.refusals import refuse
from ..inputs.sharing import is_in_share
from ..outputs.directory import OutputDirectory
from ..outputs.journal import Journal
from ..outputs.record import Record, begin, finish
from .name_owners import NameOwners

_TIME_CHANGED = "the time changed"
_UNKNOWN = "the content cannot be told"


class Action(StrEnum):
    """What a run does with one image; the value is what ``--dry-run`` prints."""

    SEGMENT = "segment"
    ADD = "add"
    REPAINT = "repaint"
    SKIP = "skip"
    FAILED = "failed"
    REFUSED = "refused"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with one image, and why.

    `record` is the image's earlier record, for `Action.REFUSED` the failure to report; of an image to skip
    it is in the journal (`ResumePlan.record_of`), because all of them take much memory. `kinds` are the kinds
    of output to write; with a `label_file` they are made from that label map, otherwise by the network.
    `renewed` says that the recorded photo has a new path or time.
    """

    action: Action
    image: str
    reason: str
    source: Source | None = None
    record: Record | None = None
    kinds: tuple[str, ...] = ()
    label_file: str | None = None
    renewed: bool = False


@dataclass
class ResumePlan:
    """One step for every photo of a run, and one for every photo to prune.

    `over` are records of failures that were about no image and are over (see `pruning.over`).
    `records` returns the record of an image in the journal. `executions` counts the masks that are there by
    the type of device and the precision that computed them.
    """

    steps: list[Step] = field(default_factory=list)
    records: Callable[[str], Record | None] = lambda _image: None
    executions: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    over: Sequence[Record] = ()

    def record_of(self, step: Step) -> Record | None:
        """Return the record of a step's image."""
        return self.records(step.image) if step.action == Action.SKIP and not step.renewed else step.record

    def of(self, *actions: Action) -> Iterator[Step]:
        """Return the steps with one of these actions, in the order of the photos."""
        return (step for step in self.steps if step.action in actions)

    def count(self, *actions: Action) -> int:
        """Return how many steps have one of these actions."""
        return sum(1 for _ in self.of(*actions))

    @property
    def from_labels(self) -> list[Step]:
        """The photos whose missing kinds can be made from their label map."""
        return [step for step in self.of(Action.ADD, Action.REPAINT) if step.label_file is not None]

    @property
    def through_network(self) -> list[Step]:
        """The photos that need the network, for all kinds or for a missing one."""
        return [
            step
            for step in self.of(Action.SEGMENT, Action.ADD, Action.REPAINT)
            if step.label_file is None and step.source is not None
        ]

    @property
    def work(self) -> int:
        """The number of photos to segment or to add kinds of output to."""
        return self.count(Action.SEGMENT, Action.ADD, Action.REPAINT)


@dataclass(frozen=True)
class Wanted:
    """What a run needs of each photo to skip it.

    `limit_of` returns this run's limit behind a kind of failure, or None where there is none. With a `shard`,
    only its photos are wanted. With `stop_at_collisions` photos that share names stop a run into an empty
    journal, and images that are recorded under other names any: the user can still choose other names. A
    `dry` plan also says which images are not there.
    """

    kinds: Sequence[str]
    fingerprint: str
    overwrite: bool = False
    retry_failed: bool = False
    limit_of: Callable[[FailureKind], float | None] = lambda _kind: None
    shard: Shard | None = None
    stop_at_collisions: bool = True
    dry: bool = False


def make(
    sources: Sequence[Source],
    journal: Journal,
    folder: OutputDirectory,
    wanted: Wanted,
    pruned: Iterable[Record],
    hashing: Callable[[int], None] = lambda _count: None,
) -> ResumePlan:
    """Decide what to do with each photo.

    Parameters
    ----------
    sources
        All photos, also those of other shards: they can have the same output names.
    journal, folder
        The output directory, and its journal.
    wanted
        What each photo needs to be done.
    pruned
        Records of removed photos, whose outputs are to be removed; they own no output names any more.
    hashing
        Is told how many photos have another time than recorded, before their files are read and hashed.

    Raises
    ------
    NameCollision
        Photos share output names, and the journal is empty (see `Wanted`).
    """
    pruned_records = {record.image: record for record in pruned}
    planner = _Planner(journal, folder, wanted, frozenset(pruned_records))
    clashes = {clash.refused: clash for clash in collisions.find(sources, planner.has_its_name)}
    if clashes and wanted.stop_at_collisions and not len(journal):
        _refuse_all(list(clashes.values()))
    if wanted.stop_at_collisions and not wanted.overwrite:
        _refuse_second_names(list(planner.second_names(sources)))
    plan = ResumePlan(
        [
            Step(Action.PRUNE, record.image, "its photo is gone", record=record)
            for record in pruned_records.values()
        ],
        journal.get,
        planner.executions,
    )
    for source in sources:
        if wanted.shard is not None and not is_in_share(source, wanted.shard):
            continue
        if clashes and source in clashes:
            clash = clashes[source]
            plan.steps.append(planner.refused(source, f"{clash.text}; {clash.way_out_later}"))
        else:
            step = planner.step(source)
            plan.steps.append(planner.looked_for(step, source) if wanted.dry else step)
    _compare_contents(plan, planner, hashing)
    return plan


def _compare_contents(plan: ResumePlan, planner: _Planner, hashing: Callable[[int], None]) -> None:
    """Decide again on the photos of which only the time has changed, by the content of their files."""
    places = [place for place, step in enumerate(plan.steps) if step.reason == _TIME_CHANGED]
    if not places:
        return
    hashing(len(places))
    sources = [step.source for place in places if (step := plan.steps[place]).source is not None]
    for place, source, content in zip(places, sources, file_content.of_sources(sources), strict=True):
        step = planner.step(source, content or _UNKNOWN)
        if step.action == Action.SKIP:
            step = replace(step, reason="done before; only its time changed")
        plan.steps[place] = step


def _refuse_all(clashes: Sequence[collisions.Collision]) -> NoReturn:
    if len(clashes) == 1:
        raise NameCollision(f"{clashes[0].text}; {clashes[0].way_out}")
    ways_out = sorted({clash.way_out for clash in clashes})
    raise NameCollision(
        f"{len(clashes)} photos would be written under names of others, nothing is done; "
        f"{'; or '.join(ways_out)}",
        [clash.text for clash in clashes],
    )


def _refuse_second_names(pairs: Sequence[tuple[Source, str]]) -> None:
    """Refuse images that have another name already: they would be segmented again, and count twice."""
    if not pairs:
        return
    source, name = pairs[0]
    images = counted(len(pairs), "image")
    raise NameCollision(
        f"{images} would be segmented again under another name, nothing is done: {source.given} is recorded "
        f"as {name} and would be {source.image}; give the inputs as before, and others in a command of their "
        "own (files with --root), or use another --output; --overwrite makes both"
    )


def _fails_again(source: Source, record: Record) -> bool:
    """Say whether an image that could not be opened still cannot: that needs no decoder and no network."""
    kind = record.error.kind if record.error else None
    failure = source.problem
    if failure is None and kind in {FailureKind.UNREADABLE, FailureKind.NOT_FOUND}:
        failure = _why_not_opened(source.path)
    return failure is not None and failure.kind == kind


def _why_not_opened(path: str) -> Failure | None:
    if is_url(path):
        return None
    try:
        # Without waiting for a writer of what may be a named pipe.
        os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
    except OSError as error:
        try:
            refuse(error, path, 0)
        except ImageError as refused:
            return refused.failure
    return None


class _Planner:
    """Decides the step of each photo of a run; see `make`."""

    def __init__(
        self, journal: Journal, folder: OutputDirectory, wanted: Wanted, pruned: frozenset[str]
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._wanted = wanted
        self._pruned = pruned
        self._absolute = AbsolutePaths()
        self._owners = NameOwners(journal, pruned, lambda output: folder.root / self._first_output(output))
        self._looks = {kind: folder.look(kind) for kind in wanted.kinds}
        self.executions: Counter[tuple[str, str | None]] = Counter()

    def has_its_name(self, source: Source) -> bool:
        """Say whether a photo owns its output name since an earlier run."""
        names = (output_layout.output_file(source.output, kind) for kind in output_layout.kind_names())
        return any(self._journal.owner(name) == source.image for name in names)

    def second_names(self, sources: Sequence[Source]) -> Iterator[tuple[Source, str]]:
        """Yield new images whose file is recorded under another name, also the end of its path."""
        known = self._journal.index.images()
        for source in sources if known else ():
            if source.image in known:
                continue
            path = self._absolute(source.path)
            start = path.find("/")
            while start >= 0:
                name = path[start + 1 :]
                if name in known and name not in self._pruned:
                    record = self._journal.get(name)
                    if record is not None and record.path == path:
                        yield source, name
                        break
                start = path.find("/", start + 1)

    def looked_for(self, step: Step, source: Source) -> Step:
        """Return a failure instead of a step whose image is not there or cannot be listed."""
        if step.action != Action.SEGMENT or source.size_bytes is not None:
            return step
        failure = source.problem or _why_not_opened(source.path)
        if failure is None:
            return step
        record = finish(begin(source, self._wanted.fingerprint), failure)
        return Step(Action.FAILED, source.image, failure.message, source, record)

    def refused(self, source: Source, message: str) -> Step:
        """Return the step of a photo whose name another photo has; its record never enters the journal."""
        failure = Failure(FailureKind.NAME_TAKEN, message)
        record = finish(begin(source, self._wanted.fingerprint), failure)
        return Step(Action.REFUSED, source.image, message, source, record)

    def step(self, source: Source, content: str | None = None) -> Step:
        """Return the step of a photo whose name no other photo of this run has.

        `content` is the hash of its file, once it was asked for by a step with the reason `_TIME_CHANGED`.
        """
        wanted = self._wanted
        record = self._journal.get(source.image)
        if foreign := self._owners.why_refused(source, record):
            return self.refused(source, foreign)
        if record is None or source.image in self._pruned:
            return Step(Action.SEGMENT, source.image, "new", source)
        renewed = record.path != self._absolute(source.path) and not self._owners.is_there(record.path)
        if renewed:
            record = record.moved_to(source)
        if wanted.overwrite:
            return Step(Action.SEGMENT, source.image, "--overwrite", source)
        if record.fingerprint != wanted.fingerprint:
            return Step(Action.SEGMENT, source.image, "done with other settings", source)
        if not record.is_of(source):
            if content is None and record.may_be_of(source):
                return Step(Action.SEGMENT, source.image, _TIME_CHANGED, source)
            if content is None or content != record.content:
                return Step(Action.SEGMENT, source.image, "the photo changed", source)
            renewed, record = True, record.renewed(source)
        if record.ok:
            if record.device is not None:
                self.executions[record.device.partition(":")[0], record.precision] += 1
            return self._step_of_done(source, record, renewed=renewed)
        return self._step_of_failed(source, record, renewed=renewed)

    def _step_of_failed(self, source: Source, record: Record, *, renewed: bool) -> Step:
        message = record.error.message if record.error else "failed"
        if self._wanted.retry_failed:
            return Step(Action.SEGMENT, source.image, f"--retry-failed: {message}", source)
        if not record.stays_failed(self._wanted.limit_of) and not _fails_again(source, record):
            return Step(Action.SEGMENT, source.image, f"failed before, may do now: {message}", source)
        return Step(Action.FAILED, source.image, message, source, record, renewed=renewed)

    def _first_output(self, output: str) -> str:
        return output_layout.output_file(output, next(iter(self._wanted.kinds)))

    def _step_of_done(self, source: Source, record: Record, *, renewed: bool) -> Step:
        folder = self._folder
        names = {kind: output_layout.output_file(source.output, kind) for kind in self._wanted.kinds}
        recorded = record.output_sizes()
        damaged = [n for n in names.values() if n in recorded and not folder.is_whole(n, recorded[n])]
        if damaged:
            return Step(Action.SEGMENT, source.image, f"{damaged[0]} is missing or damaged", source)
        missing = tuple(kind for kind, name in names.items() if name not in recorded)
        looks = self._looks
        repaint = tuple(k for k in names if k not in missing and record.looks.get(k) != looks[k])
        if not missing and not repaint:
            kept = record if renewed else None
            return Step(Action.SKIP, source.image, "done before", source, kept, renewed=renewed)
        kinds = tuple(kind for kind in names if kind in missing or kind in repaint)
        if missing:
            action, reason = Action.ADD, f"{', '.join(missing)} missing"
        else:
            old_look = record.looks.get(repaint[0])
            action, reason = Action.REPAINT, f"{repaint[0]} was {old_look}, is to be {looks[repaint[0]]}"
        label_file = None
        if all(output_layout.find_kind(kind).from_labels for kind in kinds):
            label_file = self._label_file(source, recorded)
            if label_file is None:
                reason = f"{reason}; no label map to make it from"
                return Step(Action.SEGMENT, source.image, reason, source)
        return Step(action, source.image, reason, source, record, kinds, label_file, renewed)

    def _label_file(self, source: Source, recorded: Mapping[str, int]) -> str | None:
        names = (output_layout.output_file(source.output, kind) for kind in output_layout.label_kinds())
        whole = (n for n in names if n in recorded and self._folder.is_whole(n, recorded[n]))
        return next(whole, None)
