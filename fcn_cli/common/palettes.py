"""Colour palettes: an RGB colour for each of the 256 label map values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import RequestError
from .label_map import VOID_INDEX
from .wording import counted

Palette = NDArray[np.uint8]
"""uint8, shape (256, 3): the RGB colour of each class index."""


def voc() -> Palette:
    """Return the Pascal VOC colour map, as the VOC development kit defines it.

    The bits of the class index, from the lowest up, go to red, green and blue in turn; each channel is
    filled from its highest bit down.
    """
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((index >> channel) & 1) << (7 - bit)).astype(np.uint8)
        index >>= 3
    return colors


def hub() -> Palette:
    """Return the colours of the PyTorch Hub FCN page.

    The colour of class ``i`` is ``(i * (2**25 - 1, 2**15 - 1, 2**21 - 1)) % 255``. The formula would give
    void (255) the colour of the background, so void has its Pascal VOC colour instead.
    """
    multipliers = np.array([2**25 - 1, 2**15 - 1, 2**21 - 1])
    colors: Palette = (np.arange(256)[:, None] * multipliers % 255).astype(np.uint8)
    colors[VOID_INDEX] = voc()[VOID_INDEX]
    return colors


BUILT_IN = {"hub": hub, "voc": voc}


def load(name: str, classes: int | None = None) -> Palette:
    """Return a palette by name, or from a JSON file.

    Parameters
    ----------
    name
        ``hub``, ``voc``, or the path of a JSON file: a list of ``[r, g, b]`` (0 to 255) in class order.
        Classes beyond the list have the colours of ``voc``.
    classes
        The number of classes that need a colour; None skips the check.

    Raises
    ------
    RequestError
        The file cannot be read, is not such a list, or is too short.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    try:
        given = json.loads(Path(name).read_text(encoding="utf-8"))
        colors = np.array(given, dtype=np.int64)
    except FileNotFoundError:
        raise RequestError(
            f"--palette {name}: no such palette; use {', '.join(BUILT_IN)} or the path of a JSON file"
        ) from None
    except OSError as error:
        raise RequestError(f"--palette {name}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, OverflowError):
        raise RequestError(f"--palette {name}: not a JSON list of [r, g, b] triples") from None
    if colors.ndim != 2 or colors.shape[1] != 3 or not 1 <= len(colors) <= 256:
        raise RequestError(f"--palette {name}: needs 1 to 256 [r, g, b] triples, has shape {colors.shape}")
    if colors.min() < 0 or colors.max() > 255:
        raise RequestError(f"--palette {name}: colour values must be from 0 to 255")
    if classes is not None and len(colors) < classes:
        raise RequestError(
            f"--palette {name}: has {counted(len(colors), 'colour')}, the network has {classes} classes"
        )
    palette = voc()
    palette[: len(colors)] = colors
    return palette
