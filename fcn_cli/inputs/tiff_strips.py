"""Decode a large TIFF a few rows at a time; Pillow needs four bytes per pixel for a compressed one.

Each part is handed to Pillow as a small TIFF of its own: the image's tags, with the compressed bytes of some
of its strips or tiles. So the pixels are Pillow's, whatever the compression.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from . import exif

LARGE_PIXELS = 1 << 25
"""A smaller image is decoded whole; Pillow takes at most 128 MiB for it."""

# Rows of about so many pixels are decoded at once.
_PART_PIXELS = 1 << 22
# One strip or row of tiles of more pixels is no better than the whole image.
_LARGEST_PART = 1 << 26

_WIDTH, _LENGTH, _COMPRESSION, _PLANES = 256, 257, 259, 284
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_BITS, _SAMPLES = 258, 277
_UNCOMPRESSED, _OLD_JPEG = 1, 6
_LONG = 4
# What says how pixels are to be read: bits, compression, photometric interpretation, fill order, samples,
# planes, predictor, colour map, extra samples, sample format, JPEG tables, and those of CMYK and YCbCr.
_PIXEL_TAGS = (258, 259, 262, 266, 277, 284, 317, 320, 332, 338, 339, 347, 529, 530, 531, 532)
# Samples of 32 bits are scaled from the extremes of the whole image.
_WHOLE_MODES = frozenset({"I", "F"})


class Part(NamedTuple):
    """Some bytes of the file that are a whole number of rows, as wide as the image or a tile."""

    offset: int
    size: int
    rows: int


class TiffStrips:
    """The rows of a large TIFF, opened by Pillow and not loaded, from top to bottom."""

    def __init__(self, opened: TiffImageFile) -> None:
        self._opened = opened
        self._tags = opened.tag_v2
        self.size: tuple[int, int] = opened.size
        self.mode = opened.mode
        self._is_tiled = _TILE_OFFSETS in self._tags
        self._tile_width = int(self._tags[_TILE_WIDTH]) if self._is_tiled else self.size[0]

    @classmethod
    def of(cls, opened: Image.Image) -> TiffStrips | None:
        """Return the strips of an image, or None where it is small or must be decoded whole."""
        width, height = opened.size
        if not isinstance(opened, TiffImageFile) or width * height < LARGE_PIXELS:
            return None
        tags = opened.tag_v2
        if (
            opened.mode in _WHOLE_MODES
            or tags.get(_PLANES, 1) != 1
            or tags.get(_COMPRESSION, _UNCOMPRESSED) == _OLD_JPEG
            or exif.tiff_turn(opened) != 1
            or getattr(opened, "_planar_configuration", 1) != 1
        ):
            return None
        strips = cls(opened)
        parts = strips._parts()
        if not parts or max(part.rows for part in parts) * width > _LARGEST_PART:
            return None
        return strips

    def rows(self) -> Iterator[Image.Image]:
        """Yield the rows, some at a time, in the image's own mode."""
        if self._is_tiled:
            yield from self._rows_of_tiles()
            return
        group: list[Part] = []
        for part in self._parts():
            if group and sum(each.rows for each in group) * self.size[0] >= _PART_PIXELS:
                yield self._decode(group)
                group = []
            group.append(part)
        if group:
            yield self._decode(group)

    def _rows_of_tiles(self) -> Iterator[Image.Image]:
        width, height = self.size
        parts = self._parts()
        across = -(-width // self._tile_width)
        top = 0
        for first in range(0, len(parts), across):
            rows = min(parts[first].rows, height - top)
            row = Image.new(self.mode, (width, rows))
            for column, part in enumerate(parts[first : first + across]):
                tile = self._decode([part])
                if tile.palette is not None:
                    row.putpalette(tile.palette)
                row.paste(tile, (column * self._tile_width, 0))
            yield row
            top += rows

    def _parts(self) -> list[Part]:
        """Return the strips, or the tiles row by row; long strips without compression are divided."""
        tags, (width, height) = self._tags, self.size
        offsets = tags.get(_TILE_OFFSETS if self._is_tiled else _STRIP_OFFSETS, ())
        sizes = tags.get(_TILE_BYTES if self._is_tiled else _STRIP_BYTES, ())
        rows = int(tags[_TILE_LENGTH] if self._is_tiled else tags.get(_ROWS_PER_STRIP, height))
        across = -(-width // self._tile_width)
        if rows < 1 or len(offsets) != len(sizes) or len(offsets) != across * -(-height // rows):
            return []
        if self._is_tiled:
            return [Part(offset, size, rows) for offset, size in zip(offsets, sizes, strict=True)]
        found = []
        for top, offset, size in zip(range(0, height, rows), offsets, sizes, strict=True):
            found += self._divided(Part(offset, size, min(rows, height - top)))
        return found

    def _divided(self, strip: Part) -> list[Part]:
        width = self.size[0]
        if self._tags.get(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED:
            return [strip]
        bits = self._tags.get(_BITS, (1,))
        per_row = -(-width * sum(bits if len(bits) > 1 else bits * self._tags.get(_SAMPLES, 1)) // 8)
        rows = max(1, _PART_PIXELS // width)
        return [
            Part(
                strip.offset + top * per_row,
                min(rows, strip.rows - top) * per_row,
                min(rows, strip.rows - top),
            )
            for top in range(0, strip.rows, rows)
        ]

    def _decode(self, parts: list[Part]) -> Image.Image:
        """Return consecutive strips, or one tile, as an image in the whole one's mode."""
        directory = ImageFileDirectory_v2(prefix=self._tags.prefix)
        for tag in _PIXEL_TAGS:
            if tag in self._tags:
                directory.tagtype[tag] = self._tags.tagtype[tag]
                directory[tag] = self._tags[tag]
        with TiffImagePlugin.TiffImageFile(
            small_tiff(self._opened.fp, parts, self._tile_width, directory)
        ) as image:
            image.load()
            return image


def small_tiff(
    file: IO[bytes] | None, parts: Sequence[Part], width: int, directory: ImageFileDirectory_v2
) -> io.BytesIO:
    """Return a TIFF of some parts of another: consecutive strips, or one tile.

    `directory` says how its pixels are to be read; the tags of its size and place are added to it.
    """
    data = [read_part(file, part) for part in parts]
    # Pillow adds the place where the data begin.
    offsets, place = [], 0
    for part in parts:
        offsets.append(place)
        place += part.size
    numbers: dict[int, int | tuple[int, ...]] = {
        _WIDTH: width,
        _LENGTH: sum(part.rows for part in parts),
        _ROWS_PER_STRIP: parts[0].rows,
        _STRIP_OFFSETS: tuple(offsets),
        _STRIP_BYTES: tuple(part.size for part in parts),
    }
    for tag, value in numbers.items():
        directory.tagtype[tag] = _LONG
        directory[tag] = value
    stream = io.BytesIO()
    directory.save(stream)
    stream.write(b"".join(data))
    stream.seek(0)
    return stream


def read_part(file: IO[bytes] | None, part: Part) -> bytes:
    """Return the bytes of a part as they are in the file; EOFError where it ends too early."""
    assert file is not None  # noqa: S101 - an image that is not loaded has its file
    file.seek(part.offset, os.SEEK_SET)
    data = file.read(part.size)
    if len(data) < part.size:
        raise EOFError("a strip of the TIFF is cut off")
    return data
