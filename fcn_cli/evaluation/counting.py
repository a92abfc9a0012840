"""Compare label maps with truth, photo by photo, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from ..common.errors import Failure, FailureKind, ImageError
from ..common.label_map import LabelMap, read_label_map
from ..common.ordered_work import OrderedWork, Task
from ..inputs import exif
from ..inputs.discovery import Source
from ..runs.observers import ProgressObserver
from .choices import Protocol
from .confusion_matrix import Confusion
from .ground_truth import Truth
from .result import Evaluation, SeenPhoto

_THREADS = 2
MAX_HELD_BYTES = 256 << 20
"""How many bytes of label maps may wait for their truth."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be measured for one photo: a label map, or a file that has one, or why there is none.

    Without `upright`, a label map from a file is taken the way that fits the photo's size; with it, it is
    one of the upright photo.
    """

    source: Source
    photo: SeenPhoto
    labels: LabelMap | Failure | Path
    upright: bool = False

    @property
    def held_bytes(self) -> int:
        """How much memory waits with it."""
        return self.labels.nbytes if isinstance(self.labels, np.ndarray) else 0


class Compared(NamedTuple):
    """One photo's truth and prediction (uint8, of one shape (h, w)), and their confusion matrix."""

    source: Source
    photo: SeenPhoto
    truth: LabelMap
    predicted: LabelMap
    confusion: Confusion


Inspector: TypeAlias = Callable[[Compared], None]
"""Is given every photo that was measured, in the threads that compare; it must not keep the label maps."""


def count(
    answers: Iterable[Answer | None],
    truth: Truth,
    names: Mapping[str, str],
    evaluation: Evaluation,
    observer: ProgressObserver,
    inspect: Inspector | None = None,
) -> None:
    """Add answer by answer to an evaluation; None stands for a moment in which nothing came.

    Parameters
    ----------
    answers
        What to measure.
    truth, names
        The truth, and its name of each image.
    evaluation
        What to add to.
    observer
        Is told of each image.
    inspect
        Is given the label maps of each image.
    """
    classes = len(evaluation.class_names)
    resized = evaluation.protocol["name"] == Protocol.TORCHVISION

    def add(task: Task[tuple[Source, SeenPhoto], Confusion]) -> None:
        source, photo = task.key
        try:
            evaluation.confusion.add(task.future.result())
            evaluation.notes.add(source, photo)
            observer.step(failed=False)
        except ImageError as error:
            evaluation.failures.append((source, error.failure))
            observer.step(failed=True)

    # Most of this time goes into decoding PNGs.
    with OrderedWork[tuple[Source, SeenPhoto], Confusion](
        _THREADS, "fcn-count", max_bytes=MAX_HELD_BYTES
    ) as work:
        for answer in answers:
            if answer is None:
                observer.waiting()
                continue
            name = names[answer.source.image]
            work.submit(
                (answer.source, answer.photo),
                partial(_compare, answer, truth, name, classes, inspect, resized=resized),
                answer.held_bytes,
            )
            for task in work.take():
                add(task)
        for task in work.take(everything=True):
            add(task)


def _compare(
    answer: Answer, truth: Truth, name: str, classes: int, inspect: Inspector | None, *, resized: bool
) -> Confusion:
    if isinstance(answer.labels, Failure):
        raise ImageError.of(answer.labels)
    labels = _from_file(answer, answer.labels) if isinstance(answer.labels, Path) else answer.labels
    right = truth.load(name, answer.photo.size)
    if resized:
        size = labels.shape[1], labels.shape[0]
        right = np.asarray(Image.fromarray(right).resize(size, Image.Resampling.NEAREST))
    try:
        confusion = Confusion.of(right, labels, classes)
    except ValueError as error:
        raise ImageError(FailureKind.BAD_LABELS, f"{error} ({name})") from None
    if inspect is not None:
        inspect(Compared(answer.source, answer.photo, right, labels, confusion))
    return confusion


def _from_file(answer: Answer, path: Path) -> LabelMap:
    """Return the label map of a file, turned to the way in which the photo's truth was drawn."""
    photo = answer.photo
    labels = read_label_map(path, photo.size, photo.other_size)
    as_it_is = (labels.shape[1], labels.shape[0]) == photo.size
    what = f"its label map {path}"
    if photo.stored and (answer.upright or not as_it_is):
        _check_size(labels, photo.other_size, what)
        return np.asarray(exif.as_stored(Image.fromarray(labels), photo.turn))
    if photo.turn != 1 and not as_it_is and not answer.upright:
        _check_size(labels, photo.other_size, what)
        return np.asarray(exif.upright(Image.fromarray(labels), photo.turn))
    _check_size(labels, photo.size, what)
    return labels


def _check_size(labels: LabelMap, photo: tuple[int, int], what: str) -> None:
    height, width = labels.shape
    if (width, height) != photo:
        raise ImageError(
            FailureKind.SIZES_DIFFER,
            f"{what} has {width}x{height} pixels, the photo {photo[0]}x{photo[1]}",
        )
