"""COCO's run-length encoding of a class in a label map, compressed, and back.

The format is that of COCO's API (``maskApi.c`` in github.com/cocodataset/cocoapi): runs go down the columns,
runs outside and inside the class alternate, and the first one is outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BITS, _BIT_COUNT, _SIGN, _MORE, _FIRST_CHARACTER = 31, 5, 16, 32, 48


class Encoded(NamedTuple):
    """The pixels of one value: compressed run lengths, their number, the (x, y, width, height) around."""

    value: int
    counts: str
    area: int
    bbox: tuple[int, int, int, int]


def encode(values: NDArray[np.integer]) -> Iterator[Encoded]:
    """Yield the encoded pixels of each value, in order, of a label map or the like: shape (height, width)."""
    height = len(values)
    columns = values.T.ravel()
    ends = np.append(np.flatnonzero(columns[1:] != columns[:-1]) + 1, columns.size)
    starts = np.concatenate([[0], ends[:-1]])
    found = columns[starts]
    order = np.argsort(found, kind="stable")
    borders = np.flatnonzero(np.diff(found[order])) + 1
    for runs in np.split(order, borders):
        first, end = starts[runs], ends[runs]
        yield Encoded(
            int(found[runs[0]]),
            compress(_counts(first, end, columns.size)),
            int(np.sum(end - first)),
            _bounding_box(first, end, height),
        )


def _counts(first: NDArray[np.int64], end: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the lengths of alternating runs; a region that ends with the picture has none after its last."""
    bounds = np.empty(2 * len(first) + 2, np.int64)
    bounds[0], bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = 0, first, end, size
    counts = np.diff(bounds)
    return counts if counts[-1] else counts[:-1]


def _bounding_box(first: NDArray[np.int64], end: NDArray[np.int64], height: int) -> tuple[int, int, int, int]:
    last = end - 1
    left, right = int(first[0]) // height, int(last[-1]) // height + 1
    top, bottom = int(np.min(first % height)), int(np.max(last % height)) + 1
    if np.any(last // height > first // height):
        # A run that goes on in the next column has the lowest and the highest row.
        top, bottom = 0, height
    return left, top, right - left, bottom - top


def compress(counts: NDArray[np.int64]) -> str:
    """Return run lengths (int64, (n,)) as COCO's text.

    From the fourth on, each is stored as its difference to the last but one. A number is split into groups of
    five bits, the lowest first; a character has one group, and a bit that says whether more follow.
    """
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups, present = [], []
    active = np.ones(len(values), np.bool_)
    while active.any():
        bits = values & _BITS
        values = values >> _BIT_COUNT
        # The sign bit of the last group is that of the number.
        more = np.where(bits & _SIGN, values != -1, values != 0)
        groups.append(bits + _MORE * more + _FIRST_CHARACTER)
        present.append(active)
        active = active & more
    characters = np.column_stack(groups).astype(np.uint8)
    return characters[np.column_stack(present)].tobytes().decode("ascii")


def decompress(text: str) -> list[int]:
    """Return the run lengths in COCO's text, as of `compress`; ValueError says what is wrong with it."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < 2 * _MORE:
            raise ValueError("has damaged run lengths")
        value |= (code & _BITS) << shift
        shift += _BIT_COUNT
        if not code & _MORE:
            if code & _SIGN:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("has run lengths that end too early")
    return counts
