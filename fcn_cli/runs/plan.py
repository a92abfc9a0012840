"""Planning: decide what to do with each image, from the journal and the output files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import NoReturn, TypeVar

from typing_extensions import override

from ..common import output_layout, store_urls
from ..common.errors import Failure, FailureKind, ImageError, NameCollision
from ..common.shard import Shard
from ..common.store_urls import AbsolutePaths
from ..common.wording import counted
from ..inputs import collisions, file_content
from ..inputs.collisions import is_in_shard
from ..inputs.discovery import Source
from ..inputs.formats import refuse
from ..inputs.remote import KnownObjects
from ..outputs.directory import OutputDirectory
from ..outputs.journal import Journal
from ..outputs.record import Record, begin, finish
from ..outputs.statistics import Totals

_TIME_CHANGED = "the time changed"
_UNKNOWN = "the content is unknown"


class Action(StrEnum):
    """What a run does with one image; the value is what ``--dry-run`` prints."""

    SEGMENT = "segment"
    ADD = "add"
    REPAINT = "repaint"
    SKIP = "skip"
    FAILED = "failed"
    REFUSED = "refused"
    PRUNE = "prune"


# Steps are not frozen, though they are never changed: that makes them four times as slow to build, and a plan
# has one for every image.
@dataclass(slots=True)
class _OfSource:
    """What to do with an image that was found, and why."""

    source: Source
    reason: str

    @property
    def image(self) -> str:
        """The image's name."""
        return self.source.image

    @property
    def action(self) -> Action:
        """What ``--dry-run`` calls it."""
        return _ACTIONS[type(self)]


@dataclass(slots=True)
class Segment(_OfSource):
    """The network makes all output types."""


@dataclass(slots=True)
class Complete(_OfSource):
    """The network makes some output types, of an image that `record` says to be done.

    With `repaints` they are there, and look otherwise.
    """

    record: Record
    types: tuple[str, ...]
    repaints: bool

    @property
    @override
    def action(self) -> Action:
        return Action.REPAINT if self.repaints else Action.ADD


@dataclass(slots=True)
class Remake(Complete):
    """Some output types are made from a label map that is there, without the network."""

    label_file: str


@dataclass(slots=True)
class Skip(_OfSource):
    """It is done. Its record is in the journal (`Plan.record_of`): all of them would take much memory."""


@dataclass(slots=True)
class KnownFailure(_OfSource):
    """It failed before and would fail again, or a dry run finds that it is not there."""

    record: Record


@dataclass(slots=True)
class Refuse(_OfSource):
    """Another image has its name, or it was done and has vanished; its failure never enters the journal.

    There it would replace a good record: `record` is only reported.
    """

    record: Record


@dataclass(slots=True)
class Prune:
    """Its file is gone: its outputs and its record go, too."""

    record: Record
    reason = "its image is gone"
    action = Action.PRUNE

    @property
    def image(self) -> str:
        """The image's name."""
        return self.record.image


NetworkStep = Segment | Complete
Step = NetworkStep | Remake | Skip | KnownFailure | Refuse | Prune
S = TypeVar("S", bound=_OfSource | Prune)

_ACTIONS: dict[type[_OfSource], Action] = {
    Segment: Action.SEGMENT,
    Skip: Action.SKIP,
    KnownFailure: Action.FAILED,
    Refuse: Action.REFUSED,
}


@dataclass
class Plan:
    """One step for every image of a run, and one for every image to prune.

    `over` are records of failures that were about no image and are over (see `pruning.over`). `renewed` are
    the new records, by image, of those with another path or time than recorded. `records` returns the record
    of an image in the journal. `executions` counts the masks that are there by the type of device and the
    precision that computed them, `done` adds up the images to skip.
    """

    steps: list[Step] = field(default_factory=list)
    records: Callable[[str], Record | None] = lambda _image: None
    renewed: dict[str, Record] = field(default_factory=dict)
    executions: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    done: Totals = field(default_factory=Totals)
    over: Sequence[Record] = ()

    def record_of(self, step: Step) -> Record | None:
        """Return the record of a step's image; None for one to segment."""
        if isinstance(step, Segment):
            return None
        if isinstance(step, Skip):
            return self.renewed.get(step.image) or self.records(step.image)
        return step.record

    def of(self, *types: type[S]) -> Iterator[S]:
        """Return the steps of exactly these types, in the order of the images."""
        return (step for step in self.steps if type(step) in types)  # type: ignore[misc]

    def count(self, *types: type[Step]) -> int:
        """Return how many steps are of exactly these types; none is added or replaced any more."""
        return sum(self._counts[one] for one in types)

    @cached_property
    def _counts(self) -> Counter[type[Step]]:
        return Counter(map(type, self.steps))

    @property
    def from_labels(self) -> list[Remake]:
        """The images whose missing output types can be made from their label map."""
        return list(self.of(Remake))

    @property
    def through_network(self) -> list[NetworkStep]:
        """The images that need the network, for all output types or for a missing one."""
        return [step for step in self.steps if type(step) in (Segment, Complete)]  # type: ignore[misc]

    @property
    def work(self) -> int:
        """The number of images to segment or to add output types to."""
        return self.count(Segment, Complete, Remake)


@dataclass(frozen=True)
class Wanted:
    """What a run needs of each image to skip it.

    `limit_of` returns this run's limit behind a kind of failure, or None where there is none. With a `shard`,
    only its images are wanted. With `stop_at_collisions` images that share names stop a run into an empty
    journal, and images that are recorded under other names any: the user can still choose other names. A
    `dry` plan also says which images are not there.
    """

    types: Sequence[str]
    fingerprint: str
    overwrite: bool = False
    retry_failed: bool = False
    limit_of: Callable[[FailureKind], float | None] = lambda _kind: None
    shard: Shard | None = None
    stop_at_collisions: bool = True
    dry: bool = False


def make_plan(
    sources: Sequence[Source],
    journal: Journal,
    folder: OutputDirectory,
    wanted: Wanted,
    pruned: Iterable[Record],
    hashing: Callable[[int], None] = lambda _count: None,
) -> Plan:
    """Decide what to do with each image.

    Parameters
    ----------
    sources
        All images, also those of other shards: they can have the same output names.
    journal, folder
        The output directory, and its journal.
    wanted
        What each image needs to be done.
    pruned
        Records of removed images, whose outputs are to be removed; they own no output names any more.
    hashing
        Is told how many images have another time than recorded, before their files are read and hashed.

    Raises
    ------
    NameCollision
        Images share output names, and the journal is empty (see `Wanted`).
    """
    pruned_records = {record.image: record for record in pruned}
    planner = _Planner(journal, folder, wanted, frozenset(pruned_records))
    clashes = {clash.refused: clash for clash in collisions.find(sources, planner.has_its_name)}
    if clashes and wanted.stop_at_collisions and not len(journal):
        _refuse_all(list(clashes.values()))
    if wanted.stop_at_collisions and not wanted.overwrite:
        _refuse_second_names(list(planner.second_names(sources)))
    plan = Plan(
        [Prune(record) for record in pruned_records.values()],
        journal.get,
        planner.renewed,
        planner.executions,
        planner.done,
    )
    for source in sources:
        if wanted.shard is not None and not is_in_shard(source, wanted.shard):
            continue
        if clashes and source in clashes:
            clash = clashes[source]
            plan.steps.append(planner.name_taken(source, f"{clash.text}; {clash.way_out_later}"))
        else:
            step = planner.step(source)
            plan.steps.append(planner.looked_for(step, source) if wanted.dry else step)
    _compare_contents(plan, planner, hashing)
    return plan


def _compare_contents(plan: Plan, planner: _Planner, hashing: Callable[[int], None]) -> None:
    """Decide again on the images of which only the time has changed, by the content of their files."""
    steps = [
        (place, step)
        for place, step in enumerate(plan.steps)
        if isinstance(step, Segment) and step.reason == _TIME_CHANGED
    ]
    if not steps:
        return
    hashing(len(steps))
    contents = file_content.of_sources([step.source for _, step in steps])
    for (place, step), content in zip(steps, contents, strict=True):
        again = planner.step(step.source, content or _UNKNOWN)
        if isinstance(again, Skip):
            again.reason = "done before; only its time changed"
        plan.steps[place] = again


def _refuse_all(clashes: Sequence[collisions.Collision]) -> NoReturn:
    if len(clashes) == 1:
        raise NameCollision(f"{clashes[0].text}; {clashes[0].way_out}")
    ways_out = sorted({clash.way_out for clash in clashes})
    raise NameCollision(
        f"{len(clashes)} images have the output names of others, nothing is done; {'; or '.join(ways_out)}",
        [clash.text for clash in clashes],
    )


def _refuse_second_names(pairs: Sequence[tuple[Source, str]]) -> None:
    """Refuse images that have another name already: they would be segmented again, and count twice."""
    if not pairs:
        return
    source, name = pairs[0]
    images = counted(len(pairs), "image")
    raise NameCollision(
        f"{images} would be segmented again under another name, nothing is done: {source.given} is "
        f"recorded as {name} and would be {source.image}; give the inputs as before and new ones in a "
        "separate command (files with --root), or use another --output; --overwrite makes both"
    )


def _fails_again(source: Source, record: Record) -> bool:
    """Say whether an image that could not be opened still cannot: that needs no decoder and no network."""
    kind = record.error.kind if record.error else None
    failure = source.problem
    if failure is None and kind in {FailureKind.UNREADABLE, FailureKind.NOT_FOUND}:
        failure = _why_not_opened(source.path)
    return failure is not None and failure.kind == kind


def _why_not_opened(path: str) -> Failure | None:
    if store_urls.is_url(path):
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


def _why_vanished(source: Source) -> Failure | None:
    """Return why a listed image that is done cannot be opened now; perhaps its disk is not mounted."""
    if source.size_bytes is not None:
        return None
    failure = source.problem or _why_not_opened(source.path)
    if failure is None:
        return None
    return replace(failure, message=f"{failure.message}; its earlier outputs are kept")


class _Planner:
    """Decides the step of each image of a run; see `make_plan`."""

    def __init__(
        self, journal: Journal, folder: OutputDirectory, wanted: Wanted, pruned: frozenset[str]
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._wanted = wanted
        self._pruned = pruned
        self._absolute = AbsolutePaths()
        self._objects = KnownObjects()
        self._looks = {output_type: folder.look(output_type) for output_type in wanted.types}
        self.renewed: dict[str, Record] = {}
        self.executions: Counter[tuple[str, str | None]] = Counter()
        self.done = Totals()

    def has_its_name(self, source: Source) -> bool:
        """Say whether an image owns its output name since an earlier run."""
        names = (
            output_layout.output_file(source.output, output_type)
            for output_type in output_layout.output_type_names()
        )
        return any(self._journal.owner(name) == source.image for name in names)

    def second_names(self, sources: Sequence[Source]) -> Iterator[tuple[Source, str]]:
        """Yield new images whose file is recorded under another name, also the end of its path."""
        known = self._journal.index
        for source in sources if len(known) else ():
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
        if not isinstance(step, Segment) or source.size_bytes is not None:
            return step
        failure = source.problem or _why_not_opened(source.path)
        if failure is None:
            return step
        record = finish(begin(source, self._wanted.fingerprint), failure)
        return KnownFailure(source, failure.message, record)

    def name_taken(self, source: Source, message: str) -> Step:
        """Return the step of an image whose name another image has."""
        return self._refused(source, Failure(FailureKind.NAME_TAKEN, message))

    def _refused(self, source: Source, failure: Failure) -> Step:
        return Refuse(source, failure.message, finish(begin(source, self._wanted.fingerprint), failure))

    def step(self, source: Source, content: str | None = None) -> Step:
        """Return the step of an image whose name no other image of this run has.

        `content` is the hash of its file, once it was asked for by a step with the reason `_TIME_CHANGED`.
        """
        wanted = self._wanted
        record = self._journal.get(source.image)
        if foreign := self._why_refused(source, record):
            return self.name_taken(source, foreign)
        if record is not None and record.ok and (vanished := _why_vanished(source)):
            return self._refused(source, vanished)
        if record is None or source.image in self._pruned:
            return Segment(source, "new")
        if wanted.overwrite:
            return Segment(source, "--overwrite")
        if record.fingerprint != wanted.fingerprint:
            return Segment(source, "done with other settings")
        renewed = None
        if record.path != self._absolute(source.path) and not self._is_there(record.path):
            record = renewed = record.moved_to(source)
        if not record.is_of(source):
            if content is None and record.may_be_of(source):
                return Segment(source, _TIME_CHANGED)
            if content is None or content != record.content:
                return Segment(source, "the image changed")
            record = renewed = record.renewed(source)
        step = self._step_of_done(source, record) if record.ok else self._step_of_failed(source, record)
        if renewed is not None and not isinstance(step, Segment):
            self.renewed[source.image] = renewed
        if isinstance(step, Skip) and not wanted.dry:
            # Now: to read all records once more takes a tenth of the time of a run with nothing to do.
            self.done.add(record)
        return step

    def _step_of_failed(self, source: Source, record: Record) -> Step:
        message = record.error.message if record.error else "failed"
        if self._wanted.retry_failed:
            return Segment(source, f"--retry-failed: {message}")
        if not record.stays_failed(self._wanted.limit_of) and not _fails_again(source, record):
            return Segment(source, f"failed before, to be retried: {message}")
        return KnownFailure(source, message, record)

    def _step_of_done(self, source: Source, record: Record) -> Step:
        if record.device is not None:
            self.executions[record.device.partition(":")[0], record.precision] += 1
        recorded, looks = record.output_sizes(), self._looks
        missing, types = [], []
        for output_type, look in looks.items():
            name = output_layout.output_file(source.output, output_type)
            size = recorded.get(name)
            if size is None:
                missing.append(output_type)
                types.append(output_type)
            elif not self._folder.is_whole(name, size):
                return Segment(source, f"{name} is missing or damaged")
            elif record.looks.get(output_type) != look:
                types.append(output_type)
        if not types:
            return Skip(source, "done before")
        if missing:
            reason = f"{', '.join(missing)} missing"
        else:
            reason = f"{types[0]} was {record.looks.get(types[0])}, is now {looks[types[0]]}"
        if not all(output_layout.find_output_type(output_type).from_labels for output_type in types):
            return Complete(source, reason, record, tuple(types), not missing)
        label_file = self._label_file(source, recorded)
        if label_file is None:
            return Segment(source, f"{reason}; no mask to make it from")
        return Remake(source, reason, record, tuple(types), not missing, label_file)

    def _label_file(self, source: Source, recorded: Mapping[str, int]) -> str | None:
        names = (
            output_layout.output_file(source.output, output_type)
            for output_type in output_layout.label_types()
        )
        whole = (n for n in names if n in recorded and self._folder.is_whole(n, recorded[n]))
        return next(whole, None)

    def _why_refused(self, source: Source, record: Record | None) -> str | None:
        """Return why an image is refused, when another one that still exists owns its output name; else None.

        `record` is that of the image's own name, if there is one.
        """
        if not source.output or not len(self._journal):
            return None
        if record is not None and source.image not in self._pruned and self._is_another(record.path, source):
            return self._refusal(record, source)
        own = record.outputs if record is not None else ()
        for output_type in self._journal.types:
            name = output_layout.output_file(source.output, output_type)
            if name in own:
                continue
            owner = self._journal.owner(name)
            if owner is None or owner == source.image or owner in self._pruned:
                continue
            other = self._journal.get(owner)
            if other is not None and self._is_another(other.path, source):
                return self._refusal(other, source)
        return None

    def _refusal(self, owner: Record, source: Source) -> str:
        way_out = "use another --output, or segment both in one command"
        if os.path.dirname(owner.path) == os.path.dirname(self._absolute(source.path)):
            way_out = "rename one, or use another --output with --keep-extension"
        name = self._folder.root / output_layout.output_file(source.output, next(iter(self._wanted.types)))
        return f"{name} belongs to {owner.path}, and {source.given} would overwrite it; {way_out}"

    def _is_another(self, recorded: str, source: Source) -> bool:
        """Say whether a recorded image still exists and is another file than the source."""
        if recorded == self._absolute(source.path):
            return False
        if store_urls.is_url(recorded):
            return self._objects.exists(recorded)
        try:
            return not os.path.samefile(recorded, source.path)
        except OSError:
            return os.path.exists(recorded)

    def _is_there(self, recorded: str) -> bool:
        """Say whether a recorded image, or a broken link to one, is still where it was."""
        if store_urls.is_url(recorded):
            return self._objects.exists(recorded)
        return os.path.lexists(recorded)
