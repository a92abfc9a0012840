"""How two label maps agree: the confusion matrix, and the ratios that the field takes from it.

With n the matrix, n[t, p] pixels of true class t predicted as p (Long, Shelhamer and Darrell, "Fully
Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, section 5):

    IoU of class c      n[c, c] / (sum of row c + sum of column c - n[c, c])
    accuracy of class c n[c, c] / sum of row c
    pixel accuracy      sum of n[c, c] / sum of n
    mean IoU            mean over classes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..common.label_map import VOID_INDEX, LabelMap

Matrix = NDArray[np.int64]

_STRIP_PIXELS = 1 << 20


@dataclass
class Confusion:
    """Counts of pixels, exact.

    `matrix` is int64, shape (classes, classes + 1): row true class, column predicted class; the last column
    is for pixels that the prediction leaves void, which are wrong. `void` are the pixels that the truth
    leaves void; they are in nothing else. `images` counts how many label maps were added, `class_images`
    (int64, shape (classes,)) in how many truths each class occurs.
    """

    matrix: Matrix
    class_images: Matrix
    void: int = 0
    images: int = 0

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        """Return one without pixels."""
        return cls(np.zeros((classes, classes + 1), np.int64), np.zeros(classes, np.int64))

    @classmethod
    def of(cls, truth: LabelMap, predicted: LabelMap, classes: int) -> Confusion:
        """Count one image.

        Parameters
        ----------
        truth, predicted
            uint8, of one shape (h, w): class indices, or 255 for void.
        classes
            How many there are, at most 255.

        Raises
        ------
        ValueError
            The shapes differ, or there is a class index of `classes` or more.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"shapes {truth.shape} and {predicted.shape} differ")
        # Void becomes class number `classes` on either side.
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
        """Add another one's counts."""
        self.matrix += other.matrix
        self.class_images += other.class_images
        self.void += other.void
        self.images += other.images

    @property
    def true_pixels(self) -> Matrix:
        """Pixels of each class in the truth, shape (classes,)."""
        total: Matrix = self.matrix.sum(1)
        return total

    @property
    def predicted_pixels(self) -> Matrix:
        """Pixels of each class in the prediction where the truth is not void, shape (classes,)."""
        total: Matrix = self.matrix[:, :-1].sum(0)
        return total

    @property
    def pixels(self) -> int:
        """Pixels that count: all but those that the truth leaves void."""
        return int(self.matrix.sum())

    @property
    def void_fraction(self) -> float:
        """The share of the truth's pixels that is void."""
        return self.void / max(1, self.void + self.pixels)

    def iou(self) -> NDArray[np.float64]:
        """Return each class's intersection over union, NaN for one that neither side has."""
        right = np.diagonal(self.matrix)
        return _ratio(right, self.true_pixels + self.predicted_pixels - right)

    def accuracy(self) -> NDArray[np.float64]:
        """Return each class's share of its true pixels that is found, NaN for one without true pixels."""
        return _ratio(np.diagonal(self.matrix), self.true_pixels)

    def mean_iou(self) -> float:
        """Return the mean IoU over the classes that either side has, NaN where there is none."""
        return _mean(self.iou())

    def mean_accuracy(self) -> float:
        """Return the mean accuracy over the classes in the truth, NaN where there is none."""
        return _mean(self.accuracy())

    def pixel_accuracy(self) -> float:
        """Return the share of pixels whose class is right, NaN without pixels."""
        return float(_ratio(np.trace(self.matrix), np.asarray(self.pixels)))


def highest_class(labels: LabelMap) -> int:
    """Return the highest class index in a label map, void aside; 0 where there is none."""
    return int(np.where(labels == VOID_INDEX, 0, labels).max(initial=0))


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole, dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
