"""Label maps for the page: made smaller, and run-length coded as numbers in a script.

The browser must know the class of every pixel, and cannot read it from an image: a page from ``file://`` may
draw an image on a canvas but not read its pixels back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..common.label_map import LabelMap

_MAX_RUNS = 60_000
_SMALLEST = 160


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Return a (width, height) in proportion whose long side has at most `longest` pixels."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Return a label map at a (width, height), by nearest neighbour: classes do not mix."""
    if labels.shape == size[::-1]:
        return labels
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def runs(labels: LabelMap) -> list[int]:
    """Return a label map as value, length, value, length, …, row by row without a break between rows."""
    flat = labels.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    coded: list[int] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
    return coded


def encode(layers: Mapping[str, LabelMap], longest: int) -> dict[str, Any]:
    """Return label maps of one size for the page.

    Parameters
    ----------
    layers
        Name → label map; all of one shape.
    longest
        The long side of the grid in pixels. It is halved for a label map that is noise, so that no photo
        costs the page megabytes.

    Returns
    -------
    dict
        ``w`` and ``h``, the grid's size, and ``layers``: name → `runs`.
    """
    height, width = next(iter(layers.values())).shape
    while True:
        size = fitted(width, height, longest)
        coded = {name: runs(shrink(labels, size)) for name, labels in layers.items()}
        if longest // 2 < _SMALLEST or max(map(len, coded.values())) <= 2 * _MAX_RUNS:
            return {"w": size[0], "h": size[1], "layers": coded}
        longest //= 2
