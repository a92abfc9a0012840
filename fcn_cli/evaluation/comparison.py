"""Compare the label maps of two directories, for example before and after a change of settings."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common import resources
from ..common.class_names import VOC_CLASSES, class_name
from ..common.errors import ExitCode, Failure, FailureKind, ImageError, NothingFound, RequestError
from ..common.label_map import VOID_INDEX, allow_pixels, open_png, read_label_map
from ..common.limits import MOST_MASK_PIXELS
from ..common.ordered_work import OrderedWork, Task
from ..runs.observers import ProgressObserver
from .label_folder import LabelFolder

_VALUES = 256
_STRIP_PIXELS = 1 << 20
SHOWN = 10
"""The number of images with the largest differences that are listed."""


class Difference(NamedTuple):
    """One image's difference: the fraction (0 to 1) and number of differing pixels, and its name."""

    fraction: float
    pixels: int
    image: str


class _Counted(NamedTuple):
    """One pair's pixels by value, int64, shape (256,): in A, in B, and equal in both."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    equal: NDArray[np.int64]


@dataclass
class Comparison:
    """The result: `a`, `b` and `equal` are pixel counts by label map value, int64, shape (256,).

    `images` is the number of compared pairs; `identical` of them have no difference. `most_different` holds
    at most `SHOWN` images, largest difference first. `settings` maps each setting that differs to its values
    in A and in B.
    """

    class_names: tuple[str, ...]
    only_in_a: int
    only_in_b: int
    settings: dict[str, tuple[Any, Any]]
    a: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_VALUES, np.int64))
    b: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_VALUES, np.int64))
    equal: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_VALUES, np.int64))
    images: int = 0
    identical: int = 0
    most_different: list[Difference] = field(default_factory=list)
    failures: list[tuple[str, Failure]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return ExitCode.SOME_FAILED if self.failures else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name: fractions from 0 to 1."""
        either = self.a + self.b - self.equal
        present = np.flatnonzero(either)
        iou = {int(index): float(self.equal[index] / either[index]) for index in present}
        of_classes = [value for index, value in iou.items() if index != VOID_INDEX]
        pixels = int(self.a.sum())
        return {
            "pixels_equal": float(self.equal.sum() / pixels) if pixels else None,
            "mean_iou": float(np.mean(of_classes)) if of_classes else None,
            "images": self.images,
            "images_identical": self.identical,
            "images_failed": len(self.failures),
            "only_in_a": self.only_in_a,
            "only_in_b": self.only_in_b,
            "pixels": pixels,
            "classes": {
                str(index): {
                    "name": class_name(self.class_names, index),
                    "iou": value,
                    "pixels_a": int(self.a[index]),
                    "pixels_b": int(self.b[index]),
                }
                for index, value in iou.items()
            },
            "most_different": [
                {"image": difference.image, "fraction": difference.fraction, "pixels": difference.pixels}
                for difference in self.most_different
            ],
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "failures": [
                {"image": name, "kind": failure.kind, "message": failure.message}
                for name, failure in self.failures
            ],
        }


def compare(
    dir_a: Path, dir_b: Path, observer: ProgressObserver, max_pixels: int = MOST_MASK_PIXELS
) -> Comparison:
    """Compare the label maps whose names are in both directories.

    Raises
    ------
    RequestError
        A path is not a directory of label maps, or the directories have different classes.
    NothingFound
        No name is in both directories.
    """
    allow_pixels(max_pixels)
    folder_a, folder_b = LabelFolder(dir_a), LabelFolder(dir_b)
    if folder_a.class_names and folder_b.class_names and folder_a.class_names != folder_b.class_names:
        raise RequestError(f"{dir_a} and {dir_b} have different classes (see their classes.json)")
    in_a, in_b = set(folder_a.names()), set(folder_b.names())
    both = sorted(in_a & in_b)
    if not both:
        raise NothingFound(f"no masks in common: {dir_a} has {len(in_a)}, {dir_b} has {len(in_b)}")
    result = Comparison(
        folder_a.class_names or folder_b.class_names or VOC_CLASSES,
        len(in_a - in_b),
        len(in_b - in_a),
        _differing_settings(folder_a.settings, folder_b.settings),
    )
    observer.begin(len(both))

    # What waits are paths only, of no size.
    with OrderedWork[str, _Counted](resources.cpu_count(), "fcn-compare", max_bytes=0) as work:
        for name in both:
            work.submit(name, partial(_count, folder_a.path(name), folder_b.path(name)))
            for task in work.take():
                _add(result, task, observer)
        for task in work.take(everything=True):
            _add(result, task, observer)
    result.most_different.sort(key=lambda difference: (-difference.fraction, difference.image))
    return result


def _add(result: Comparison, task: Task[str, _Counted], observer: ProgressObserver) -> None:
    """Add one pair to the result."""
    try:
        counted = task.future.result()
    except ImageError as error:
        result.failures.append((task.key, error.failure))
        observer.step(failed=True)
        return
    result.images += 1
    result.a += counted.a
    result.b += counted.b
    result.equal += counted.equal
    pixels = int(counted.a.sum())
    differing = pixels - int(counted.equal.sum())
    if differing:
        heapq.heappush(result.most_different, Difference(differing / pixels, differing, task.key))
        if len(result.most_different) > SHOWN:
            heapq.heappop(result.most_different)
    else:
        result.identical += 1
    observer.step()


def _count(path_a: Path, path_b: Path) -> _Counted:
    with open_png(path_a) as one, open_png(path_b) as other:
        size = one.size
        if size != other.size:
            in_a, in_b = (f"{width}x{height}" for width, height in (size, other.size))
            raise ImageError(FailureKind.SIZES_DIFFER, f"{in_a} pixels in A, {in_b} in B")
    a, b = read_label_map(path_a, size), read_label_map(path_b, size)
    # A full histogram of value pairs takes longer than decoding; most pixels are equal.
    total_a = np.array(Image.fromarray(a).histogram(), np.int64)
    lost, gained = np.zeros(_VALUES, np.int64), np.zeros(_VALUES, np.int64)
    rows = max(1, _STRIP_PIXELS // max(1, a.shape[1]))
    for top in range(0, len(a), rows):
        of_a, of_b = a[top : top + rows].ravel(), b[top : top + rows].ravel()
        differing = np.flatnonzero(of_a != of_b)
        lost += np.bincount(of_a[differing], minlength=_VALUES)
        gained += np.bincount(of_b[differing], minlength=_VALUES)
    equal = total_a - lost
    return _Counted(total_a, equal + gained, equal)


def _differing_settings(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    if a is None or b is None:
        return {}
    return {name: (a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)}
