"""Options of decoding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from ..common.errors import RequestError
from .samples import BY_THE_FILE, Rendering

DEFAULT_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
"""The pixels at which Pillow itself raises a decompression bomb error: twice its warning limit."""

ONE_SCALE = (1.0,)
"""The network's input has the size that is asked for, and no other."""

SMALLEST_SCALE, LARGEST_SCALE = 0.25, 4.0

DEFAULT_SHORT_SIDE = 520
"""The short side in pixels at which torchvision's weights were evaluated."""


InputSize: TypeAlias = int | tuple[int, int] | None
"""Of the network's input: its short side, its width and height, or the image's own; in pixels."""


def check_scales(scales: Iterable[float]) -> tuple[float, ...]:
    """Return scales in ascending order, each once.

    Raises
    ------
    RequestError
        There is none, or one is out of range.
    """
    given = sorted({float(scale) for scale in scales})
    if not given or not all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in given):
        raise RequestError(f"scales are numbers from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}, at least one")
    return tuple(given)


@dataclass(frozen=True)
class DecodeOptions:
    """How images are decoded and resized; `short_side`, `scales` and `rendering` shape label maps.

    `short_side` is the size of the network's input (see `InputSize`). Predictions are
    averaged over `scales`, factors of that size: each from 0.25 to 4, in ascending order. `workers` is the
    number of decoding processes: 0 decodes in this one, None is ``auto``. An image of more than `max_pixels`
    is refused; one that takes longer than `timeout` seconds to decode has failed. `rendering` says how
    samples become RGB.
    """

    short_side: InputSize = DEFAULT_SHORT_SIDE
    workers: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    timeout: float = 60.0
    scales: tuple[float, ...] = ONE_SCALE
    rendering: Rendering = BY_THE_FILE
