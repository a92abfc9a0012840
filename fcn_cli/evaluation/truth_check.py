"""Look at the first PNGs of truth before a network is loaded: a wrong directory shows at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ..common.errors import FailureKind, ImageError, RequestError
from ..common.label_map import LabelMap
from .confusion_matrix import highest_class
from .ground_truth import FolderTruth

_LOOKED_AT = 8


def check(truth: FolderTruth, names: Sequence[str], classes: int | None) -> None:
    """Read the first label maps until one can be used.

    One that cannot fails for itself later; when all of the first ones cannot, the directory is a wrong one.

    Parameters
    ----------
    truth
        The truth.
    names
        Its names of the photos, in order.
    classes
        How many classes there are, if that is known yet.

    Raises
    ------
    RequestError
        None of the first ones can be used, or they are black-and-white masks; the text has the reason.
    """
    problems: list[ImageError] = []
    white: list[str] = []
    for name in islice(names, _LOOKED_AT):
        try:
            labels = _label_map(truth, name, classes)
        except ImageError as error:
            problems.append(error)
            continue
        if truth.is_black_and_white(name, labels):
            white.append(name)
        elif labels.any():
            return
    if white:
        raise RequestError(
            f"{truth.root / white[0]}: truth with nothing but 0 and 255, which is background and void: it "
            "looks like a black-and-white mask. Save the object's class index instead of 255, or give "
            "--truth-colors index if 255 is void indeed"
        )
    if len(problems) == min(len(names), _LOOKED_AT):
        all_of_them = f"none of the truth's first {len(problems)} label maps can be used; "
        raise RequestError(f"{all_of_them if len(problems) > 1 else ''}{problems[0]}")


def _label_map(truth: FolderTruth, name: str, classes: int | None) -> LabelMap:
    labels = truth.load(name)
    highest = highest_class(labels)
    if classes is not None and highest >= classes:
        raise ImageError(
            FailureKind.BAD_LABELS,
            f"{truth.root / name}: has class index {highest}, and there are {classes} classes",
        )
    return labels
