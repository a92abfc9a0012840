"""Label maps: the type, the void index, predictions, reading a PNG."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from .errors import FailureKind, ImageError
from .files import ReadableFile

VOID_INDEX = 255
"""The label map value that means "no class", as in Pascal VOC's ground truth."""

LabelMap = NDArray[np.uint8]
"""uint8, shape (height, width): the class index of every pixel, 255 for void."""


class Segmentation(NamedTuple):
    """The predicted label map of an image.

    `labels` holds class indices, and 255 where the confidence is below the requested minimum. `confidence`,
    if requested, is the softmax probability of the predicted class times 255, of the same shape and dtype.
    `precision` is the network's (``fp32``, ``bf16``, ``fp16``); None for a label map that was read from a
    file.
    """

    labels: LabelMap
    confidence: LabelMap | None = None
    precision: str | None = None

    @property
    def nbytes(self) -> int:
        """The size of both maps in bytes."""
        return self.labels.nbytes + (self.confidence.nbytes if self.confidence is not None else 0)


def count_classes(labels: LabelMap) -> dict[int, int]:
    """Return class index → number of pixels for the classes in a label map (uint8, (height, width))."""
    histogram = Image.fromarray(labels).histogram()
    return {index: pixels for index, pixels in enumerate(histogram) if pixels}


def read_label_map(path: ReadableFile) -> LabelMap:
    """Read the class indices of an 8-bit greyscale or paletted PNG: uint8, shape (height, width).

    Raises
    ------
    ImageError
        The file is missing, broken, or of another format or mode.
    """
    try:
        # Without Pillow's limit on pixels, which `Image.open` applies: our own masks have any size.
        with PngImageFile(io.BytesIO(path.read_bytes())) as image:
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
