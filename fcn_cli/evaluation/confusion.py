"""The confusion matrix of two label maps, and the metrics computed from it.

n[t, p] is the number of pixels of true class t that are predicted as class p. The formulas are those of Long,
Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, section 5:

    IoU of class c      n[c, c] / (sum of row c + sum of column c - n[c, c])
    accuracy of class c n[c, c] / sum of row c
    pixel accuracy      sum of n[c, c] / sum of n
    mean IoU            mean over classes
    frequency-weighted  sum of IoU of c, times sum of row c / sum of n

and, as everywhere:

    Dice of class c      2 n[c, c] / (sum of row c + sum of column c)
    precision of class c n[c, c] / sum of column c
    recall of class c    its accuracy
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.label_map import VOID_INDEX, LabelMap

Matrix = NDArray[np.int64]

_STRIP_PIXELS = 1 << 20


@dataclass
class Confusion:
    """Exact pixel counts of any number of images.

    `matrix` is int64, shape (classes, classes + 1). Its rows are true classes, its columns predicted classes;
    the last column counts pixels that are void in the prediction, which are wrong. `void` counts the pixels
    that are void in the truth; no other figure includes them. `images` is the number of images,
    `class_images` (int64, shape (classes,)) the number of images whose truth has each class.
    """

    matrix: Matrix
    class_images: Matrix
    void: int = 0
    images: int = 0

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        return cls(np.zeros((classes, classes + 1), np.int64), np.zeros(classes, np.int64))

    @classmethod
    def of(cls, truth: LabelMap, predicted: LabelMap, classes: int) -> Confusion:
        """Count one image: uint8 label maps of one shape (h, w), with 255 for void, of at most 255 classes.

        ValueError where the shapes differ, or a class index is `classes` or higher.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"shapes {truth.shape} and {predicted.shape} differ")
        # In both label maps void becomes the class index `classes`.
        number = np.arange(256)
        number[VOID_INDEX] = classes
        size = classes + 1
        counts = np.zeros(size * size, np.int64)
        for name, labels in (("truth", truth), ("prediction", predicted)):
            highest = highest_class(labels)
            if highest >= classes:
                raise ValueError(f"the {name} has class index {highest}; there are {classes} classes")
        rows = max(1, _STRIP_PIXELS // max(1, truth.shape[1]))
        for top in range(0, len(truth), rows):
            pairs = number[truth[top : top + rows]] * size + number[predicted[top : top + rows]]
            counts += np.bincount(pairs.ravel(), minlength=size * size)
        square = counts.reshape(size, size)
        matrix = square[:classes]
        return cls(matrix, (matrix.sum(1) > 0).astype(np.int64), int(square[classes].sum()), 1)

    def add(self, other: Confusion) -> None:
        self.matrix += other.matrix
        self.class_images += other.class_images
        self.void += other.void
        self.images += other.images

    @property
    def true_pixels(self) -> Matrix:
        """Pixels of each class in the truth, int64, shape (classes,)."""
        total: Matrix = self.matrix.sum(1)
        return total

    @property
    def predicted_pixels(self) -> Matrix:
        """Pixels of each class in the prediction where the truth is not void, int64, shape (classes,)."""
        total: Matrix = self.matrix[:, :-1].sum(0)
        return total

    @property
    def pixels(self) -> int:
        """The number of pixels that are not void in the truth."""
        return int(self.matrix.sum())

    @property
    def void_fraction(self) -> float:
        """The fraction of the truth's pixels that are void, 0 to 1."""
        return self.void / max(1, self.void + self.pixels)

    def iou(self) -> NDArray[np.float64]:
        """Return each class's IoU, 0 to 1, shape (classes,); NaN where neither label map has it."""
        right = np.diagonal(self.matrix)
        return _ratio(right, self.true_pixels + self.predicted_pixels - right)

    def accuracy(self) -> NDArray[np.float64]:
        """Return each class's accuracy, 0 to 1, shape (classes,); NaN where the truth does not have it."""
        return _ratio(np.diagonal(self.matrix), self.true_pixels)

    def dice(self) -> NDArray[np.float64]:
        """Return each class's Dice coefficient (F1), 0 to 1, shape (classes,); NaN as by `iou`."""
        return _ratio(2 * np.diagonal(self.matrix), self.true_pixels + self.predicted_pixels)

    def precision(self) -> NDArray[np.float64]:
        """Return each class's precision, 0 to 1, shape (classes,); NaN where it is never predicted."""
        return _ratio(np.diagonal(self.matrix), self.predicted_pixels)

    def mean_dice(self) -> float:
        """Return the mean Dice coefficient over the classes of `mean_iou`; NaN without any."""
        return _mean(self.dice())

    def frequency_weighted_iou(self) -> float:
        """Return the IoU weighted by the classes' pixels in the truth; NaN without pixels."""
        true = self.true_pixels
        return float(_ratio((np.nan_to_num(self.iou()) * true).sum(), np.asarray(true.sum())))

    def mean_iou(self) -> float:
        """Return the mean IoU over the classes of the truth or the prediction; NaN without any."""
        return _mean(self.iou())

    def mean_accuracy(self) -> float:
        """Return the mean accuracy over the classes of the truth; NaN without any."""
        return _mean(self.accuracy())

    def pixel_accuracy(self) -> float:
        """Return the fraction of correct pixels; NaN without pixels."""
        return float(_ratio(np.trace(self.matrix), np.asarray(self.pixels)))


def highest_class(labels: LabelMap) -> int:
    """Return the highest class index in a label map, ignoring void; 0 for a map without classes."""
    return int(np.where(labels == VOID_INDEX, 0, labels).max(initial=0))


def _ratio(part: NDArray[Any], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: NDArray[np.float64] = np.divide(part, whole, dtype=np.float64)
    return ratio


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
