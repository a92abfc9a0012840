"""Resize images to the size of the network's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from .decode_options import ONE_SCALE, InputSize
from .shared_pixels import Allocate, Pixels, in_memory

_STRIP_PIXELS = 1 << 22

CAP_ASPECT = 8
"""The network's input has at most this many times ``short_side ** 2`` pixels."""

HUB_MIN_SIDE = 224
"""The PyTorch Hub page advises images of at least this many pixels a side."""


def network_size(width: int, height: int, short_side: InputSize) -> tuple[int, int]:
    """Return the (width, height) of the network's input for an image, in pixels.

    The short side becomes `short_side`; the long side is scaled in proportion and truncated (torchvision's
    rule for ``Resize`` with one number). More than ``CAP_ASPECT * short_side**2`` pixels are scaled down to
    that number. With None, the size is unchanged; with a width and a height, it is that.
    """
    if short_side is None:
        return width, height
    if isinstance(short_side, tuple):
        return short_side
    short, long = sorted((width, height))
    new_short, new_long = short_side, int(short_side * long / short)
    cap = CAP_ASPECT * short_side**2
    if new_short * new_long > cap:
        scale = (cap / (new_short * new_long)) ** 0.5
        new_short = max(1, int(new_short * scale))
        new_long = min(int(new_long * scale), cap // new_short)
    return (new_short, new_long) if width <= height else (new_long, new_short)


class Rows(Protocol):
    """An RGB image that is decoded some rows at a time, as often as it is asked for."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...

    def rows(self) -> Iterator[Image.Image]:
        """Yield the rows from top to bottom, as RGB images of its width."""
        ...


def network_input(image: Image.Image, short_side: InputSize) -> tuple[Pixels, tuple[str, ...]]:
    """Resize an RGB image for the network to one size; see `network_inputs`."""
    (pixels,), notes = network_inputs(image, short_side, ONE_SCALE)
    return pixels, notes


def network_inputs(
    image: Image.Image | Rows,
    short_side: InputSize,
    scales: Sequence[float],
    allocate: Allocate = in_memory,
) -> tuple[list[Pixels], tuple[str, ...]]:
    """Resize an RGB image for the network with Pillow's antialiased bilinear filter, to several sizes.

    Each is a factor of `network_size`, in ascending order, and made of the image itself. Returns writable
    uint8 arrays of shape (height, width, 3), which `allocate` makes, the largest first; and notes for the
    record.
    """
    base = network_size(*image.size, short_side)
    notes: list[str] = []
    if short_side is None:
        if min(base) < HUB_MIN_SIDE:
            notes.append(f"smaller than the {HUB_MIN_SIDE} pixels a side that the PyTorch Hub page advises")
    elif isinstance(short_side, int) and min(base) != short_side:
        notes.append(f"long and thin: fed to the network at {base[0]}x{base[1]}")
    if tuple(scales) != ONE_SCALE:
        names = ", ".join(f"{scale:g}" for scale in scales)
        notes.append(f"average of scales {names}" if len(scales) > 1 else f"at scale {names}")
    sizes = [scaled_size(base, scale) for scale in sorted(scales, reverse=True)]
    return [_resized(image, size, allocate) for size in sizes], tuple(notes)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return a (width, height) times a factor, rounded, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Return a (width, height) in proportion whose long side has at most `longest` pixels."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def within(image: Image.Image, longest: int) -> Image.Image:
    """Return an image for people whose long side has at most `longest` pixels."""
    size = fitted(*image.size, longest)
    # A gap of 2: a first reduction by a whole factor is fast, and is not seen in the result.
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _resized(image: Image.Image | Rows, size: tuple[int, int], allocate: Allocate) -> Pixels:
    if size == image.size:
        return pixels_of(image, allocate)
    if not isinstance(image, Image.Image):
        image = _narrowed(image, size[0])
    return pixels_of(image.resize(size, Image.Resampling.BILINEAR), allocate)


def pixels_of(image: Image.Image | Rows, allocate: Allocate) -> Pixels:
    """Return the pixels of an RGB image in an array that `allocate` makes."""
    pixels = allocate((image.size[1], image.size[0], 3))
    parts = _strips(image) if isinstance(image, Image.Image) else image.rows()
    top = 0
    for part in parts:
        pixels[top : top + part.height] = np.asarray(part)
        top += part.height
    return pixels


def _narrowed(image: Rows, width: int) -> Image.Image:
    """Return an image with its width resized: the first pass of Pillow's `resize`, bit for bit."""
    narrow = Image.new("RGB", (width, image.size[1]))
    top = 0
    for part in image.rows():
        narrow.paste(part.resize((width, part.height), Image.Resampling.BILINEAR), (0, top))
        top += part.height
    return narrow


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """Yield an image in strips: an array of the whole one would take a copy of all bytes."""
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))
