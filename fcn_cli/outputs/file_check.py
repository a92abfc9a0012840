"""Check one output file against its record: its bytes, its pixels, its classes."""

from __future__ import annotations

import io
import stat
import zlib

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ..common import limits
from ..common.label_map import too_many_pixels
from ..common.output_layout import kind_of, label_kinds
from . import legend
from .looks import is_palette
from .output_store import LocalStore
from .record import Record
from .writers import has_legend

_MOST_BYTES = 2 << 30
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODES = {"masks": "L", "color": "P", "overlay": "RGB", "confidence": "L", "cutout": "RGBA"}
# `Record.mean_confidence` has four decimals.
_MEAN_SLACK = 1.01e-4


def find_damage(output: LocalStore, name: str, size: int, record: Record) -> str | None:
    """Return what is wrong with an output file, or None when it is as its record says.

    Every byte of a PNG counts, because all its chunks have checksums. JPEG has none: a flipped byte is found
    only when the file no longer decodes.

    Parameters
    ----------
    output
        The output directory.
    name, size
        The file's path relative to it, and its size in bytes, as recorded.
    record
        The record that names the file.
    """
    try:
        status = output.safe_path(name).lstat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size != size:
            return f"{status.st_size} bytes, its record says {size}"
        # A record may claim any size; what is larger is damaged, whatever it is.
        data = (output / name).read_small(min(_MOST_BYTES, limits.most_bytes(_pixels(record))))
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error.strerror if isinstance(error, OSError) else error})"
    if name.endswith(".png") and (damage := _png_damage(data)):
        return damage
    try:
        return _pixel_damage(data, kind_of(name), record)
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
        return f"cannot be decoded ({error})"


def _pixels(record: Record) -> int:
    return (record.width or 0) * (record.height or 0)


def _png_damage(data: bytes) -> str | None:
    """Check the signature and the CRC of every chunk; Pillow checks only those before the pixels."""
    if not data.startswith(_PNG_SIGNATURE):
        return "not a PNG file"
    place = len(_PNG_SIGNATURE)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(data):
            return f"damaged: the PNG chunk at byte {place} is cut off"
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return f"damaged: the checksum of the PNG chunk at byte {place} does not match"
        if data[place + 4 : place + 8] == b"IEND":
            return (
                None if end + 4 == len(data) else f"damaged: data after the end of the PNG at byte {end + 4}"
            )
        place = end + 4
    return "damaged: the PNG has no end"


def _pixel_damage(data: bytes, kind: str, record: Record) -> str | None:
    # Without Pillow's own limit on pixels, which `Image.open` applies.
    with (PngImageFile if data.startswith(_PNG_SIGNATURE) else JpegImageFile)(io.BytesIO(data)) as image:
        # Checked before anything is decoded: a damaged header may ask for any amount of memory.
        if not _has_right_size(image, kind, record):
            return f"{image.width}x{image.height} pixels, its record says {record.width}x{record.height}"
        if problem := too_many_pixels(image.size):
            return problem
        if image.mode != _MODES.get(kind, image.mode):
            return f"{image.mode} pixels, {kind} has {_MODES[kind]}"
        image.load()
        if image.mode == "P" and (damage := _palette_damage(image, record.looks.get(kind))):
            return damage
        if kind in label_kinds():
            found = {index: count for index, count in enumerate(image.histogram()) if count}
            return None if found == record.classes else _class_damage(found, record.classes or {})
        if kind == "confidence" and record.mean_confidence is not None:
            total = sum(value * count for value, count in enumerate(image.histogram()))
            mean = total / 255 / (image.width * image.height)
            if abs(mean - record.mean_confidence) > _MEAN_SLACK:
                return f"mean confidence {mean:.4f}, its record says {record.mean_confidence:.4f}"
    return None


def _palette_damage(image: Image.Image, look: str | None) -> str | None:
    if look is None or is_palette(look, bytes(image.getpalette("RGB") or ())):
        return None
    return f"the colours are not those of the palette {look} that its record names"


def _has_right_size(image: Image.Image, kind: str, record: Record) -> bool:
    if has_legend(record.looks.get(kind)) and record.width is not None and record.height is not None:
        # An image of nothing but background has none.
        most = legend.largest((record.width, record.height), len(record.classes or ()))
        return record.width <= image.width <= most[0] and record.height <= image.height <= most[1]
    return image.size == record.size


def _class_damage(found: dict[int, int], recorded: dict[int, int]) -> str:
    differing = sorted(index for index in {*found, *recorded} if found.get(index) != recorded.get(index))
    first = differing[0]
    more = f" (and {len(differing) - 1} more classes differ)" if len(differing) > 1 else ""
    return f"{found.get(first, 0)} pixels of class {first}, its record says {recorded.get(first, 0)}{more}"
