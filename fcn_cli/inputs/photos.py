"""Photos as Python users have them: paths, Pillow images, arrays, bytes and open files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common.errors import FailureKind, ImageError
from . import decoder, resizing

Photo: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | BinaryIO | Image.Image | NDArray[np.uint8]"
"""What can be segmented: a path, an encoded image as bytes or in an open binary file, a Pillow image, or RGB
pixels as uint8 of shape (height, width, 3)."""


class Upright(NamedTuple):
    """An upright RGB image, and what was noticed on the way."""

    image: Image.Image
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo, and its pixels as the network is fed them: uint8, shape (h, w, 3)."""

    image: Image.Image
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """How much memory it takes; Pillow keeps four bytes for each pixel."""
        return 4 * self.image.width * self.image.height + self.pixels.nbytes


def take(photo: Photo) -> Callable[[], Upright]:
    """Take what may change or be closed later, and return what decodes it, in any thread.

    An array and a Pillow image are copied here, and an open file is read, from where it is to its end: the
    caller may use the same buffer for the next photo.

    Raises
    ------
    TypeError
        It is nothing that can be segmented.
    ImageError
        It cannot be read.
    """
    match photo:
        case Image.Image():
            image, notes = decoder.from_image(photo)
            own = Upright(image.copy() if image is photo else image, notes)
            return lambda: own
        case np.ndarray():
            own = Upright(_from_array(photo), ())
            return lambda: own
        case bytes() | bytearray():
            return _decoder(bytes(photo))
        case str() | os.PathLike():
            return lambda: Upright(*decoder.decode(photo)[:2])
    if not callable(getattr(photo, "read", None)):
        raise TypeError(
            "a photo is a path, bytes, an open binary file, a Pillow image or an array; "
            f"this is a {type(photo).__name__}"
        )
    return _decoder(_read(photo))


def prepare(decode: Callable[[], Upright], short_side: int | None) -> Prepared:
    """Decode a photo that was taken, and resize it for the network.

    Raises
    ------
    ImageError
        It cannot be decoded.
    """
    try:
        image, notes = decode()
        pixels, more = resizing.network_input(image, short_side)
    except MemoryError:
        raise ImageError(FailureKind.OUT_OF_MEMORY, "not enough memory to decode it") from None
    return Prepared(image, pixels, notes + more)


def _decoder(data: bytes) -> Callable[[], Upright]:
    return lambda: Upright(*decoder.from_bytes(data))


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise TypeError(
            f"an array of shape {array.shape} and type {array.dtype}; RGB pixels are uint8 of shape "
            "(height, width, 3)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _read(file: Any) -> bytes:
    data: object = None
    if not isinstance(file, io.TextIOBase):
        try:
            data = file.read()
        except (OSError, ValueError) as error:
            # ValueError: it is closed.
            raise ImageError(FailureKind.UNREADABLE, f"cannot be read ({error})") from None
    if not isinstance(data, bytes):
        raise TypeError("a file that is open for text; open it with mode 'rb'")
    return data
