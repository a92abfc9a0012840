"""Samples of more than 8 bits to RGB: shifted, scaled from their range, or stretched."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values: TypeAlias = NDArray[Any]

PART_PIXELS = 1 << 20
"""So many pixels are scaled at once: a whole image in float64 would take gigabytes."""

_KEPT_BYTES = 1 << 28
_LOW, _HIGH = 2, 98

# What programs write where there is no value and the file does not say which value that is.
_NO_VALUES = (-9999.0, -99999.0, -32768.0)


@dataclass(frozen=True)
class Rendering:
    """How an image's samples become RGB.

    With `stretch` samples of more than 8 bits are scaled from their 2nd to their 98th percentile. `alpha` is
    ``use``, ``ignore``, or None for what the file says. With `for_people` colours become sRGB by the image's
    ICC profile; networks were trained on pixels as they are stored.
    """

    stretch: bool = False
    alpha: str | None = None
    for_people: bool = False


BY_THE_FILE = Rendering()


@dataclass(frozen=True)
class Samples:
    """An image's samples as they are stored.

    `rows` yields arrays of shape (rows, width, bands) from top to bottom, as often as it is called: one band
    of grey or three of RGB, then perhaps `alpha` as the last. `bits` is their depth where they are unsigned
    and of at most 16 bits; else they are scaled from their range. `transparent` is the colour that a PNG
    leaves out; `no_data` the value that stands for none.
    """

    size: tuple[int, int]
    rows: Callable[[], Iterator[Values]]
    bits: int | None
    name: str
    alpha: bool = False
    premultiplied: bool = False
    white_is_zero: bool = False
    no_data: float | None = None
    transparent: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Range:
    """What samples are scaled from, the values among them that are no data, and what to say of it."""

    low: float
    high: float
    no_data: tuple[float, ...]
    note: str


def to_8_bits(samples: Samples, rendering: Rendering) -> tuple[Image.Image, tuple[str, ...]]:
    """Return samples as an image of mode L, RGB or RGBa, RGBA with alpha, and notes for the record."""
    parts: Iterable[Values] | None = None
    scale = None
    if samples.bits is None or (rendering.stretch and samples.bits > 8):
        parts = _kept(samples.rows())
        scale = _range(samples, rendering, parts if parts is not None else samples.rows())
    image: Image.Image | None = None
    top, greatest = 0, 0
    for part in _pieces(parts if parts is not None else samples.rows()):
        eight, most = _part_in_8_bits(samples, part, scale)
        greatest = max(greatest, most)
        piece = _image(samples, eight)
        image = image or Image.new(piece.mode, samples.size)
        image.paste(piece, (0, top))
        top += piece.height
    assert image is not None  # noqa: S101 - no image is empty
    return image, _notes(samples, scale, greatest)


def _notes(samples: Samples, scale: _Range | None, greatest: int) -> tuple[str, ...]:
    if scale is not None:
        return (scale.note,)
    assert samples.bits is not None  # noqa: S101 - or there is a range
    return dark_note(greatest, samples.bits)


def dark_note(greatest: int, bits: int) -> tuple[str, ...]:
    """Return a note where the uppermost bit of samples is never used: they may have fewer bits than that."""
    most = (1 << bits) - 1
    return (
        (f"dark: samples only reach {greatest} of {most}; --stretch brightens them",)
        if bits > 8 and greatest <= most // 2
        else ()
    )


def _part_in_8_bits(samples: Samples, part: Values, scale: _Range | None) -> tuple[NDArray[np.uint8], int]:
    """Return some rows in 8 bits, with alpha as the last band, and their greatest sample."""
    bands = part.shape[2]
    colours = part[..., : bands - samples.alpha]
    greatest = 0
    if scale is None:
        assert samples.bits is not None  # noqa: S101 - or there is a range
        eight = _upper_8_bits(colours, samples.bits)
        # Few images are so dark that all samples have to be looked at.
        greatest = int(eight.max()) << (samples.bits - 8)
        greatest = int(colours.max()) if dark_note(greatest, samples.bits) else greatest
        eight = 255 - eight if samples.white_is_zero else eight
    else:
        eight = _scaled(samples, colours, scale)
    more = []
    if samples.alpha:
        more = [_alpha_in_8_bits(part[..., -1:], samples.bits)]
    elif samples.transparent is not None:
        more = [
            np.where((colours == samples.transparent).all(axis=2, keepdims=True), 0, 255).astype(np.uint8)
        ]
    if more and eight.shape[2] == 1:
        eight = np.repeat(eight, 3, axis=2)
    return np.concatenate([eight, *more], axis=2) if more else eight, greatest


def _upper_8_bits(values: Values, bits: int) -> NDArray[np.uint8]:
    if bits == 16 and values.dtype.itemsize == 2 and values.flags.c_contiguous:
        is_little = values.dtype.newbyteorder("=") == values.dtype and sys.byteorder == "little"
        halves = values.view(np.uint8).reshape(*values.shape, 2)
        return np.ascontiguousarray(halves[..., int(is_little)])
    return (values >> (bits - 8)).astype(np.uint8)


def _scaled(samples: Samples, colours: Values, scale: _Range) -> NDArray[np.uint8]:
    # NumPy warns about a signalling NaN; values that are not finite are black anyway.
    with np.errstate(invalid="ignore"):
        values = colours.astype(np.float64)
        known = np.isfinite(values)
        for value in scale.no_data:
            known &= ~holds(colours, value)
        share = np.clip((values - scale.low) / ((scale.high - scale.low) or 1.0), 0, 1) * 255
        eight = np.rint(np.where(known, 255 - share if samples.white_is_zero else share, 0.0))
    return eight.astype(np.uint8)


def _alpha_in_8_bits(alpha: Values, bits: int | None) -> NDArray[np.uint8]:
    if bits is not None:
        return _upper_8_bits(alpha, bits)
    opaque = 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)
    return np.rint(np.clip(np.nan_to_num(alpha.astype(np.float64)) / opaque, 0, 1) * 255).astype(np.uint8)


def _image(samples: Samples, eight: NDArray[np.uint8]) -> Image.Image:
    if eight.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(eight[..., 0]))
    image = Image.fromarray(np.ascontiguousarray(eight))
    if samples.premultiplied:
        return Image.frombytes("RGBa", image.size, image.tobytes()).convert("RGBA")
    return image


def _range(samples: Samples, rendering: Rendering, parts: Iterable[Values]) -> _Range:
    """Return what to scale samples from; those that are no data do not count."""
    low, high, not_finite, absent = float("inf"), float("-inf"), 0, 0
    guessed: dict[float, int] = {}
    kept: list[Values] = []
    for part in _pieces(parts):
        values = part[..., : part.shape[2] - samples.alpha].reshape(-1)
        finite = values[np.isfinite(values)]
        not_finite += values.size - finite.size
        if samples.no_data is not None:
            is_absent = holds(finite, samples.no_data)
            absent += int(np.count_nonzero(is_absent))
            finite = finite[~is_absent]
        for value in _no_values(samples, finite.dtype):
            is_value = finite == value
            if count := int(np.count_nonzero(is_value)):
                guessed[value] = guessed.get(value, 0) + count
                finite = finite[~is_value]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        if rendering.stretch:
            kept.append(finite.astype(np.float32) if finite.dtype.itemsize > 4 else finite)
    # A value within the range of the others, or without others, is one like them.
    no_data = {value: count for value, count in guessed.items() if low <= high and not low <= value <= high}
    data = [value for value in guessed if value not in no_data]
    if low > high:
        low, high = (min(data), max(data)) if data else (0.0, 0.0)
    if rendering.stretch and any(each.size for each in kept):
        kept += [np.full(guessed[value], value, np.float32) for value in data]
        low, high = map(float, np.percentile(np.concatenate(kept), (_LOW, _HIGH), overwrite_input=True))
    if samples.no_data is not None:
        no_data[samples.no_data] = absent
    note = f"{samples.name} samples scaled from {low:g}..{high:g}"
    note += f", their percentiles {_LOW} and {_HIGH}" if rendering.stretch else ""
    if not_finite:
        note += f", {not_finite} that {'is' if not_finite == 1 else 'are'} not finite taken as black"
    note += "".join(f", {count} of {value:g} taken as no data" for value, count in no_data.items() if count)
    return _Range(low, high, tuple(no_data), note)


def holds(values: Values, no_data: float) -> NDArray[np.bool_]:
    """Say which values stand for no data: floats of either size to the precision of 32 bits, as in GDAL."""
    if values.dtype.kind != "f":
        return np.asarray(values == np.asarray(no_data).astype(values.dtype))
    if math.isnan(no_data):
        return np.asarray(np.isnan(values))
    if values.dtype.itemsize < np.dtype(np.float32).itemsize:
        # The value, or a sum, may be too large for float16.
        values = values.astype(np.float32)
    # A sum that overflows is infinite, and all that is finite is near the largest number then.
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.asarray(no_data).astype(values.dtype)
        near = np.abs(values - value) < 2 * np.finfo(np.float32).eps * np.abs(values + value)
    return np.asarray(near | (values == value))


def _no_values(samples: Samples, dtype: np.dtype[Any]) -> Iterable[float]:
    is_known = samples.no_data is not None and math.isfinite(samples.no_data)
    if is_known or dtype.kind == "u":
        return ()
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    low, high = float(limits.min), float(limits.max)
    return sorted(v for v in {*_NO_VALUES, *((low, high) if dtype.kind == "f" else ())} if low <= v <= high)


def _kept(rows: Iterator[Values]) -> list[Values] | None:
    """Return all rows where they take little memory; else they are read twice."""
    kept: list[Values] = []
    size = 0
    for part in rows:
        kept.append(part)
        size += part.nbytes
        if size > _KEPT_BYTES:
            return None
    return kept


def _pieces(parts: Iterable[Values]) -> Iterator[Values]:
    for part in parts:
        rows = max(1, PART_PIXELS // part.shape[1])
        for top in range(0, part.shape[0], rows):
            yield part[top : top + rows]


def of_image(image: Image.Image, bits: int | None, name: str, **details: Any) -> Samples:
    """Return the samples of a loaded Pillow image of one band."""
    dtype = np.uint16 if bits is not None else None

    def rows() -> Iterator[Values]:
        height = max(1, PART_PIXELS // image.width)
        for top in range(0, image.height, height):
            strip = np.asarray(image.crop((0, top, image.width, min(top + height, image.height))))
            values = np.clip(strip, 0, 65535).astype(dtype) if strip.dtype == np.int32 and dtype else strip
            yield values[..., None]

    return Samples(image.size, rows, bits, name, **details)


def of_halves(high: Image.Image, low: Image.Image, **details: Any) -> Samples:
    """Return the 16-bit samples of an image from two images, of their upper and of their lower 8 bits."""

    def rows() -> Iterator[Values]:
        height = max(1, PART_PIXELS // high.width)
        for top in range(0, high.height, height):
            box = (0, top, high.width, min(top + height, high.height))
            yield (np.asarray(high.crop(box)).astype(np.uint16) << 8) | np.asarray(low.crop(box))

    return Samples(high.size, rows, 16, "16-bit", alpha=high.mode == "RGBA", **details)
