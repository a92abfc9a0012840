"""Label maps from a COCO ``instances_*.json``, by the rules of torchvision's segmentation reference.

The 20 categories that Pascal VOC has become its class indices, everything else is background. A crowd
counts as an instance like any other. Pixels of more than one instance are void, also when the instances are
of one class. Every image of the file counts, those without an annotation too: they are all background.

Polygons become pixels by COCO's own code, pycocotools. It trusts what it is given (two points it takes for a
box), so every segmentation is checked before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import Failure, FailureKind, ImageError, RequestError
from ..common.label_map import VOID_INDEX, LabelMap
from . import coco_file
from .choices import Orientation
from .orientation import Frame

# Run lengths as text, as in LEB128: a character from "0" on has five bits of a number and a sixth for "more".
_FIRST_CHARACTER, _CHARACTERS = ord("0"), 64
_MORE, _NEGATIVE, _BITS, _BIT_COUNT = 32, 16, 31, 5


class CocoTruth:
    """Ground truth in COCO's format; see `ground_truth.Truth`.

    Parameters
    ----------
    path
        The JSON file.

    Raises
    ------
    RequestError
        It cannot be read or understood, its categories are not COCO's, or pycocotools is missing.
    """

    drawn_on = Orientation.STORED
    voc_classes_only = True

    def __init__(self, path: Path) -> None:
        try:
            from pycocotools import mask
        except ImportError:
            raise RequestError(
                f"{path}: COCO annotations need pycocotools; install it with: pip install 'fcn-cli[coco]'"
            ) from None
        self._coco = mask
        self.path = path
        self.description = (
            "COCO instances: the 20 Pascal VOC categories, crowds as instances, overlaps void, "
            "images without annotations as background"
        )
        self._file = coco_file.read(path)
        self.counts: Mapping[str, Any] = self._file.counts

    def __len__(self) -> int:
        return len(self._file.images)

    def names(self) -> Iterable[str]:
        """Return the file names of all images."""
        return self._file.images

    def expected(self, image: str) -> str:
        """Return the file name that an image should have in the annotations: its own."""
        return image

    def find(self, image: str) -> str | None:
        """Return the file name under which the annotations know an image, or None."""
        return image if image in self._file.images else None

    def frame(self, name: str) -> Frame:
        """Return the size of an image that was found, or what is wrong with its entry."""
        return self._file.images[name].size

    def load(self, name: str) -> LabelMap:
        """Return the label map of an image that was found.

        Raises
        ------
        ImageError
            Its entry or one of its annotations cannot be used; the text says which and why.
        """
        image = self._file.images[name]
        if isinstance(image.size, Failure):
            raise ImageError(*image.size)
        width, height = image.size
        labels = np.zeros((height, width), np.uint8)
        covered = np.zeros((height, width), np.uint8)
        for instance in self._file.instances.get(image.identity, ()):
            try:
                here = self._pixels(instance.segmentation, height, width)
            except ValueError as error:
                raise ImageError(FailureKind.BAD_LABELS, f"{self.path}: {instance.title} {error}") from None
            labels[here] = coco_file.CLASS_INDEX[instance.category]
            # Two are as good as more.
            covered[here] = np.minimum(covered[here] + 1, 2)
        labels[covered > 1] = VOID_INDEX
        return labels

    def _pixels(self, segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
        """Return where an instance is: polygons (their union), or run lengths, compressed or not.

        Raises
        ------
        ValueError
            What is wrong with it, as the rest of a sentence.
        """
        if not segmentation:
            raise ValueError("has no segmentation")
        if isinstance(segmentation, list):
            _check_polygons(segmentation, height, width)
            runs = self._coco.merge(self._coco.frPyObjects(segmentation, height, width))
            polygons: NDArray[np.bool_] = self._coco.decode(runs).astype(bool)
            return polygons
        if not isinstance(segmentation, dict):
            raise ValueError("has a segmentation that is neither polygons nor run lengths")  # noqa: TRY004
        counts = _checked_counts(segmentation, height, width)
        # Down the columns, and the first run is of pixels outside.
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            raise ValueError("has a polygon that is not a list of numbers x, y, x, y, …")
        if len(polygon) % 2:
            raise ValueError(f"has a polygon of {len(polygon)} numbers; they go in pairs of x and y")
        if len(polygon) < 6:
            points = len(polygon) // 2
            raise ValueError(
                f"has a degenerate polygon of {points} point{'' if points == 1 else 's'}; it takes at least 3"
            )
        for values, side in ((polygon[::2], width), (polygon[1::2], height)):
            # A polygon may stick out a little; pycocotools takes memory for all the way to a far point.
            if min(values) < -side or max(values) > 2 * side:
                raise ValueError(f"has a polygon that reaches far outside of its image of {width}x{height}")


def _checked_counts(runs: dict[str, Any], height: int, width: int) -> list[int]:
    """Return run lengths that add up to an image's pixels; raises ValueError."""
    if runs.get("size") != [height, width]:
        raise ValueError(f"has run lengths for a size of {runs.get('size')}, its image {[height, width]}")
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _counts_of_text(counts)
    if not isinstance(counts, list) or not all(isinstance(one, int) and one >= 0 for one in counts):
        raise ValueError("has damaged run lengths")
    if sum(counts) != height * width:
        raise ValueError(f"has run lengths of {sum(counts)} pixels, its image {height * width}")
    return counts


def _counts_of_text(text: str) -> list[int]:
    """Return what compressed run lengths stand for: from the fourth on, differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < _CHARACTERS:
            raise ValueError("has damaged run lengths")
        value |= (code & _BITS) << shift
        shift += _BIT_COUNT
        if not code & _MORE:
            if code & _NEGATIVE:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("has run lengths that end too early")
    return counts


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
