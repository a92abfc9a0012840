"""Colour palettes: an RGB colour for each of the 256 label map values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import files
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


BRIGHT_VOID = (224, 224, 224)
"""The colour of void in the palette ``bright``."""

# RGB of the classes 0 to 254, which `python -m benchmarks.palettes --design 400` found.
_BRIGHT = (
    "0000000044ff99ccaacc88aaffccff007744aa7711ff777722ffaaffbb77aaaaffaaaa00669955ffee00aa2266bb0011"
    "66bbccaa00bb8877bb2288ffff0088bb5566ee33ee00998866dd0033ddddccaa55dd0044dd33aa77aa9900bb77aaff77"
    "994488cc88dd9955ccdd664499eecc338866bb4400aa88bb7733dd55aaaaee8899447722ddbbff77ffeeee99cc88dd99"
    "77ccbbcc6699cc8866dd9988ffdd55cc2277bb0044ffbbdd889900bb22997788ddaadd8888883366cceebb55990099ff"
    "aacc5555aa6666bb993377ffdd8844bb99bbcc55cc88ff99bb6666bb7788aabb33bb33bbeeaabb9966aa7755ee7777dd"
    "aaeebb44aaddcc2233eeaa88ff66aa00aa44dd3377dd5577dd7711992299ccaadddd66ccaa99eeaa446699ddccff77cc"
    "88ddeebb9955cc4422ffcc66cc445544885588cc66ff448844ee33cc6633aa442266eeaa88eeee77bbee88cc99cc7777"
    "eebb00aa33dd7744aaaa99ccff33bbff99eecc5588bbee8899bb66993377bb4444aa008877ddaa88ffcccc779999ee99"
    "ffaadd99aa779922ccdd88884466dd33aaffdddd779944aaee555577aa33dd99bbff99998888ee9911ee99dd5566dd77"
    "cc2266ee11667700eedd11cceeaa44aa225522ccaabb33558877ee99bbffbbbb77ff881155eeddbb44997744ffbb5533"
    "8855bb9988cccc3388bbff33bb6644ee88dd11994444bb11bbaa44ee55aa77cc88ee33aa88ddbb667700bb008888bb55"
    "aa3377aa77bbee0055cc00cc994499ccdd446644bbdd4488ff996699ffbbcc9977cc44bbcc33aaeeee66aa332200bbbb"
    "cc00ee66ccccdd44ffaa4477cc1155ee6677dd779933dd88aa77ddcccc7788aa44cc33ffffaaaacceeaaff6655cc5599"
    "77cc44ff33dd33bbff558844008833dd0000bb8822dd3333ffdd8888ee6600ddbb66aa559999ffff5599ff88aadd88bb"
    "77eeff88ff66887711ddee99ff2200cc33ddccee00dd4477ee7766aa11aa007711ddcc555544eeee5588cc1188ff77ee"
    "bb22449955eebbee55ee77ddaa3366ff77334466ff55bb668800ffaa8833dd990033aa99ddbb669900bb22aacc"
)


def bright() -> Palette:
    """Return colours that people tell apart on dark and light images, colour-blind people too.

    The first 21 are chosen so that the nearest two differ most (CIEDE2000) in the worst of normal vision,
    protanopia, deuteranopia and tritanopia. They are given to Pascal VOC's classes so that classes of one
    scene differ most, and people and animals from skin, fur and dark clothes. Each further colour differs
    most from those before it. Class 0 is black.
    """
    colors: Palette = np.empty((256, 3), dtype=np.uint8)
    colors[:VOID_INDEX] = np.frombuffer(bytes.fromhex(_BRIGHT), dtype=np.uint8).reshape(-1, 3)
    colors[VOID_INDEX] = BRIGHT_VOID
    return colors


BUILT_IN = {"hub": hub, "voc": voc, "bright": bright}


def load(name: str, classes: int | None = None) -> Palette:
    """Return a palette by name, or from a JSON file.

    Parameters
    ----------
    name
        ``hub``, ``voc``, ``bright``, or the path of a JSON file: a list of ``[r, g, b]`` (0 to 255) in class
        order. Classes beyond the list have the colours of ``voc``.
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
        given = files.read_small_json(Path(name), follow=True)
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
