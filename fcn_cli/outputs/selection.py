"""Select images of an output directory by their records: by class, share of the pixels, and status."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.class_names import find_class, hint_at_classes
from ..common.errors import RequestError
from ..common.label_map import VOID_INDEX
from ..common.output_layout import CLASSES_FILE, output_type_of
from . import pruning
from .directory import read_classes
from .journal import JournalSnapshot
from .looks import cutout_shows
from .record import Record
from .settings import read_fingerprint

GONE = "gone"


@dataclass(frozen=True)
class Selection:
    """Which images to select; without a parameter, all that have a mask.

    Parameters
    ----------
    status
        ``ok`` for images with a mask, ``failed`` for those without, ``gone`` for images with a mask that no
        longer exist.
    classes
        Names or indices of classes. An image is selected when each of them has a share within the bounds.
    minimum, maximum
        The bounds of a class's share of the image's pixels, 0 to 1. Without `minimum` each class must have at
        least one pixel; 0 also selects images that do not show it.
    """

    status: str = "ok"
    classes: Sequence[str] = ()
    minimum: float | None = None
    maximum: float | None = None

    def check(self) -> None:
        """Raise RequestError when the parts of the selection exclude each other."""
        if not self.classes and (self.minimum is not None or self.maximum is not None):
            raise RequestError("--min and --max need a class; name it with --class")
        if self.classes and self.status == "failed":
            raise RequestError("images that failed have no classes; leave --class or --status out")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise RequestError(f"--min {self.minimum:g} is more than --max {self.maximum:g}")


def matching(output: Path, selection: Selection) -> Callable[[Record], bool]:
    """Return what says of a record of an output directory whether it is selected.

    Records of other settings than the directory's do not count, as in ``stats.csv``.

    Raises
    ------
    RequestError
        The directory has no such class, or the selection is wrong.
    """
    selection.check()
    classes = class_indices(output, selection.classes) if selection.classes else ()
    fingerprint = read_fingerprint(output)
    status = "ok" if selection.status == GONE else selection.status

    def matches(record: Record) -> bool:
        counts = record.status == status and record.fingerprint == fingerprint
        counts = counts and (selection.status != GONE or pruning.is_gone(record))
        return counts and all(_is_within(record, index, selection) for index in classes)

    return matches


def select(output: Path, selection: Selection) -> Iterator[Record]:
    """Yield the selected records of an output directory, in the order of its journal.

    Raises
    ------
    RequestError
        It is no output directory, it has no such class, or the selection is wrong.
    """
    with JournalSnapshot(output) as records:
        yield from filter(matching(output, selection), records)


def paths(output: Path, selection: Selection, output_type: str | None = None) -> Iterator[str]:
    """Yield the absolute paths of selected images, or of their files of one output type.

    A cutout in which nothing is kept, because the image has no such class, is left out.

    Raises
    ------
    RequestError
        As by `select`; or images that failed are selected, which have no files.
    """
    if output_type is not None and selection.status == "failed":
        raise RequestError("images that failed have no outputs; leave --outputs or --status out")
    directory = os.path.abspath(output)
    for record in select(output, selection):
        if output_type is None:
            yield record.path
        for name in record.outputs:
            if output_type_of(name) == output_type and (output_type != "cutout" or _keeps_something(record)):
                yield os.path.join(directory, name)


def _keeps_something(record: Record) -> bool:
    look = record.looks.get("cutout", "")
    return any(pixels and cutout_shows(look, index) for index, pixels in (record.classes or {}).items())


def _is_within(record: Record, index: int, selection: Selection) -> bool:
    pixels = (record.classes or {}).get(index, 0)
    share = pixels / ((record.width or 0) * (record.height or 0) or 1)
    if selection.minimum is None:
        return pixels > 0 and share <= (1 if selection.maximum is None else selection.maximum)
    return selection.minimum <= share <= (1 if selection.maximum is None else selection.maximum)


def class_indices(output: Path, given: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of classes as `find_class` finds them, or of ``void``; else raise RequestError."""
    names = read_classes(output)
    if names is None:
        raise RequestError(f"{output / CLASSES_FILE}: missing or damaged; fcn segment writes it again")
    indices = []
    for name in given:
        index = find_class(name, names)
        if index is None and name.casefold() in ("void", str(VOID_INDEX)):
            index = VOID_INDEX
        if index is None:
            suggestion = hint_at_classes(name, names)
            raise RequestError(f"--class {name}: {output} has no such class; {suggestion}")
        indices.append(index)
    return tuple(indices)
