"""Label maps from a COCO ``instances_*.json``, by the rules of torchvision's segmentation reference.

Pascal VOC's 20 categories become its class indices; every other category is background. A crowd counts as an
ordinary instance. Pixels that more than one instance covers are void, even if the instances have the same
class. Every image of the file counts; an image without annotations is all background.

COCO's own library, pycocotools, rasterises the polygons. It does not validate its input (it reads two points
as a box), so every segmentation is validated first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import Failure, FailureKind, ImageError, RequestError
from ..common.label_map import VOID_INDEX, LabelMap, Size
from . import coco_file
from .choices import Orientation
from .orientation import Frame

# Compressed run lengths, similar to LEB128: each character, minus "0", holds five bits of a number and a
# sixth bit that says whether more characters follow.
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
        The file cannot be read or is not a valid instances file with COCO's categories, or pycocotools is
        missing.
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
        """Return the file name by which the annotations are searched: the image's own."""
        return image

    def find(self, image: str) -> str | None:
        """Return the image's file name in the annotations, or None if it is not there."""
        return image if image in self._file.images else None

    def frame(self, name: str) -> Frame:
        """Return the (width, height) of an image, or the failure if its entry is invalid."""
        return self._file.images[name].size

    def load(self, name: str, *sizes: Size) -> LabelMap:
        """Return the label map of an image: uint8, shape (height, width).

        Raises
        ------
        ImageError
            The image's entry or one of its annotations is invalid, or it has none of these sizes, if there
            are any; the message says which and why.
        """
        image = self._file.images[name]
        if isinstance(image.size, Failure):
            raise ImageError.of(image.size)
        width, height = image.size
        if sizes and image.size not in sizes:
            wanted = f"{sizes[0][0]}x{sizes[0][1]}"
            raise ImageError(
                FailureKind.SIZES_DIFFER,
                f"{self.path}: {name} has {width}x{height} pixels, not {wanted}",
            )
        labels = np.zeros((height, width), np.uint8)
        count = np.zeros((height, width), np.uint8)
        for instance in self._file.instances.get(image.identity, ()):
            try:
                covered_pixels = self._rasterise(instance.segmentation, height, width)
            except ValueError as error:
                raise ImageError(FailureKind.BAD_LABELS, f"{self.path}: {instance.title} {error}") from None
            labels[covered_pixels] = coco_file.CLASS_INDEX[instance.category]
            # Limited to 2, because uint8 would overflow at 256 instances.
            count[covered_pixels] = np.minimum(count[covered_pixels] + 1, 2)
        labels[count > 1] = VOID_INDEX
        return labels

    def _rasterise(self, segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
        """Return an instance's pixels, shape (height, width), from polygons or run lengths.

        Several polygons are united. Run lengths may be a list or COCO's compressed text.

        Raises
        ------
        ValueError
            The segmentation is invalid; the message completes the sentence "annotation 7 (dog) …".
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
        counts = _validated_counts(segmentation, height, width)
        # Runs go down the columns; the first one counts pixels outside the instance.
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    """Raise ValueError for a polygon that pycocotools cannot rasterise safely."""
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            raise ValueError("has a polygon that is not a list of numbers x, y, x, y, …")
        if len(polygon) % 2:
            raise ValueError(f"has a polygon of {len(polygon)} numbers; they must be pairs of x and y")
        if len(polygon) < 6:
            points = len(polygon) // 2
            raise ValueError(
                f"has a degenerate polygon of {points} point{'' if points == 1 else 's'}; at least 3 needed"
            )
        for values, side in ((polygon[::2], width), (polygon[1::2], height)):
            # A polygon may exceed the image a little; a far point makes pycocotools allocate huge buffers.
            if min(values) < -side or max(values) > 2 * side:
                raise ValueError(f"has a polygon that reaches far outside its image of {width}x{height}")


def _validated_counts(runs: dict[str, Any], height: int, width: int) -> list[int]:
    """Return the run lengths; raises ValueError unless they add up to the image's pixels."""
    if runs.get("size") != [height, width]:
        raise ValueError(f"has run lengths for a size of {runs.get('size')}, its image {[height, width]}")
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = _decompress_counts(counts)
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("has damaged run lengths")
    if sum(counts) != height * width:
        raise ValueError(f"has run lengths of {sum(counts)} pixels, its image {height * width}")
    return counts


def _decompress_counts(text: str) -> list[int]:
    """Decode compressed run lengths: from the fourth on, each is a difference to the last but one."""
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
