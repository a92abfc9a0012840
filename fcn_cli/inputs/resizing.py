"""Resize photos to the size of the network's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CAP_ASPECT = 8
"""The network's input has at most this many times ``short_side ** 2`` pixels."""

HUB_MIN_SIDE = 224
"""The PyTorch Hub page advises images of at least this many pixels a side."""


def network_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return the (width, height) of the network's input for an image, in pixels.

    The short side becomes `short_side`; the long side is scaled in proportion and truncated (torchvision's
    rule for ``Resize`` with one number). More than ``CAP_ASPECT * short_side**2`` pixels are scaled down to
    that number. With None, the size is unchanged.
    """
    if short_side is None:
        return width, height
    short, long = sorted((width, height))
    new_short, new_long = short_side, int(short_side * long / short)
    cap = CAP_ASPECT * short_side**2
    if new_short * new_long > cap:
        scale = (cap / (new_short * new_long)) ** 0.5
        new_short = max(1, int(new_short * scale))
        new_long = min(int(new_long * scale), cap // new_short)
    return (new_short, new_long) if width <= height else (new_long, new_short)


def network_input(image: Image.Image, short_side: int | None) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Resize an RGB image for the network with Pillow's antialiased bilinear filter.

    Returns
    -------
    tuple
        A writable uint8 array of shape (height, width, 3), and notes for the record.
    """
    size = network_size(*image.size, short_side)
    notes: tuple[str, ...] = ()
    if short_side is None:
        if min(size) < HUB_MIN_SIDE:
            notes = (f"smaller than the {HUB_MIN_SIDE} pixels a side that the PyTorch Hub page advises",)
    elif min(size) != short_side:
        notes = (f"long and thin: fed to the network at {size[0]}x{size[1]}",)
    return _resized(image, size), notes


def network_inputs(
    image: Image.Image, short_side: int | None, scales: Sequence[float]
) -> tuple[list[NDArray[np.uint8]], tuple[str, ...]]:
    """Resize an RGB image for the network to several sizes.

    Parameters
    ----------
    image
        The photo. Each size is made of it, and not of another size.
    short_side
        See `network_size`.
    scales
        Factors of that size, in ascending order.

    Returns
    -------
    tuple
        The arrays as of `network_input`, the largest first, and notes for the record.
    """
    if tuple(scales) == (1,):
        pixels, notes = network_input(image, short_side)
        return [pixels], notes
    base = network_size(*image.size, short_side)
    notes = (f"at {'scales' if len(scales) > 1 else 'scale'} {', '.join(f'{scale:g}' for scale in scales)}",)
    return [_resized(image, scaled_size(base, scale)) for scale in sorted(scales, reverse=True)], notes


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return a (width, height) times a factor, rounded, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    resized = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)
