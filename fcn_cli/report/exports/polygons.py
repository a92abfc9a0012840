"""Polygons along the pixel edges of a region, with its holes cut out by bridges.

The corners of a region lie on the grid of pixel edges. On each grid line, the boundary's horizontal pieces
are the gaps between a corner and the next one, in pairs; so are the vertical pieces on each column. Each
corner therefore has one piece of each direction, and following them in turn gives the loops. Where two pixels
of the region touch only at a corner, that point is two corners, one for each pixel: regions are 4-connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int64]
"""int64, shape (n, 2): x and y of a polygon's corners on the grid of pixel edges, in order, not closed."""


class _Corners(NamedTuple):
    """The corners of a region: int64, (n,); sorted by y, then x.

    `next` is the index of the following corner: with the region to the right on the way, y pointing down.
    `columns` has the indices sorted by x, then y; two by two they bound the vertical pieces.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    next: list[int]
    columns: NDArray[np.int64]


def trace(region: NDArray[np.bool_]) -> list[Points]:
    """Return one polygon for each 4-connected part of a region (bool, (height, width)).

    The area within a polygon is the part's number of pixels. A hole is joined to what surrounds it by a line
    that is run through forth and back, inside the region.
    """
    padded = np.pad(region, 1)
    corners = _find_corners(padded)
    next_corner = corners.next
    starts = _loop_starts(next_corner)
    # The first corner of an outer loop is the upper left one of a pixel of the region; that of a hole is not.
    is_outer = padded[corners.y[starts] + 1, corners.x[starts] + 1]
    x, y = corners.x.tolist(), corners.y.tolist()
    bridges = sorted(_bridges(padded, corners, starts[~is_outer]), key=lambda bridge: bridge.y)
    for bridge in bridges:
        _splice(bridge, x, y, next_corner)
    return [_collect(int(start), x, y, next_corner) for start in starts[is_outer]]


def outline(region: NDArray[np.bool_]) -> Points | None:
    """Return the polygon of one 4-connected region (bool, (height, width)), or None where it has a hole."""
    corners = _find_corners(np.pad(region, 1))
    starts = _loop_starts(corners.next)
    if len(starts) > 1:
        return None
    return _collect(int(starts[0]), corners.x.tolist(), corners.y.tolist(), corners.next)


def _find_corners(padded: NDArray[np.bool_]) -> _Corners:
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    touching = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    y, x = np.nonzero(odd | touching)
    y, x = (np.repeat(values, 1 + touching[y, x]) for values in (y, x))
    # Of two corners in one place, the left one has the horizontal piece to the left. Its pixel of the region
    # is the upper left one, with the vertical piece above, or the lower left one.
    twice = touching[y, x]
    is_left = np.zeros(len(x), np.bool_)
    is_left[np.flatnonzero(twice)[::2]] = True
    goes_up = twice & (is_left == upper_left[y, x])
    columns = np.lexsort((~goes_up, y, x))
    following = np.empty(len(x), np.int64)
    left, right = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    below = padded[y[left] + 1, x[left] + 1]
    following[np.where(below, left, right)] = np.where(below, right, left)
    top, bottom = columns[::2], columns[1::2]
    beside = padded[y[top] + 1, x[top] + 1]
    following[np.where(beside, bottom, top)] = np.where(beside, top, bottom)
    return _Corners(x, y, following.tolist(), columns)


def _loop_starts(next_corner: list[int]) -> NDArray[np.int64]:
    """Return the first corner of each loop: the uppermost one, and of those the one farthest to the left."""
    seen = bytearray(len(next_corner))
    starts = []
    for start in range(len(next_corner)):
        if not seen[start]:
            starts.append(start)
            place = start
            while not seen[place]:
                seen[place] = 1
                place = next_corner[place]
    return np.array(starts, np.int64)


class _Bridge(NamedTuple):
    """From a point on the vertical piece that follows corner `after`, to the first corner of a hole."""

    after: int
    x: int
    y: int
    hole: int


def _bridges(padded: NDArray[np.bool_], corners: _Corners, holes: NDArray[np.int64]) -> Iterator[_Bridge]:
    """Yield the bridge of each hole: from its first corner to the left, to the next boundary."""
    keys = corners.x[corners.columns] * padded.shape[0] + corners.y[corners.columns]
    for hole in holes.tolist():
        x, y = int(corners.x[hole]), int(corners.y[hole])
        # Between these two rows the region goes on to the left until one of them ends.
        inside = padded[y, : x + 1] & padded[y + 1, : x + 1]
        target = int(np.flatnonzero(~inside)[-1])
        place = int(np.searchsorted(keys, target * padded.shape[0] + y, side="right")) - 1
        piece = place // 2 * 2
        top, bottom = int(corners.columns[piece]), int(corners.columns[piece + 1])
        # With the region to its right the piece goes up, from its lower corner.
        after = top if y == corners.y[top] else bottom
        yield _Bridge(after, target, y, hole)


def _splice(bridge: _Bridge, x: list[int], y: list[int], next_corner: list[int]) -> None:
    """Lead a loop over a bridge, around the hole, and back.

    Of the bridges of one piece, which goes up, the uppermost must come first: all follow the same corner.
    """
    onward = next_corner[bridge.after]
    before_hole = bridge.hole
    while next_corner[before_hole] != bridge.hole:
        before_hole = next_corner[before_hole]
    first = len(x)
    # The point on the piece, the hole's first corner again, and the point again.
    x += [bridge.x, x[bridge.hole], bridge.x]
    y += [bridge.y, y[bridge.hole], bridge.y]
    next_corner += [bridge.hole, first + 2, onward]
    next_corner[bridge.after] = first
    next_corner[before_hole] = first + 1


def _collect(start: int, x: list[int], y: list[int], next_corner: list[int]) -> Points:
    points = [(x[start], y[start])]
    place = next_corner[start]
    while place != start:
        # A bridge can begin at a corner, which then is there twice.
        if (x[place], y[place]) != points[-1]:
            points.append((x[place], y[place]))
        place = next_corner[place]
    return np.array(points, np.int64)
