"""Photos of Python users: paths, Pillow images, arrays, bytes and open files."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common.errors import FailureKind, ImageError
from ..common.redaction import public_url
from . import decoder, resizing, workers
from .decode_options import ONE_SCALE
from .samples import BY_THE_FILE, Rendering

Photo: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | BinaryIO | Image.Image | NDArray[np.uint8]"
"""A photo to segment: a path, an encoded image as bytes or in an open binary file, a Pillow image, or RGB
pixels as uint8 of shape (height, width, 3)."""


class Upright(NamedTuple):
    """An upright RGB image, and notes on its decoding."""

    image: Image.Image
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo, and its pixels at the size of the network's input: uint8, shape (h, w, 3).

    With several sizes `pixels` is the largest, and `smaller` has the others, in descending order. `source`
    is from `source_of`.
    """

    source: str
    image: Image.Image
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...]
    smaller: tuple[NDArray[np.uint8], ...] = ()

    @property
    def nbytes(self) -> int:
        """The memory it takes in bytes; Pillow stores four bytes per pixel."""
        arrays = sum(part.nbytes for part in (self.pixels, *self.smaller))
        return 4 * self.image.width * self.image.height + arrays


def source_of(photo: Photo, place: int | None = None) -> str:
    """Return what a photo is called: its path, if it has one, or its place in a batch; else nothing."""
    named = photo if isinstance(photo, str | os.PathLike) else None
    for attribute in ("filename", "name"):
        # Of a Pillow image, and of an open file, which may have a number.
        named = named or getattr(photo, attribute, None)
    if isinstance(named, str | os.PathLike) and os.fspath(named):
        return public_url(os.fsdecode(named))
    return f"image {place}" if place is not None else ""


@contextlib.contextmanager
def naming(source: str) -> Iterator[None]:
    """Give the ImageError that is raised inside its source."""
    try:
        yield
    except ImageError as error:
        error.source = source
        raise


def take(photo: Photo, rendering: Rendering = BY_THE_FILE) -> Callable[[], Upright]:
    """Copy what the caller may change or close, and return a function that decodes the photo in any thread.

    Arrays and Pillow images are copied, and open files are read from their current position to the end: the
    caller may reuse the buffer for the next photo.

    Raises
    ------
    TypeError
        The object is not a photo.
    ImageError
        The photo cannot be read.
    """
    match photo:
        case Image.Image():
            image, notes = decoder.from_image(photo, rendering)
            own = Upright(image.copy() if image is photo else image, notes)
            return lambda: own
        case np.ndarray():
            own = Upright(_from_array(photo), ())
            return lambda: own
        case bytes() | bytearray():
            return _decoder(bytes(photo), rendering)
        case str() | os.PathLike():
            return lambda: Upright(*decoder.decode_here(photo, rendering=rendering)[:2])
    if not callable(getattr(photo, "read", None)):
        raise TypeError(
            "a photo is a path, bytes, an open binary file, a Pillow image or an array; "
            f"this is a {type(photo).__name__}"
        )
    return _decoder(_read(photo), rendering)


def prepare(
    source: str,
    decode: Callable[[], Upright],
    short_side: int | None,
    scales: Sequence[float] = ONE_SCALE,
) -> Prepared:
    """Decode a photo that `take` returned, and resize it for the network.

    Raises
    ------
    ImageError
        The photo cannot be decoded.
    """
    with naming(source):
        try:
            image, notes = decode()
            (pixels, *smaller), more = resizing.network_inputs(image, short_side, scales)
        except MemoryError:
            raise ImageError.of(workers.out_of_memory()) from None
    return Prepared(source, image, pixels, notes + more, tuple(smaller))


def _decoder(data: bytes, rendering: Rendering) -> Callable[[], Upright]:
    return lambda: Upright(*decoder.from_bytes(data, rendering))


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise TypeError(
            f"an array of shape {array.shape} and type {array.dtype}; RGB pixels must be uint8 of shape "
            "(height, width, 3)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _read(file: Any) -> bytes:
    data: object = None
    if not isinstance(file, io.TextIOBase):
        try:
            data = file.read()
        except (OSError, ValueError) as error:
            # ValueError: the file is closed.
            raise ImageError(FailureKind.UNREADABLE, f"cannot be read ({error})") from None
    if not isinstance(data, bytes):
        raise TypeError("a file opened in text mode; open it with mode 'rb'")
    return data
