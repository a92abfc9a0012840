"""Label maps as PNG files. Masks and colours differ only in a palette, so both share one compression.

A label map is runs of equal bytes: rows without a filter, and zlib's run-length strategy, are the fastest and
the smallest here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ..common.label_map import LabelMap

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTED = 0, 3
_STRIP_BYTES = 4 << 20
_LARGEST_CHUNK = 1 << 30
_LEVEL = 1
_LARGEST_WINDOW, _MOST_MEMORY = 15, 9


def compress(labels: LabelMap) -> bytes:
    """Return a label map as the compressed rows of a PNG with 8 bits a pixel."""
    height, width = labels.shape
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _LARGEST_WINDOW, _MOST_MEMORY, zlib.Z_RLE)
    rows_at_once = max(1, _STRIP_BYTES // (width + 1))
    parts = []
    for top in range(0, height, rows_at_once):
        strip = labels[top : top + rows_at_once]
        # Each row begins with its filter, 0 for none.
        rows = np.zeros((len(strip), width + 1), np.uint8)
        rows[:, 1:] = strip
        parts.append(compressor.compress(rows.data))
    parts.append(compressor.flush())
    return b"".join(parts)


def write(stream: BinaryIO, labels: LabelMap, compressed: bytes, palette: bytes | None = None) -> None:
    """Write a PNG of a label map; `compressed` is what `compress` returned for it.

    `palette` is RGB for each of 256 indices; without it the PNG is greyscale.
    """
    height, width = labels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if palette is None else _PALETTED, 0, 0, 0)
    stream.write(_SIGNATURE)
    for kind, data in _chunks(header, palette, compressed):
        stream.write(struct.pack(">I", len(data)) + kind)
        stream.write(data)
        stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _chunks(header: bytes, palette: bytes | None, compressed: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield b"IHDR", header
    if palette is not None:
        yield b"PLTE", palette
    for start in range(0, len(compressed), _LARGEST_CHUNK):
        yield b"IDAT", compressed[start : start + _LARGEST_CHUNK]
    yield b"IEND", b""
