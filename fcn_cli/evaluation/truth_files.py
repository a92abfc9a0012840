"""Read one PNG of ground truth: its size, and its class indices (also from Pascal VOC's colours)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..common import palettes
from ..common.errors import FailureKind, ImageError
from ..common.label_map import VOID_INDEX, LabelMap, Size, open_png, read_label_map
from .choices import TruthColors

_STRIP_PIXELS = 1 << 20
_COLOR_MODES = frozenset({"RGB", "RGBA"})
_USE_INDICES = "save each pixel's class index (0 is background, 255 void) as 8-bit grey or paletted PNG"


def size_of(path: Path) -> tuple[int, int]:
    """Return a PNG's (width, height) from its header.

    Raises
    ------
    ImageError
        The file is missing or not a PNG.
    """
    with open_png(path) as opened:
        return opened.size


def read(path: Path, colors: TruthColors | None, *sizes: Size) -> LabelMap:
    """Return the class indices of a PNG of ground truth: uint8, shape (height, width), 255 is void.

    Parameters
    ----------
    path
        The file.
    colors
        ``voc``: the pixels are colours of Pascal VOC's palette. Otherwise they are class indices.
    sizes
        The (width, height) that it may have; none where that is not known.

    Raises
    ------
    ImageError
        The file is missing or damaged, has another size, or its pixels are not of that kind; the message says
        what to do.
    """
    if colors is TruthColors.VOC:
        return _indices_from_colors(path, sizes)
    with open_png(path, *sizes) as opened:
        mode = opened.mode
    if mode in _COLOR_MODES:
        raise ImageError(
            FailureKind.BAD_LABELS,
            f"{path}: {mode} colours, but truth needs class indices; if the colours are Pascal VOC's, give "
            f"--truth-colors voc, otherwise {_USE_INDICES}",
        )
    if mode == "1":
        raise ImageError(FailureKind.BAD_LABELS, f"{path}: 1-bit, black and white only; {_USE_INDICES}")
    return read_label_map(path, *sizes)


def is_black_and_white(path: Path, labels: LabelMap) -> bool:
    """Return whether a label map looks like a mask of one object: greyscale, only 0 and 255.

    In a paletted PNG, such as Pascal VOC's, 255 is void on purpose; in a greyscale PNG it may mean white.
    """
    counts = np.bincount(labels.ravel(), minlength=VOID_INDEX + 1)
    if not counts[VOID_INDEX] or counts[1:VOID_INDEX].any():
        return False
    try:
        with open_png(path) as opened:
            return opened.mode == "L"
    except ImageError:
        # It was readable before; the next read reports the error.
        return False


def _indices_from_colors(path: Path, sizes: Sequence[Size]) -> LabelMap:
    """Return the class indices of a PNG whose pixels are colours of Pascal VOC's palette."""
    codes = _codes(palettes.voc())
    order = np.argsort(codes)
    with open_png(path, *sizes) as opened:
        width, height = opened.size
        labels = np.empty((height, width), np.uint8)
        rows = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, rows):
            colors = np.asarray(opened.crop((0, top, width, min(top + rows, height))).convert("RGB"))
            strip = _codes(colors)
            found = order[np.searchsorted(codes, strip, sorter=order).clip(max=len(codes) - 1)]
            unknown = np.argwhere(codes[found] != strip)
            if len(unknown):
                row, x = int(unknown[0, 0]), int(unknown[0, 1])
                color = tuple(colors[row, x].tolist())
                raise ImageError(
                    FailureKind.BAD_LABELS,
                    f"{path}: the colour {color} at x={x}, y={top + row} is not one of Pascal VOC's; "
                    f"{_USE_INDICES} and leave --truth-colors out",
                )
            labels[top : top + rows] = found
    return labels


def _codes(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return each RGB triple (last axis) as one number, int32."""
    wide = colors.astype(np.int32)
    codes: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes
