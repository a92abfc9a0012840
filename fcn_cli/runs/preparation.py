"""Before the work of a run: bring an output directory into the state that the plan begins from."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from ..common.output_layout import SETTINGS_FILE, kind_of
from ..common.wording import counted
from ..inputs.discovery import Found
from ..outputs import pruning
from ..outputs.directory import OutputDirectory
from ..outputs.journal import Journal, RecordIndex
from ..outputs.output_store import LocalStore, OutputStore
from ..outputs.record import gone
from .observers import RunObserver
from .plan import Complete, Plan, Prune, Remake, Segment
from .report import RunReport
from .request import ResolvedRequest

_SAMPLE = 200
"""From how many records, evenly among all, the size of what is to come is estimated."""
_BLOCK = 4096
"""What file systems give out, in bytes."""


def repair(
    output: OutputStore,
    journal: Journal,
    resolved: ResolvedRequest,
    observer: RunObserver,
    *,
    described: bool,
) -> None:
    """Make good what earlier runs or a failing disk left; for the directory's holder.

    Parameters
    ----------
    output
        The output directory.
    journal
        Its journal; damaged lines are removed.
    resolved
        The request. Its settings are written again when they are lost.
    observer
        Is warned.
    described
        Whether the directory's settings file is there.
    """
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
        lines += (
            f"; {which} cannot be told: an earlier record stands, and fcn verify finds what does not agree"
        )
    return lines


def tell_what_is_not_there(journal: Journal, found: Found, observer: RunObserver) -> None:
    """Name empty directories, and say how many recorded images are gone."""
    counts, more = pruning.absent(journal, found)
    for directory in found.empty_directories():
        text = f"{directory}: this directory is empty; is its disk mounted?"
        if count := counts.pop(directory, 0):
            are = "recorded image is" if count == 1 else "recorded images are"
            observer.warn(f"{text} {'At least ' if more else ''}{count} {are} of it")
        else:
            observer.note(text)
    if number := counts.total():
        is_gone = "recorded image is gone" if number == 1 else "recorded images are gone"
        observer.note(f"{'at least ' if more else ''}{number} {is_gone}; see --prune")


def warn_of_a_small_disk(
    plan: Plan, journal: Journal, output: OutputStore, observer: RunObserver, kinds: Sequence[str]
) -> None:
    """Warn when what is to come, at the size of what the records have so far, does not fit on the disk."""
    known = journal.index
    new = sum(step.image not in known for step in plan.of(Segment)) if len(known) else 0
    wanted = Counter(dict.fromkeys(kinds, new))
    for step in plan.of(Complete, Remake):
        there = set(map(kind_of, step.record.outputs))
        wanted.update(kind for kind in step.types if kind not in there)
    if not wanted.total() or not isinstance(output, LocalStore):
        return
    sizes: dict[str, list[int]] = {}
    for record in known.sample(_SAMPLE):
        for name, size in record.output_sizes().items():
            sizes.setdefault(kind_of(name), []).append(-(-size // _BLOCK) * _BLOCK)
    need = sum(count * fmean(sizes[kind]) for kind, count in wanted.items() if kind in sizes)
    try:
        free = shutil.disk_usage(output.root).free
    except OSError:
        return
    if need > free:
        images = counted(max(wanted.values()), "image")
        observer.warn(
            f"{output}: {images} to come need about {_size(need)}, by the size of those before, and this "
            f"disk has {_size(free)} free: the run will end early, with exit code 5"
        )


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def bring_up_to_date(plan: Plan, journal: Journal, folder: OutputDirectory, report: RunReport) -> None:
    """Remove photos that are gone, journal first, then their files; note moves, times and colours."""
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
