"""Regions of label maps as COCO's run lengths and as polygons: exactly the region's pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from fcn_cli.common.run_lengths import encode
from fcn_cli.report.exports.polygons import Points, trace

from ..made_output import Labels, blobs

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
LABELS = arrays.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 255]))
CHECKERS = np.indices((9, 12)).sum(axis=0) % 2 == 0
RINGS = np.array([np.minimum(abs(10 - x), abs(10 - y)) % 2 for x in range(21) for y in range(21)], bool)


@given(LABELS)
@example(np.full((5, 7), 1, np.uint8))
@example(blobs(3, 200, 300))
def test_run_lengths_are_those_of_pycocotools(labels: Labels) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    encoded = list(encode(labels))
    assert [one.value for one in encoded] == np.unique(labels).tolist()
    for one in encoded:
        expected = coco.encode(np.asfortranarray(labels == one.value, np.uint8))
        assert one.counts == expected["counts"].decode()
        assert one.area == coco.area(expected)
        assert list(one.bbox) == coco.toBbox(expected).tolist()


def area(polygon: Points) -> float:
    """The shoelace formula."""
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def parts(region: NDArray[np.bool_]) -> int:
    """Count 4-connected parts by filling them one after the other."""
    left = set(zip(*map(np.ndarray.tolist, np.nonzero(region)), strict=True))
    count = 0
    while left:
        count += 1
        waiting = [left.pop()]
        while waiting:
            y, x = waiting.pop()
            for neighbour in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if neighbour in left:
                    left.remove(neighbour)
                    waiting.append(neighbour)
    return count


def filled(polygon: Points, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels whose centre has an odd number of vertical sides to the right."""
    inside = np.zeros(shape, bool)
    for (x, y), (next_x, next_y) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if x == next_x:
            inside[min(y, next_y) : max(y, next_y), :x] ^= True
    return inside


@given(arrays.arrays(np.bool_, SHAPES))
@example(np.ones((1, 1), bool))
@example(CHECKERS)
@example(~CHECKERS)
@example(RINGS.reshape(21, 21))
@example(~RINGS.reshape(21, 21))
@example(blobs(5, 120, 160) == 0)
def test_polygons_have_exactly_the_region(region: NDArray[np.bool_]) -> None:
    polygons = trace(region)
    assert len(polygons) == parts(region)
    assert sum(map(area, polygons)) == region.sum()
    total = np.zeros(region.shape, int)
    upright = 0
    for polygon in polygons:
        assert area(polygon) > 0
        steps = np.roll(polygon, -1, axis=0) - polygon
        assert ((steps == 0).sum(axis=1) == 1).all(), "each side runs along pixel edges"
        upright += abs(steps[:, 1]).sum()
        inside = filled(polygon, region.shape)
        assert inside.sum() == area(polygon)
        total += inside
    assert (total == region).all()
    # Bridges are level, and no side is run through twice.
    assert upright == np.count_nonzero(np.diff(np.pad(region, 1).astype(np.int8), axis=1))
