"""Images beside exported masks: upright JPEGs without metadata."""

from __future__ import annotations

import os
from pathlib import Path

from ...common import files, store_urls
from ...common.errors import FailureKind, ImageError, OutputLost
from ...common.label_map import most_pixels
from ...inputs import decoder, jpeg
from ...inputs.samples import Rendering
from ...outputs.record import Record

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_QUALITY = 95
_APP0, _APP14, _APP15, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"


def write_upright_jpeg(record: Record, target: Path, rendering: Rendering) -> None:
    """Write the image of a record as a JPEG that lies as its mask does, for those who may read the image.

    Of a JPEG in sRGB that needs no turning the pixels stay as they are coded; anything else is decoded.

    Raises
    ------
    ImageError
        The image is gone, has changed since it was segmented, or cannot be decoded.
    OutputLost
        The file cannot be written.
    """
    again = "segment it again"
    if store_urls.is_url(record.path):
        raise ImageError(FailureKind.NOT_FOUND, f"{record.path}: not on this machine")
    try:
        with open(files.open_regular(record.path, follow=True), "rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(len(_JPEG_SIGNATURE))
            if data == _JPEG_SIGNATURE:
                data += stream.read(status.st_size)
    except FileNotFoundError:
        raise ImageError(FailureKind.NOT_FOUND, f"{record.path}: the photo is gone") from None
    except files.UnfitFile:
        raise ImageError(FailureKind.NOT_A_FILE, f"{record.path}: not a regular file") from None
    except OSError as error:
        raise ImageError(
            FailureKind.UNREADABLE, f"{record.path}: cannot be read ({error.strerror})"
        ) from None
    if (status.st_size, status.st_mtime_ns) != (record.size_bytes, record.mtime_ns):
        raise ImageError(FailureKind.CHANGED, f"{record.path}: changed since it was segmented; {again}")
    measured = decoder.measure(record.path, most_pixels())
    if measured.size != record.size:
        raise ImageError(FailureKind.CHANGED, f"{record.path}: not of its mask's size; {again}")
    bare = without_metadata(data) if measured.turn == 1 and measured.is_srgb else None
    image = None if bare else decoder.decode_for_people(record.path, most_pixels(), rendering).image
    with OutputLost.when_refused(target), files.create(target, files.permissions_of(record.path)) as stream:
        if bare is not None:
            stream.write(bare)
        elif image is not None:
            # Comment and EXIF are those of the original's pixels.
            image.info.clear()
            image.save(stream, "JPEG", quality=_QUALITY, subsampling=0)


def without_metadata(data: bytes) -> bytes | None:
    """Return the coded pixels of a JPEG and what decodes them, or None where that cannot be told.

    What programs and cameras add goes: EXIF with its place and thumbnail, profiles, comments, further
    pictures and whatever stands behind the end.
    """
    if not data.startswith(_JPEG_SIGNATURE):
        return None
    parts, scan_end = [data[:2]], None
    try:
        for marker, start, end in jpeg.segments(data):
            begin = start - (2 if marker == jpeg.END else 4)
            if scan_end is not None:
                parts.append(data[scan_end:begin])
            scan_end = end if marker == jpeg.SCAN else None
            content = data[start:end]
            if marker == _APP0 and content.startswith(_JFIF) and len(parts) == 1:
                # Without its thumbnail.
                parts.append(b"\xff\xe0\x00\x10" + content[:12].ljust(12, b"\0") + b"\0\0")
            elif marker == _APP14 and content.startswith(_ADOBE):
                # It says whether colours are RGB, YCbCr, CMYK or YCCK.
                parts.append(b"\xff\xee\x00\x0e" + content[:12].ljust(12, b"\0"))
            elif not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
                parts.append(data[begin:end])
            if marker == jpeg.END:
                return b"".join(parts)
    except EOFError:
        return None
    return None
