"""Label maps: their type, the void index, reading one from a PNG, and what a network predicts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import FailureKind, ImageError

VOID_INDEX = 255
"""The label map value that means "no class", as in Pascal VOC's ground truth."""

LabelMap = NDArray[np.uint8]
"""uint8, shape (height, width): the class index of every pixel, 255 for void."""


class Segmentation(NamedTuple):
    """What a network sees in an image.

    `labels` are class indices, 255 where the confidence is less than was asked for. `confidence`, if it was
    asked for, is the winning class's softmax probability times 255, of the same shape and type. `precision`
    is the one that the network computed in (``fp32``, ``bf16``, ``fp16``), None for a map that was read back.
    """

    labels: LabelMap
    confidence: LabelMap | None = None
    precision: str | None = None

    @property
    def nbytes(self) -> int:
        """How much memory the maps take."""
        return self.labels.nbytes + (self.confidence.nbytes if self.confidence is not None else 0)


def count_classes(labels: LabelMap) -> dict[int, int]:
    """Return class index → pixels of the classes present in a label map (uint8, shape (height, width))."""
    histogram = Image.fromarray(labels).histogram()
    return {index: pixels for index, pixels in enumerate(histogram) if pixels}


def read_label_map(path: Path) -> LabelMap:
    """Return the class indices in a greyscale or paletted PNG, whoever wrote it.

    Raises
    ------
    ImageError
        It is missing, broken, or something else.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode, labels = image.mode, np.array(image, dtype=np.uint8) if image.mode in {"L", "P"} else None
    except FileNotFoundError:
        raise ImageError(FailureKind.NOT_FOUND, f"{path}: no such file") from None
    except Exception as error:  # noqa: BLE001 - as in `decoder`: decoders raise anything on broken data
        raise ImageError(FailureKind.BAD_LABELS, f"{path}: cannot be decoded ({error})") from None
    if labels is None:
        raise ImageError(
            FailureKind.BAD_LABELS, f"{path}: {mode} pixels; label maps are 8-bit grey or paletted"
        )
    return labels
