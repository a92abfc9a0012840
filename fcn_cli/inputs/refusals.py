"""Convert the exceptions of decoders to failures of one image."""

from __future__ import annotations

import errno
import os
import re
import struct
from typing import NoReturn

from PIL import Image, UnidentifiedImageError

from ..common.errors import FailureKind, ImageError
from ..common.wording import counted
from . import formats

_TOO_SHORT = re.compile(r"truncated|not enough image data|unexpected end of file", re.IGNORECASE)


def refuse(error: Exception, path: str | os.PathLike[str], max_pixels: int) -> NoReturn:
    """Raise the ImageError for an exception that was raised while an image was opened or decoded."""
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case FileNotFoundError():
            kind, message = FailureKind.NOT_FOUND, "no such file (or a broken link)"
        case UnidentifiedImageError():
            reason = formats.why_not(path)
            kind = FailureKind.NOT_AN_IMAGE
            message = f"not an image in a supported format or variant{f' ({reason})' if reason else ''}"
        case Image.DecompressionBombError():
            claimed = re.search(r"\d+ pixels", text)
            refuse_pixels(claimed[0] if claimed else "an image in the file", max_pixels)
        case MemoryError():
            kind, message = FailureKind.OUT_OF_MEMORY, "not enough memory to decode it"
        case OSError(errno=errno.EINVAL, filename=None):
            # A decoder has tried to seek to before the beginning of a short file.
            kind, message = FailureKind.TRUNCATED, "the file ends too early"
        case OSError(errno=int()):
            kind, message = FailureKind.UNREADABLE, f"cannot be read ({error.strerror})"
        case _ if _TOO_SHORT.search(text) or isinstance(error, EOFError | struct.error | IndexError):
            kind, message = FailureKind.TRUNCATED, f"the file ends too early ({text})"
        case _:
            kind, message = FailureKind.BROKEN, f"cannot be decoded ({text})"
    raise ImageError(kind, message) from error


def refuse_pixels(size: str, max_pixels: int) -> NoReturn:
    """Raise the ImageError for an image with too many pixels."""
    raise ImageError(
        FailureKind.TOO_MANY_PIXELS,
        f"{size} is more than {counted(max_pixels, 'pixel')}; if that is intended, raise --max-image-pixels",
        max_pixels,
    )
