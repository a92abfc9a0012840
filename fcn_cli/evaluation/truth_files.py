"""Read one PNG of ground truth: its size, and its class indices (also from Pascal VOC's colours)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common import palettes
from ..common.errors import FailureKind, ImageError
from ..common.label_map import VOID_INDEX, LabelMap, read_label_map
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
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            return opened.size
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
        raise _unreadable(path, error) from None


def read(path: Path, colors: TruthColors | None) -> LabelMap:
    """Return the class indices of a PNG of ground truth: uint8, shape (height, width), 255 is void.

    Parameters
    ----------
    path
        The file.
    colors
        ``voc``: the pixels are colours of Pascal VOC's palette. Otherwise they are class indices.

    Raises
    ------
    ImageError
        The file is missing or damaged, or its pixels are not of that kind; the message says what to do.
    """
    if colors is TruthColors.VOC:
        return _indices_from_colors(path)
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            mode = opened.mode
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
        raise _unreadable(path, error) from None
    if mode in _COLOR_MODES:
        raise ImageError(
            FailureKind.BAD_LABELS,
            f"{path}: {mode} colours, but truth needs class indices; if the colours are Pascal VOC's, give "
            f"--truth-colors voc, otherwise {_USE_INDICES}",
        )
    if mode == "1":
        raise ImageError(FailureKind.BAD_LABELS, f"{path}: 1-bit, black and white only; {_USE_INDICES}")
    return read_label_map(path)


def is_black_and_white(path: Path, labels: LabelMap) -> bool:
    """Return whether a label map looks like a mask of one object: greyscale, only 0 and 255.

    In a paletted PNG, such as Pascal VOC's, 255 is void on purpose; in a greyscale PNG it may mean white.
    """
    counts = np.bincount(labels.ravel(), minlength=VOID_INDEX + 1)
    if not counts[VOID_INDEX] or counts[1:VOID_INDEX].any():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            return opened.mode == "L"
    except Exception:  # noqa: BLE001 - it was readable before; the next read reports the error
        return False


def _indices_from_colors(path: Path) -> LabelMap:
    """Return the class indices of a PNG whose pixels are colours of Pascal VOC's palette."""
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
        raise _unreadable(path, error) from None
    codes = _codes(palettes.voc())
    order = np.argsort(codes)
    labels = np.empty(pixels.shape[:2], np.uint8)
    rows = max(1, _STRIP_PIXELS // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        strip = _codes(pixels[top : top + rows])
        found = order[np.searchsorted(codes, strip, sorter=order).clip(max=len(codes) - 1)]
        unknown = np.argwhere(codes[found] != strip)
        if len(unknown):
            y, x = top + int(unknown[0, 0]), int(unknown[0, 1])
            color = tuple(pixels[y, x].tolist())
            raise ImageError(
                FailureKind.BAD_LABELS,
                f"{path}: the colour {color} at x={x}, y={y} is not one of Pascal VOC's; {_USE_INDICES} and "
                "leave --truth-colors out",
            )
        labels[top : top + rows] = found
    return labels


def _codes(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return each RGB triple (last axis) as one number, int32."""
    wide = colors.astype(np.int32)
    codes: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(FailureKind.NOT_FOUND, f"{path}: no such file")
    return ImageError(FailureKind.BAD_LABELS, f"{path}: cannot be decoded ({error})")
