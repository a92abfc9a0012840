"""TIFFs of any samples, written by hand: Pillow writes few kinds, and reads not many more."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tag = tuple[int, int, Sequence[int] | str]

_SHORT, _LONG, _ASCII = 3, 4, 2


def tag_bytes(order: str, kind: int, values: Sequence[int] | str) -> tuple[int, bytes]:
    """Return the number of values of a tag, and their bytes."""
    if isinstance(values, str):
        data = values.encode() + b"\0"
        return len(data), data
    return len(values), struct.pack(f"{order}{len(values)}{'H' if kind == _SHORT else 'I'}", *values)


def directory(order: str, place: int, tags: Sequence[Tag], following: int = 0) -> bytes:
    """Return a directory of tags that will be at a place in the file, and what does not fit into it."""
    more, entries = b"", b""
    after = place + 2 + 12 * len(tags) + 4
    for tag, kind, values in sorted(tags, key=lambda each: each[0]):
        count, data = tag_bytes(order, kind, values)
        if len(data) > 4:
            where = struct.pack(f"{order}I", after + len(more))
            more += data + bytes(len(data) % 2)
        else:
            where = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, count) + where
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + more


def header(order: str, first: int) -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", first)


def predicted(values: NDArray[Any], predictor: int) -> bytes:
    """Return samples of shape (rows, width, bands) in their own byte order, as differences."""
    size = values.dtype.itemsize
    native = values.astype(values.dtype.newbyteorder("="))
    if predictor == 2:
        whole = native.view(f"u{size}")
        whole[:, 1:] -= whole[:, :-1].copy()
        return whole.astype(np.dtype(f"{values.dtype.str[0]}u{size}")).tobytes()
    rows, width, bands = values.shape
    big = native.astype(native.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, width * bands, size)
    planes = big.transpose(0, 2, 1).reshape(rows, width * size, bands).copy()
    planes[:, 1:] -= planes[:, :-1].copy()
    return planes.tobytes()


def tiff(
    samples: NDArray[Any],
    photometric: int | None = 1,
    *,
    extra: Sequence[int] = (),
    order: str = "<",
    planar: int = 1,
    deflate: bool = False,
    predictor: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    tags: Sequence[Tag] = (),
) -> bytes:
    """Return a TIFF of samples of shape (height, width) or (height, width, bands)."""
    if samples.ndim == 2:
        samples = samples[..., None]
    height, width, bands = samples.shape
    stored = samples.astype(np.dtype(f"{order}{samples.dtype.str[1:]}"))
    planes = [stored[..., band : band + 1] for band in range(bands)] if planar == 2 else [stored]
    rows = rows or height
    blocks = []
    for plane in planes:
        down, across = tile or (rows, width)
        padded = np.pad(plane, ((0, -height % down if tile else 0), (0, -width % across), (0, 0)))
        for top in range(0, height, down):
            for left in range(0, width, across):
                block = np.ascontiguousarray(padded[top : top + down, left : left + across])
                data = block.tobytes() if predictor == 1 else predicted(block, predictor)
                blocks.append(zlib.compress(data) if deflate else data)
    places = [8 + sum(map(len, blocks[:number])) for number in range(len(blocks))]
    sizes = [len(block) for block in blocks]
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[samples.dtype.kind]
    all_tags: list[Tag] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8 * samples.dtype.itemsize] * bands),
        (259, _SHORT, [8 if deflate else 1]),
        (277, _SHORT, [bands]),
        (284, _SHORT, [planar]),
        (317, _SHORT, [predictor]),
        (339, _SHORT, [kind] * bands),
        *([(262, _SHORT, [photometric])] if photometric is not None else []),
        *([(338, _SHORT, extra)] if extra else []),
    ]
    if tile:
        all_tags += [
            (322, _LONG, [tile[1]]),
            (323, _LONG, [tile[0]]),
            (324, _LONG, places),
            (325, _LONG, sizes),
        ]
    else:
        all_tags += [(273, _LONG, places), (278, _LONG, [rows]), (279, _LONG, sizes)]
    replaced = {tag for tag, _, _ in tags}
    all_tags = [each for each in all_tags if each[0] not in replaced] + list(tags)
    data = b"".join(blocks) + bytes(sum(sizes) % 2)
    return header(order, 8 + len(data)) + data + directory(order, 8 + len(data), all_tags)


def no_data(value: str) -> Tag:
    """Return GDAL's tag for the value that stands for no data."""
    return (42113, _ASCII, value)


def with_image_after(first: bytes, second: bytes, *, below: bool, order: str = "<") -> bytes:
    """Return a TIFF with the image of a second one as the next of the first, or below it (SubIFDs)."""
    place = len(first) + len(first) % 2
    moved = _moved(second, place, order)
    first_directory = struct.unpack_from(f"{order}I", first, 4)[0]
    second_directory = place + struct.unpack_from(f"{order}I", second, 4)[0]
    start = first_directory
    count = struct.unpack_from(f"{order}H", first, start)[0]
    entries = first[start + 2 : start + 2 + 12 * count]
    added = struct.pack(f"{order}HHII", 330, _LONG, 1, second_directory) if below else b""
    whole = b"".join(
        sorted(
            [entries[at : at + 12] for at in range(0, len(entries), 12)] + ([added] if added else []),
            key=lambda entry: struct.unpack_from(f"{order}H", entry)[0],
        )
    )
    data = first + bytes(len(first) % 2) + moved
    data += bytes(len(data) % 2)
    at = len(data)
    data += struct.pack(f"{order}H", len(whole) // 12) + whole
    data += struct.pack(f"{order}I", 0 if below else second_directory)
    return data[:4] + struct.pack(f"{order}I", at) + data[8:]


def _moved(data: bytes, by: int, order: str) -> bytes:
    """Return a TIFF whose places are counted from so many bytes before it."""
    changed = bytearray(data)
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    for number in range(struct.unpack_from(f"{order}H", data, start)[0]):
        at = start + 2 + 12 * number
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, at)
        size = {_ASCII: 1, _SHORT: 2, _LONG: 4}[kind] * count
        value = struct.unpack_from(f"{order}I", data, at + 8)[0]
        if size > 4:
            struct.pack_into(f"{order}I", changed, at + 8, value + by)
            if tag in {273, 324}:
                for each in range(count):
                    where = value + 4 * each
                    struct.pack_into(
                        f"{order}I", changed, where, struct.unpack_from(f"{order}I", data, where)[0] + by
                    )
        elif tag in {273, 324}:
            struct.pack_into(f"{order}I", changed, at + 8, value + by)
    return bytes(changed)
