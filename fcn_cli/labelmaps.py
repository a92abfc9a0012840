"""What a network's answer is, for those who write, count and compare it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LabelMap = NDArray[np.uint8]
"""uint8, shape (height, width): the class index of every pixel, 255 for void."""


class Predicted(NamedTuple):
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
