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


BRIGHT_VOID = (224, 224, 224)
"""The colour of void in the palette ``bright``."""

# RGB of the classes 0 to 254, which `python -m benchmarks.palettes --design 400` found.
_BRIGHT = (
    "000000ee22882255559977aa2288ff99ff00aaaa00885544eebb77ff88998811ffaa770077996622ccaaffccff445500"
    "008877991155444488cceebbaaaaffbb0022cc99bbee33ddeeee88aa44aaaa556688bbdd99884444aaaa3333ccbbaa77"
    "aacc338877cccc779900ee99ee6655991133bb5533ffaaccdd9955774477227755dd225599ddbb774444bb88cc7755cc"
    "88ffee77dddd8833aa667733ff220099668877aa88ddbbffdd777777ee55994466ddaaaacc5599559988cc55ff664433"
    "994433665588bb88ffbb4477aa66665500eebb11cc99ffaa3399bbaa0000882266889933ff11bb66445500dd66bb6677"
    "bb440066bb9977ccbb0077aaaa33ff8811887711aaff88ccff5588bbbb8888559944bb669955558844221188bbff8800"
    "00aa77ffaa11448844ffcc99bb1166cc1199ff88ffccbb55ffbbcc88aaddeebbdd7788dd77ddaaaa1177cc7766119977"
    "bbeecc00bbee77cceeccdd0000bbbb3366ff00990066ff7788dd88dd88aa7777227799ee0055dd9900dddd77336677dd"
    "44eeee999955bb77ccdd4455bb88aa99aa44cc99ee335544cc8899aaeeaa226666557744eedd66aa338899229966bb55"
    "ff999999eedd9999dd22ffcc4455bbcc55ccdd77aacc4444ddee996622bbaa0044991111007711337777dd9999336622"
    "1166338877eeff99bbaa00bbcc6699dd44aabb22117744ee8855bbcc33ddeecc44cc66bbccaadd22cc6677bb88ff7744"
    "ccee4466cc880022ffee0066aa1166bb5588ffbb99aabb44dd447766dd7700ddbbdd88cccc5544cc77ee3355aaee3322"
    "882277dddd88aa66bb8888224466aaaabb77cc2255ccbbeeee77dd77eebbbbff55cc332288446666449933cccc008899"
    "ffaaaa44aa44dd1199ff8866aa55ccff11775588337733ccddaa3377aa668855eeaacc66bb77aa8866eedd77cc99ccff"
    "ff5566ffaa66dd887799bbeeaa11dd335577aa0033eeeeaabb223377229988eeffddcc8855eecccccc55bb8833aa77dd"
    "88ee7700995577992288ddeeaadd66993388bb66aa44cc00dd44994422ddbbddaa555522ddaa77aa44777722ee"
)


def bright() -> Palette:
    """Return colours that people tell apart on dark and light photos, colour-blind people too.

    The first 21 are chosen so that the nearest two differ most (CIEDE2000) in the worst of normal vision,
    protanopia, deuteranopia and tritanopia, and given to Pascal VOC's classes so that classes of one scene
    differ more. Each further colour differs most from those before it. Class 0 is black.
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
