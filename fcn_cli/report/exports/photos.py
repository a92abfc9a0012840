"""Photos beside exported masks: upright JPEGs, copied where they are such already."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from PIL import Image

from ...common import store_urls
from ...common.errors import FailureKind, ImageError, OutputLost
from ...common.label_map import most_pixels
from ...inputs import decoder
from ...inputs.samples import Rendering
from ...outputs.record import Record

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_QUALITY = 95


def write_upright_jpeg(record: Record, target: Path, rendering: Rendering) -> None:
    """Write the photo of a record as a JPEG that lies as its mask does.

    A JPEG that needs no turning is copied byte for byte; anything else is decoded as the network saw it.

    Raises
    ------
    ImageError
        The photo is gone, has changed since it was segmented, or cannot be decoded.
    OutputLost
        The file cannot be written.
    """
    again = "segment it again"
    if store_urls.is_url(record.path):
        raise ImageError(FailureKind.NOT_FOUND, f"{record.path}: not on this machine")
    try:
        status = os.stat(record.path)
        if not stat.S_ISREG(status.st_mode):
            # Reading a pipe would wait for ever.
            raise ImageError(FailureKind.NOT_A_FILE, f"{record.path}: not a regular file")
        with open(record.path, "rb") as stream:
            is_jpeg = stream.read(len(_JPEG_SIGNATURE)) == _JPEG_SIGNATURE
    except FileNotFoundError:
        raise ImageError(FailureKind.NOT_FOUND, f"{record.path}: the photo is gone") from None
    except OSError as error:
        raise ImageError(
            FailureKind.UNREADABLE, f"{record.path}: cannot be read ({error.strerror})"
        ) from None
    if (status.st_size, status.st_mtime_ns) != (record.size_bytes, record.mtime_ns):
        raise ImageError(FailureKind.CHANGED, f"{record.path}: changed since it was segmented; {again}")
    measured = decoder.measure(record.path, most_pixels())
    if measured.size != record.size:
        raise ImageError(FailureKind.CHANGED, f"{record.path}: not of its mask's size; {again}")
    if is_jpeg and measured.turn == 1:
        with OutputLost.when_refused(target):
            shutil.copyfile(record.path, target)
        return
    _save(decoder.decode(record.path, most_pixels(), rendering).image, target)


def _save(image: Image.Image, target: Path) -> None:
    # Colour profile, comment and EXIF are those of the original's pixels.
    image.info.clear()
    with OutputLost.when_refused(target):
        image.save(target, "JPEG", quality=_QUALITY, subsampling=0)
