"""Connected regions of a label map: find them, and merge small ones into their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .label_map import LabelMap

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a label map: pixels of one value that touch by their sides (4 neighbours).

    A region is made of runs of equal pixels in one row; all arrays are as short as there are runs or regions,
    whatever the size of the label map.

    Parameters
    ----------
    shape
        (height, width) of the label map.
    starts
        The first pixel of each run, counted row by row, in rising order.
    region_of
        The region of each run. Regions are counted in the order of their first pixels.
    values
        The label map value of each region.
    """

    shape: tuple[int, int]
    starts: Indices
    region_of: Indices
    values: NDArray[np.uint8]

    @classmethod
    def of(cls, labels: LabelMap) -> Regions:
        """Find the regions of a label map (uint8, shape (height, width), at least one pixel)."""
        is_start = np.ones(labels.shape, np.bool_)
        np.not_equal(labels[:, 1:], labels[:, :-1], out=is_start[:, 1:])
        starts = np.flatnonzero(is_start)
        values = labels.reshape(-1)[starts]
        above, below = _vertical_neighbours(is_start, starts)
        same = values[above] == values[below]
        region_of, first_runs = _joined(len(starts), above[same], below[same])
        return cls((labels.shape[0], labels.shape[1]), starts, region_of, values[first_runs])

    @cached_property
    def lengths(self) -> Indices:
        """The number of pixels of each run."""
        return np.diff(self.starts, append=self.shape[0] * self.shape[1])

    @cached_property
    def areas(self) -> Indices:
        """The number of pixels of each region."""
        return np.bincount(self.region_of, self.lengths, len(self.values)).astype(np.int64)

    @cached_property
    def image(self) -> NDArray[np.int32]:
        """The region of each pixel: shape (height, width)."""
        return np.repeat(self.region_of.astype(np.int32), self.lengths).reshape(self.shape)

    def neighbours(self) -> tuple[Indices, Indices]:
        """Return pairs of regions that touch, some of them several times, in the order of `gdal_sieve`.

        That is row by row: pixels and those above them first, then pixels and those to their right.
        """
        width = self.shape[1]
        is_start = np.zeros(self.shape, np.bool_)
        is_start.reshape(-1)[self.starts] = True
        above, below = _vertical_neighbours(is_start, self.starts)
        # A run and the next one in its row: where the right one starts, the left one has just ended.
        right = np.flatnonzero(self.starts % width)
        pairs = np.concatenate([[above, below], [right - 1, right]], axis=1)
        # The first pixel at which a pair is met, with all rows twice as wide.
        met = np.maximum(self.starts[above] + width, self.starts[below]), self.starts[right] - 1
        rows_before = np.concatenate([met[0] // width, met[1] // width + 1])
        order = np.argsort(np.concatenate(met) + rows_before * width, kind="stable")
        one, other = self.region_of[pairs[:, order]]
        differ = one != other
        return one[differ], other[differ]


def sieve(labels: LabelMap, least_pixels: int) -> LabelMap:
    """Give regions of fewer pixels the value of their largest neighbour, as ``gdal_sieve -4`` does.

    A neighbour that is itself too small hands on to its own largest neighbour. Regions among which no large
    one is to be found stay as they are. Void (255) is a value like any other.

    Parameters
    ----------
    labels
        uint8, shape (height, width); it is not changed.
    least_pixels
        How many pixels a region needs to stay.
    """
    if least_pixels <= 1 or labels.size == 0:
        return labels
    regions = Regions.of(labels)
    areas = regions.areas
    if areas.min() >= least_pixels:
        return labels
    target = _largest_neighbours(regions, least_pixels)
    is_large = areas >= least_pixels
    target[is_large] = np.flatnonzero(is_large)
    for _ in range(max(1, len(target).bit_length())):
        target = target[target]
    # What has not arrived at a large region by now goes round in a circle of small ones.
    target = np.where(is_large[target], target, np.arange(len(target)))
    return np.repeat(regions.values[target][regions.region_of], regions.lengths).reshape(labels.shape)


def _vertical_neighbours(is_start: NDArray[np.bool_], starts: Indices) -> tuple[Indices, Indices]:
    """Return the pairs of runs that touch in two rows, the upper ones and the lower ones."""
    width = is_start.shape[1]
    # A pair is met first where one of the two starts.
    met = np.flatnonzero(is_start[1:] | is_start[:-1])
    above = np.searchsorted(starts, met, "right") - 1
    below = np.searchsorted(starts, met + width, "right") - 1
    return above, below


def _joined(count: int, one: Indices, other: Indices) -> tuple[Indices, Indices]:
    """Join things that pairs name: return the group of each, and the first thing of each group.

    Each root that has a smaller root beside it is hung below that one, until no pair has two roots: the
    number of roots halves at least in each round.
    """
    root = np.arange(count)
    while len(one):
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        apart = low != high
        one, other, low, high = one[apart], other[apart], low[apart], high[apart]
        np.minimum.at(root, high, low)
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    firsts = np.flatnonzero(root == np.arange(count))
    return np.searchsorted(firsts, root), firsts


def _largest_neighbours(regions: Regions, least_pixels: int) -> Indices:
    """Return each small region's largest neighbour, of equal ones the first that is met; else itself."""
    one, other = regions.neighbours()
    areas = regions.areas
    both, beside = np.concatenate([one, other]), np.concatenate([other, one])
    met = np.tile(np.arange(len(one)), 2)
    small = areas[both] < least_pixels
    both, beside, met = both[small], beside[small], met[small]
    order = np.lexsort((met, -areas[beside], both))
    both, beside = both[order], beside[order]
    is_first = np.ones(len(both), np.bool_)
    is_first[1:] = both[1:] != both[:-1]
    largest = np.arange(len(areas))
    largest[both[is_first]] = beside[is_first]
    return largest
