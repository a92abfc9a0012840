"""What is to be done for each photo, from what the journal and the output files say is done."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import NameCollision
from .journal import Journal, Record
from .outputs import WRITERS, OutputFolder
from .sources import Source

# The kinds of output from which a label map can be read back.
_LABEL_KINDS = ("masks", "color")


@dataclass(frozen=True)
class Addition:
    """A photo that is done, but lacks some kinds of output."""

    source: Source
    record: Record
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class FromLabels(Addition):
    """One whose missing kinds take no more than its label map, which is in `label_file`."""

    label_file: str


@dataclass
class Plan:
    """Every photo of a run, in exactly one of these.

    Those `to_repeat`, by image, lack a kind that takes the network, and keep the kinds they have.
    """

    to_segment: list[Source] = field(default_factory=list)
    to_add: list[FromLabels] = field(default_factory=list)
    to_repeat: dict[str, Addition] = field(default_factory=dict)
    done: list[Record] = field(default_factory=list)
    still_failed: list[Record] = field(default_factory=list)

    def __len__(self) -> int:
        return self.work + len(self.done) + len(self.still_failed)

    @property
    def work(self) -> int:
        """How many photos there is something to do for."""
        return len(self.to_segment) + len(self.to_add) + len(self.to_repeat)


@dataclass(frozen=True)
class Wanted:
    """What a run wants of each photo."""

    kinds: Sequence[str]
    fingerprint: str
    overwrite: bool = False
    retry_failed: bool = False


def make(sources: Iterable[Source], journal: Journal, folder: OutputFolder, wanted: Wanted) -> Plan:
    """Sort photos into what is done and what is to do.

    Raises
    ------
    NameCollision
        A photo's output file belongs to another photo, from an earlier run, that still exists.
    """
    plan = Plan()
    for source in sources:
        record = journal.get(source.image)
        names = {kind: folder.name(source.output, kind) for kind in wanted.kinds} if source.output else {}
        if source.output:
            _refuse_foreign(source, record, names.values(), journal, folder)
        same = record is not None and record.fingerprint == wanted.fingerprint and _same_file(source, record)
        if wanted.overwrite or record is None or not same:
            plan.to_segment.append(source)
        elif record.ok:
            _plan_done(plan, source, record, names, folder)
        elif wanted.retry_failed:
            plan.to_segment.append(source)
        else:
            plan.still_failed.append(record)
    return plan


def _same_file(source: Source, record: Record) -> bool:
    return (record.size_bytes, record.mtime_ns) == (source.size_bytes, source.mtime_ns)


def _plan_done(
    plan: Plan, source: Source, record: Record, names: Mapping[str, str], folder: OutputFolder
) -> None:
    recorded = dict(zip(record.outputs, record.output_bytes, strict=True))
    missing = tuple(kind for kind, name in names.items() if name not in recorded)
    damaged = [
        name for name in names.values() if name in recorded and not folder.is_whole(name, recorded[name])
    ]
    if damaged:
        plan.to_segment.append(source)
    elif not missing:
        plan.done.append(record)
    elif not all(WRITERS[kind].from_labels for kind in missing):
        plan.to_repeat[source.image] = Addition(source, record, missing)
    elif label_file := _label_file(source, recorded, folder):
        plan.to_add.append(FromLabels(source, record, missing, label_file))
    else:
        plan.to_segment.append(source)


def _label_file(source: Source, recorded: Container[str], folder: OutputFolder) -> str | None:
    names = (folder.name(source.output, kind) for kind in _LABEL_KINDS)
    return next((name for name in names if name in recorded), None)


def _refuse_foreign(
    source: Source, record: Record | None, names: Iterable[str], journal: Journal, folder: OutputFolder
) -> None:
    if (
        record is not None
        and record.outputs
        and record.source != source.given
        and not _same_file(source, record)
        and _is_another(record.source, source.path)
    ):
        raise NameCollision(_foreign_text(record.outputs[0], record.source, source, folder))
    for name in names:
        owner = journal.owner(name)
        if owner is not None and owner != source.image:
            other = journal.get(owner)
            if other is not None and _is_another(other.source, source.path):
                raise NameCollision(_foreign_text(name, other.source, source, folder))


def _is_another(recorded: str, path: str) -> bool:
    """Say whether a recorded input still exists and is not the file at `path`."""
    try:
        return not os.path.samefile(recorded, path)
    except OSError:
        return Path(recorded).exists()


def _foreign_text(name: str, owner: str, source: Source, folder: OutputFolder) -> str:
    return (
        f"{folder.root / name} belongs to {owner}, and {source.given} would overwrite it; use another "
        "--output, or segment both in one command"
    )
