"""The image with the class colours over it, a border line between classes, and a legend below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common.class_names import class_name
from ..common.errors import FailureKind, ImageError
from ..common.label_map import VOID_INDEX, LabelMap, count_classes
from ..common.palettes import Palette
from . import legend
from .looks import CutoutStyle, Style

_STRIP_PIXELS = 4 << 20
# A line of one pixel on either side of a border for each so many pixels of the image's short side.
_SHORT_SIDE_PER_PIXEL = 600
_OUTSIDE, _INSIDE = (0, 0, 0), (255, 255, 255)

Mask = NDArray[np.bool_]


class Border(NamedTuple):
    """The pixels of a border line: on the side of the lower class index, and of the higher one."""

    outside: Mask
    inside: Mask


def colored(labels: LabelMap, palette: Palette) -> Image.Image:
    """Return a paletted ("P") image of a label map."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes(), "RGB")
    return image


def check_size(image: Image.Image, labels: LabelMap) -> None:
    """Raise ImageError unless an image has its label map's size."""
    if image.size != labels.shape[::-1]:
        raise ImageError(FailureKind.CHANGED, "the file changed while it was being segmented")


def overlay(image: Image.Image, labels: LabelMap, look: Style) -> Image.Image:
    """Return the RGB image with the class colours blended over all but the background.

    Between two classes runs an opaque line, black on the side of the lower class index and white on the
    other, so that it shows on any image. Void has no line of its own. A legend is added below the image, for
    all classes present but the background; it makes a narrow picture wider.

    Raises
    ------
    ImageError
        The image does not have the label map's size.
    """
    check_size(image, labels)
    entries = [
        legend.Entry(class_name(look.class_names, index), class_name((), index), look.color(index))
        for index, _ in sorted(count_classes(labels).items(), key=lambda item: -item[1])
        if index != look.background_class
    ]
    below = legend.draw(entries, image.size) if look.legend and entries else None
    width, height = (max(image.width, below.width), below.height) if below else (image.width, 0)
    # A new image: Pillow would write a copy's comment into the file.
    result = Image.new("RGB", (width, image.height + height), legend.PAPER)
    result.paste(image)
    if below:
        result.paste(below, (0, image.height))
    opacity = [0 if index == look.background_class else round(look.opacity * 255) for index in range(256)]
    for top, bottom in _strips(labels, 1):
        strip = labels[top:bottom]
        colors = colored(strip, look.palette).convert("RGB")
        result.paste(colors, (0, top), mask=Image.fromarray(strip).point(opacity))
    if look.borders:
        _draw_borders(result, labels)
    return result


def cutout(image: Image.Image, labels: LabelMap, style: CutoutStyle) -> Image.Image:
    """Return an RGB image with some classes kept: RGBA, or RGB on the style's background.

    The rest is transparent black, or the background. Void is never kept. An image of which nothing is kept
    is not cropped. Raises ImageError where the image does not have the label map's size.
    """
    check_size(image, labels)
    is_kept = np.isin(np.arange(256), list(style.keeps()))
    left, upper, right, lower = _box(labels, is_kept, style.crop)
    bits = (is_kept * 255).tolist()
    mode = "RGBA" if style.background is None else "RGB"
    result = Image.new(mode, (right - left, lower - upper), style.background or 0)
    for top, bottom in _strips(labels[upper:lower, left:right], 1):
        mask = Image.fromarray(labels[upper + top : upper + bottom, left:right]).point(bits, "1")
        strip = image.crop((left, upper + top, right, upper + bottom)).convert(mode)
        result.paste(strip, (0, top), mask=mask)
    return result


def _box(labels: LabelMap, is_kept: Mask, margin: int | None) -> tuple[int, int, int, int]:
    """Return left, upper, right and lower of the pixels that are kept and a margin; without one, of all."""
    height, width = labels.shape
    if margin is None:
        return 0, 0, width, height
    in_rows, in_columns = np.zeros(height, np.bool_), np.zeros(width, np.bool_)
    for top, bottom in _strips(labels, 1):
        kept = is_kept[labels[top:bottom]]
        in_rows[top:bottom] = kept.any(1)
        in_columns |= kept.any(0)
    rows, columns = np.flatnonzero(in_rows), np.flatnonzero(in_columns)
    if not len(rows):
        return 0, 0, width, height
    return (
        max(int(columns[0]) - margin, 0),
        max(int(rows[0]) - margin, 0),
        min(int(columns[-1]) + 1 + margin, width),
        min(int(rows[-1]) + 1 + margin, height),
    )


def line_width(width: int, height: int) -> int:
    """Return how many pixels wide the line is on either side of a border in an image of this size."""
    return max(1, round(min(width, height) / _SHORT_SIDE_PER_PIXEL))


def find_border(labels: LabelMap, radius: int) -> Border:
    """Return the pixels within `radius` rows and columns of a pixel of another class; void is no class.

    A pixel between a lower and a higher class is on the outside.
    """
    padded = np.pad(labels, radius, mode="edge")
    highest = _sliding(np.maximum, np.where(padded == VOID_INDEX, 0, padded), 2 * radius + 1)
    lowest = _sliding(np.minimum, padded, 2 * radius + 1)
    outside = highest > labels
    return Border(outside, (lowest < labels) & ~outside & (labels != VOID_INDEX))


def _draw_borders(image: Image.Image, labels: LabelMap) -> None:
    height, width = labels.shape
    radius = line_width(width, height)
    for top, bottom in _strips(labels, 4 * radius):
        # The rows around a strip decide too, as far as they exist.
        first, last = max(top - radius, 0), min(bottom + radius, height)
        seen = labels[first:last]
        if seen.min() == seen.max():
            continue
        for color, mask in zip((_OUTSIDE, _INSIDE), find_border(seen, radius), strict=True):
            # A mask of bits: one of bytes, which blends, takes eight times as long.
            part = Image.fromarray(mask[top - first : bottom - first])
            image.paste(color, (0, top, width, bottom), mask=part)


def _strips(labels: LabelMap, least_rows: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, end row) of strips that bound the memory for temporary images."""
    height, width = labels.shape
    rows = max(least_rows, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _sliding(
    reduce: Callable[[LabelMap, LabelMap], LabelMap], values: LabelMap, size: int
) -> NDArray[np.uint8]:
    """Reduce each window of size x size pixels, by rows, then by columns, in log2(size) steps each."""
    for _ in range(2):
        values, done = values.T, 1
        while done < size:
            step = min(done, size - done)
            values = reduce(values[:-step], values[step:])
            done += step
    return values
