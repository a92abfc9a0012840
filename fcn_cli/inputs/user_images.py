"""Images passed to the Python API: paths, Pillow images, arrays, bytes, files; decoded in threads."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common import resources
from ..common.errors import FailureKind, ImageError
from ..common.ordered_work import OrderedWork
from ..common.redaction import public_url
from . import decoder, formats, resizing
from .decode_options import ONE_SCALE, InputSize
from .no_data import NoData
from .samples import BY_THE_FILE, Rendering
from .shared_pixels import LOOK_AHEAD_BYTES, Pixels

_MAX_THREADS = 8

Outcome = TypeVar("Outcome")

ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | BinaryIO | Image.Image | NDArray[np.uint8]"
)
"""An image to segment: a path, an encoded image as bytes or in an open binary file, a Pillow image, or RGB
pixels as uint8 of shape (height, width, 3)."""


@dataclass(frozen=True, slots=True)
class UserImage:
    """An upright RGB image, and its pixels at the size of the network's input: uint8, shape (h, w, 3).

    With several sizes `pixels` is the largest, and `smaller` has the others, in descending order. `source` is
    its path, if it has one, or its place in a batch; else empty. `no_data` has its pixels that hold none.
    """

    source: str
    image: Image.Image
    pixels: Pixels
    notes: tuple[str, ...]
    smaller: tuple[Pixels, ...] = ()
    no_data: NoData | None = None

    @property
    def nbytes(self) -> int:
        """The memory it takes in bytes; Pillow stores four bytes per pixel."""
        arrays = sum(part.nbytes for part in (self.pixels, *self.smaller))
        return 4 * self.image.width * self.image.height + arrays


def detached(
    given: ImageLike,
    short_side: InputSize,
    scales: Sequence[float] = ONE_SCALE,
    rendering: Rendering = BY_THE_FILE,
    place: int | None = None,
) -> Callable[[], UserImage]:
    """Copy what the caller may change or close; return a function that decodes the image, for any thread.

    Arrays and Pillow images are copied, and open files are read from their current position to the end: the
    caller may reuse the buffer for the next image. `place` is the image's place in a batch.

    Raises
    ------
    TypeError
        The object is not an image.
    ImageError
        The image cannot be read; the function raises it when it cannot be decoded.
    """
    source = _source_of(given, place)
    with _naming(source):
        decode = _decoding(given, rendering)

    def decoded() -> UserImage:
        with _naming(source):
            try:
                decoded = decode()
                (pixels, *smaller), more = resizing.network_inputs(decoded.image, short_side, scales)
            except MemoryError:
                raise ImageError.of(formats.out_of_memory()) from None
        notes = decoded.notes + more
        return UserImage(source, decoded.image, pixels, notes, tuple(smaller), decoded.no_data)

    return decoded


def _source_of(given: ImageLike, place: int | None) -> str:
    named = given if isinstance(given, str | os.PathLike) else None
    for attribute in ("filename", "name"):
        # Of a Pillow image, and of an open file, which may have a number.
        named = named or getattr(given, attribute, None)
    if isinstance(named, str | os.PathLike) and os.fspath(named):
        return public_url(os.fsdecode(named))
    return f"image {place}" if place is not None else ""


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    """Give the ImageError that is raised inside its source."""
    try:
        yield
    except ImageError as error:
        error.source = source
        raise


def _decoding(given: ImageLike, rendering: Rendering) -> Callable[[], decoder.Decoded[Image.Image]]:
    match given:
        case Image.Image():
            decoded = decoder.from_image(given, rendering)
            own = decoded._replace(image=given.copy()) if decoded.image is given else decoded
            return lambda: own
        case np.ndarray():
            copied = decoder.Decoded(_from_array(given), ())
            return lambda: copied
        case bytes() | bytearray():
            return partial(decoder.from_bytes, bytes(given), rendering)
        case str() | os.PathLike():
            return lambda: decoder.decode_here(given, rendering=rendering)
    if not callable(getattr(given, "read", None)):
        raise TypeError(
            "an image is a path, bytes, an open binary file, a Pillow image or an array; "
            f"this is a {type(given).__name__}"
        )
    return partial(decoder.from_bytes, _read(given), rendering)


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


@dataclass(slots=True, eq=False)
class Entry(Generic[Outcome]):
    """An image in the window: `future` decodes it, `outcome` is its result or failure once that is known."""

    future: Future[UserImage] = field(init=False)
    outcome: Outcome | ImageError | None = None


class LookAhead(Generic[Outcome]):
    """A window of the next images, in order, with room to look for `batch_size` of one shape.

    All methods belong to one thread, which takes images from `given`, a bounded number ahead. Leaving the
    context ends the threads.
    """

    def __init__(
        self,
        given: Iterable[ImageLike],
        short_side: InputSize,
        scales: Sequence[float],
        batch_size: int,
        rendering: Rendering = BY_THE_FILE,
    ) -> None:
        self._given = iter(given)
        self._short_side = short_side
        self._scales = scales
        self._batch_size = batch_size
        self._rendering = rendering
        self._threads = min(resources.cpu_count(), _MAX_THREADS)
        self._max_count = 2 * batch_size + self._threads
        # `_fill` keeps the bounds: how many bytes an image holds is known only when it is decoded.
        self._work = OrderedWork[Entry[Outcome], UserImage](
            self._threads,
            "fcn-decode",
            max_bytes=LOOK_AHEAD_BYTES,
            max_count=self._max_count,
            low_priority=True,
        )
        self._taken = 0
        self._largest = 0
        self._exhausted = False
        self._broken: Exception | None = None

    def __enter__(self) -> LookAhead[Outcome]:
        return self

    def __exit__(self, *error: object) -> None:
        self._work.__exit__(*error)

    def first(self) -> Entry[Outcome] | None:
        """Return the first entry, with its image or its failure; None when there are no more images.

        Raises
        ------
        Exception
            The exception of the iterable of images, or the TypeError of something that is none, in its turn.
        """
        self._fill()
        if not len(self._work):
            if self._broken is not None:
                raise self._broken
            return None
        entry = self._work[0].key
        if entry.outcome is None:
            error = entry.future.exception()
            if isinstance(error, ImageError):
                entry.outcome = error
            elif error is not None:
                raise error
        return entry

    def like_first(self) -> list[Entry[Outcome]]:
        """Return the first entry, and the entries in the window that go into a batch with it."""
        shape = self._work[0].future.result().pixels.shape
        found: list[Entry[Outcome]] = []
        place = 0
        while place < len(self._work) and len(found) < self._batch_size:
            entry = self._work[place].key
            place += 1
            # Wait in order, so that the contents of a batch are not a matter of chance.
            if (
                entry.outcome is None
                and entry.future.exception() is None
                and entry.future.result().pixels.shape == shape
            ):
                found.append(entry)
            self._fill()
        return found

    def drop_first(self) -> None:
        """Go on to the next image."""
        self._work.take_oldest()

    def _fill(self) -> None:
        while not self._exhausted and len(self._work) < self._max_count and self._has_room():
            try:
                image = next(self._given)
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # noqa: BLE001 - the caller's own, which is raised in its turn
                self._exhausted, self._broken = True, error
            else:
                self._start(image)

    def _start(self, image: ImageLike) -> None:
        entry = Entry[Outcome]()
        place, self._taken = self._taken, self._taken + 1
        try:
            work = detached(image, self._short_side, self._scales, self._rendering, place)
        except (TypeError, ImageError) as error:
            entry.future = self._work.submit_result(entry, error)
        else:
            entry.future = self._work.submit(entry, work)

    def _has_room(self) -> bool:
        """Say whether there is memory for one more image; an unfinished one counts as the largest so far."""
        done = [task.future for task in self._work if task.future.done()]
        sizes = [future.result().nbytes for future in done if future.exception() is None]
        self._largest = max(self._largest, *sizes, 0)
        unfinished = len(self._work) - len(done)
        if not self._largest:
            return unfinished < self._threads
        return not len(self._work) or sum(sizes) + unfinished * self._largest < LOOK_AHEAD_BYTES
