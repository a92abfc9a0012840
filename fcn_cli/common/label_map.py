"""Label maps: the type, the void index, predictions, reading a PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from .errors import FailureKind, ImageError
from .files import ReadableFile

VOID_INDEX = 255
"""The label map value that means "no class", as in Pascal VOC's ground truth."""

# With shorter runs of equal pixels, counting runs is not faster than counting pixels.
_PIXELS_A_RUN = 8

LabelMap = NDArray[np.uint8]
"""uint8, shape (height, width): the class index of every pixel, 255 for void."""


@dataclass(frozen=True, eq=False)
class Segmentation:
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

    def compressed(self, compress: Callable[[LabelMap], bytes]) -> bytes:
        """Return what the function returns for the labels; the result is kept for the next call."""
        kept: bytes | None = self.__dict__.get("_compressed")
        if kept is None:
            kept = self.__dict__["_compressed"] = compress(self.labels)
        return kept


def count_classes(labels: LabelMap) -> dict[int, int]:
    """Return class index → number of pixels for the classes in a label map (uint8, (height, width))."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    if len(ends) * _PIXELS_A_RUN < flat.size:
        # A histogram looks at every pixel, and equal neighbours make it wait for itself.
        bounds = np.concatenate([[-1], ends, [flat.size - 1]])
        histogram = np.bincount(flat[bounds[1:]], weights=bounds[1:] - bounds[:-1]).astype(np.int64).tolist()
    else:
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
