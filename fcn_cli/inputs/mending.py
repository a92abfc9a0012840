"""Tolerated defects: a JPEG without its end marker, a PNG with a broken ancillary chunk."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections import Counter
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageChops, PngImagePlugin

from ..common.errors import FailureKind, ImageError
from . import jpeg

_LARGEST_FILE = 128 << 20
"""Larger files stay as they are: they are mended in memory."""

_PNG = b"\x89PNG\r\n\x1a\n"
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})

_JPEG = b"\xff\xd8\xff"
_END_OF_IMAGE = b"\xff\xd9"
_NO_END = "no end-of-image marker; every pixel is there"
_CONTINUATIONS = 8
_FILLING = 8
"""Fewer zeros at the end may be an image's own."""


class Mended(NamedTuple):
    """A file without its defect, and what the record says of it."""

    file: BinaryIO
    note: str


def mend(file: BinaryIO) -> Mended | None:
    """Return a file that could not be decoded without its defect, or None where it has none of these."""
    file.seek(0)
    data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        return None
    try:
        return _mended(data)
    except Exception:  # noqa: BLE001 - more is broken, and the first error says it best
        return None


def notes_on(file: BinaryIO, image_format: str | None) -> tuple[str, ...]:
    """Return a note on a JPEG without its end marker that could be decoded as it is.

    Raises ImageError where some pixels are not there: something else is in their place, such as zeros where
    an upload was cut off.
    """
    if image_format not in {"JPEG", "MPO"}:
        return ()
    file.seek(-len(_END_OF_IMAGE), io.SEEK_END)
    if file.read() == _END_OF_IMAGE:
        return ()
    file.seek(0)
    data = file.read(_LARGEST_FILE + 1)
    try:
        # Cameras and phones put data of their own after the end.
        if len(data) > _LARGEST_FILE or any(marker == jpeg.END for marker, *_ in jpeg.segments(data)):
            return ()
        is_whole = _is_whole(data)
    except Exception:  # noqa: BLE001 - of a kind that nothing here knows, and it could be decoded
        return ()
    if not is_whole:
        # Of this kind, so that nobody tries to mend it, which asks the same again.
        text = "the file ends too early (image file is truncated (its last bytes are no pixels))"
        raise ImageError(FailureKind.TRUNCATED, text)
    return (_NO_END,)


def _mended(data: bytes) -> Mended | None:
    if data.startswith(_PNG):
        return _png_without_broken_chunks(data)
    if data.startswith(_JPEG) and _is_whole(data):
        return Mended(io.BytesIO(data + _END_OF_IMAGE), _NO_END)
    return None


def _is_whole(data: bytes) -> bool:
    """Say whether every pixel of a JPEG without its end marker is there."""
    return _has_all_scans(data) and _has_all_pixels(data)


def _has_all_scans(data: bytes) -> bool:
    """Say whether a JPEG's scans have each coefficient to its last bit; see ITU-T T.81, G.1."""
    missing: dict[int, list[int]] = {}
    progressive = False
    for marker, start, end in jpeg.segments(data):
        segment = data[start:end]
        if marker in jpeg.FRAMES:
            progressive = marker in jpeg.PROGRESSIVE
            missing = {segment[6 + 3 * index]: [1] * 64 for index in range(segment[5])}
        elif marker == jpeg.SCAN:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            sent = slice(first, last + 1) if progressive else slice(64)
            for component in segment[1 : 1 + 2 * count : 2]:
                coefficients = missing[component]
                coefficients[sent] = [bits & 15 if progressive else 0] * len(coefficients[sent])
    return bool(missing) and not any(any(bits) for bits in missing.values())


def _has_all_pixels(data: bytes) -> bool:
    """Say whether what might follow a JPEG's last byte makes no difference to it.

    Where data end too early libjpeg fills in, with a warning that Pillow does not pass on.
    """
    chance = random.Random(len(data))  # noqa: S311 - the same file is always judged alike
    # White hides what is added to it, and a coarse edge what is added to that: so also without averages.
    for factors in ((1, 1), (0, 1), (0, 4)):
        likeness = _without_filling(_requantized(data, *factors))
        image = _decoded(likeness + _END_OF_IMAGE)
        for first in range(_CONTINUATIONS):
            continued = _continuation(first, chance) + _END_OF_IMAGE
            if ImageChops.difference(image, _decoded(likeness + continued)).getbbox() is not None:
                return False
    return True


def _without_filling(data: bytes) -> bytes:
    """Return a JPEG without what fills the place of bytes that never came."""
    shorter = data.rstrip(b"\0")
    return (shorter if len(data) - len(shorter) >= _FILLING else data).rstrip(b"\xff")


def _continuation(first: int, chance: random.Random) -> bytes:
    """Return random entropy-coded data that begin with any 3 bits, then with each of the restarts."""
    restarts = [b"", *(bytes([0xFF, 0xD0 + (first + number) % 8]) for number in range(8))]
    return b"".join(
        restart + bytes([32 * first + chance.randrange(31), *(chance.randrange(255) for _ in range(31))])
        for restart in restarts
    )


def _requantized(data: bytes, average: int, rest: int) -> bytes:
    """Return a JPEG with its quantizers multiplied: that of each block's average, and the rest."""
    changed = bytearray(data)
    for marker, place, end in jpeg.segments(data):
        while marker == jpeg.QUANTIZERS and place < end:
            size = 2 if data[place] >> 4 else 1
            table = data[place + 1 : place + 1 + 64 * size]
            values = [int.from_bytes(table[at : at + size]) for at in range(0, 64 * size, size)]
            largest = (1 << 8 * size) - 1
            values = [average * values[0], *(min(rest * value, largest) for value in values[1:])]
            changed[place + 1 : place + 1 + 64 * size] = b"".join(value.to_bytes(size) for value in values)
            place += 1 + 64 * size
    return bytes(changed)


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
        opened.load()
        return opened


def _png_without_broken_chunks(data: bytes) -> Mended | None:
    """Leave out the ancillary chunks that have another checksum, or that Pillow refuses.

    A checksum that is wrong in a critical chunk (a capital first letter) is left as it is.
    """
    stream = PngImagePlugin.PngStream(io.BytesIO(data))
    chunks: list[tuple[bytes, bytes]] = []
    broken: Counter[bytes] = Counter()
    place = len(_PNG)
    while place + 12 <= len(data):
        (size,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        end = place + 12 + size
        if end > len(data) or not kind.isalpha():
            # What follows cannot be told from damage.
            chunks.append((b"IDAT", data[place:]))
            break
        whole = zlib.crc32(data[place + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        is_ancillary = kind[:1].islower()
        if (not is_ancillary or whole) and (kind == b"IHDR" or is_ancillary):
            whole = _is_taken(stream, kind, place + 8, size) or not is_ancillary
        if is_ancillary and not whole:
            broken[kind] += 1
        else:
            chunks.append((kind, data[place:end]))
        place = end
    if not broken:
        return None
    if _ANIMATION & broken.keys():
        # Its frames are numbered; without one of them there is the still picture.
        chunks = [(kind, chunk) for kind, chunk in chunks if kind not in _ANIMATION]
    names = ", ".join(kind.decode() for kind in broken)
    note = f"broken or oversized {'chunk' if broken.total() == 1 else 'chunks'} ignored ({names})"
    return Mended(io.BytesIO(_PNG + b"".join(chunk for _, chunk in chunks)), note)


def _is_taken(stream: PngImagePlugin.PngStream, kind: bytes, place: int, size: int) -> bool:
    assert stream.fp is not None  # noqa: S101 - it is not closed
    stream.fp.seek(place)
    try:
        stream.call(kind, place, size)
    except (AttributeError, EOFError):
        # Unknown to Pillow, or a frame of an animation.
        return True
    except Exception:  # noqa: BLE001 - Pillow raises anything on broken data
        return False
    return True
