"""How photos are decoded, as users ask for it."""

from __future__ import annotations

from dataclasses import dataclass

from .decoder import DEFAULT_MAX_PIXELS

DEFAULT_SHORT_SIDE = 520
"""The short side in pixels at which torchvision's weights were evaluated."""


@dataclass(frozen=True)
class DecodeOptions:
    """How photos are decoded and resized; all but `short_side` leaves label maps as they are.

    `short_side` is that of the network's input in pixels, or None for the photo's own size. `workers` is the
    number of decoding processes: 0 decodes in this one, None is ``auto``. A photo of more than `max_pixels`
    is refused; one that takes longer than `timeout` seconds to decode has failed.
    """

    short_side: int | None = DEFAULT_SHORT_SIDE
    workers: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    timeout: float = 60.0
