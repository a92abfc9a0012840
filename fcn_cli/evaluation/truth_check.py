"""Check the first PNGs of truth before a network is loaded, so that a wrong directory is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ..common.errors import FailureKind, ImageError, RequestError
from ..common.label_map import LabelMap
from .confusion_matrix import highest_class
from .ground_truth import FolderTruth

_CHECKED_FILES = 8


def check(truth: FolderTruth, names: Sequence[str], classes: int | None) -> None:
    """Read the first label maps until one is usable.

    An unusable label map alone fails later, as a photo. If all of the first ones are unusable, the
    directory is the wrong one.

    Parameters
    ----------
    truth
        The truth.
    names
        The truth's names of the photos, in order.
    classes
        The number of classes, or None while it is unknown.

    Raises
    ------
    RequestError
        All of the first ones are unusable, or are black-and-white masks; the message says why.
    """
    problems: list[ImageError] = []
    black_and_white: list[str] = []
    for name in islice(names, _CHECKED_FILES):
        try:
            labels = _label_map(truth, name, classes)
        except ImageError as error:
            problems.append(error)
            continue
        if truth.is_black_and_white(name, labels):
            black_and_white.append(name)
        elif labels.any():
            return
    if black_and_white:
        raise RequestError(
            f"{truth.root / black_and_white[0]}: the truth has only the values 0 and 255 (background and "
            "void) and looks like a black-and-white mask. Save the object's class index instead of 255; if "
            "255 does mean void, give --truth-colors index"
        )
    if len(problems) == min(len(names), _CHECKED_FILES):
        all_failed = f"none of the truth's first {len(problems)} label maps can be used; "
        raise RequestError(f"{all_failed if len(problems) > 1 else ''}{problems[0]}")


def _label_map(truth: FolderTruth, name: str, classes: int | None) -> LabelMap:
    labels = truth.load(name)
    highest = highest_class(labels)
    if classes is not None and highest >= classes:
        raise ImageError(
            FailureKind.BAD_LABELS,
            f"{truth.root / name}: has class index {highest}, but there are {classes} classes",
        )
    return labels
