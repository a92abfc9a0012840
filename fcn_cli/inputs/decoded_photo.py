"""A photo as the network takes it: decoded, upright and resized, or the reason why it cannot be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common.errors import Failure, FailureKind, ImageError
from . import decoder, exif, resizing, workers
from .decode_options import ONE_SCALE
from .decoder import LargeTiff
from .discovery import Source
from .samples import BY_THE_FILE, Rendering
from .shared_pixels import Allocate, in_memory


@dataclass(slots=True)
class DecodedPhoto:
    """One photo, ready for the network, or the reason why it is not.

    `pixels` is uint8, shape (h, w, 3), at the network's input size; with several sizes it is the largest,
    and `smaller` has the others, in descending order. `width` and `height` are the photo's own: of the
    upright photo, or with `stored` of the photo as stored in the file. `size_bytes`, `mtime_ns` and `etag`
    are those of the file that was decoded, `content` is the hash of its bytes (see `file_content`), or None
    where it is not known. `turn` is its EXIF orientation, 1 for an upright photo.
    """

    source: Source
    pixels: NDArray[np.uint8] | None = None
    width: int = 0
    height: int = 0
    size_bytes: int | None = None
    mtime_ns: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
    turn: int = 1
    stored: bool = False
    smaller: tuple[NDArray[np.uint8], ...] = ()
    etag: str | None = None
    content: str | None = None

    @property
    def nbytes(self) -> int:
        """The size of all pixels in bytes."""
        return sum(part.nbytes for part in (self.pixels, *self.smaller) if part is not None)


Orient = Callable[[Source, tuple[int, int], int], bool]
"""Takes a photo, its upright (width, height) and its EXIF orientation; returns whether to take it as stored.

Raises ImageError when the photo fits neither way. It is sent to the workers, so it must be picklable."""


@dataclass(frozen=True)
class DecodeSettings:
    """How photos are decoded (see `decoder`); decoding one photo may take `seconds`.

    Without `orient` every photo is taken upright. With `measure_only` only sizes and orientations are read:
    pixels are neither decoded nor returned. With `refuse_changed` a photo fails as `FailureKind.CHANGED` when
    its file, before or after it is decoded, has not the size and mtime that its source has.
    """

    short_side: int | None
    max_pixels: int = decoder.DEFAULT_MAX_PIXELS
    seconds: float = 60.0
    orient: Orient | None = None
    measure_only: bool = False
    scales: tuple[float, ...] = ONE_SCALE
    refuse_changed: bool = False
    rendering: Rendering = BY_THE_FILE


class _Made(NamedTuple):
    """What is made of an image: its size, its pixels at the network's sizes, whether it is as stored."""

    size: tuple[int, int]
    pixels: list[NDArray[np.uint8]]
    notes: tuple[str, ...]
    stored: bool


def decode_photo(
    source: Source,
    settings: DecodeSettings,
    allocate: Allocate = in_memory,
    begin: Callable[[int], None] | None = None,
) -> DecodedPhoto:
    """Decode and resize one photo; a failure is part of the result and is never raised.

    `allocate` makes the arrays; `begin` is told the number of pixels before they are decoded.
    """
    hashes: list[str] = []
    photo = _decode_photo(source, settings, allocate, begin, hashes.append)
    if hashes and _is_still(source.path, photo.size_bytes, photo.mtime_ns):
        photo.content = hashes[0]
    if settings.refuse_changed and _has_changed(source, photo):
        # Whatever was decoded, or failed to be, may be half of one version of the file and half of another.
        return failed(source, Failure(FailureKind.CHANGED, "the file changed while it was being read"))
    return photo


def _has_changed(source: Source, photo: DecodedPhoto) -> bool:
    expected = (source.size_bytes, source.mtime_ns)
    if source.size_bytes is None or (photo.size_bytes, photo.mtime_ns) != expected:
        return source.size_bytes is not None
    return not _is_still(source.path, *expected)


def _is_still(path: str, size_bytes: int | None, mtime_ns: int | None) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size_bytes, mtime_ns)


def _decode_photo(
    source: Source,
    settings: DecodeSettings,
    allocate: Allocate,
    begin: Callable[[int], None] | None,
    hashed: Callable[[str], None],
) -> DecodedPhoto:
    if source.problem is not None:
        return failed(source, source.problem)
    started = time.perf_counter()

    def make(image: Image.Image | LargeTiff, turn: int) -> _Made:
        stored = _is_stored(source, image.size, turn, settings)
        if stored and isinstance(image, Image.Image):
            image = exif.as_stored(image, turn)
        pixels, notes = resizing.network_inputs(image, settings.short_side, settings.scales, allocate)
        return _Made(image.size, pixels, notes, stored)

    try:
        if settings.measure_only:
            return _measured(source, settings)
        decoded = decoder.decode_with(
            source.path, settings.max_pixels, make, begin, hashed, settings.rendering
        )
    except ImageError as error:
        return failed(source, error.failure)
    except MemoryError:
        return failed(source, workers.out_of_memory())
    made = decoded.image
    return DecodedPhoto(
        source,
        made.pixels[0],
        *made.size,
        size_bytes=decoded.size_bytes,
        mtime_ns=decoded.mtime_ns,
        seconds=time.perf_counter() - started,
        notes=decoded.notes + made.notes,
        turn=decoded.turn,
        stored=made.stored,
        smaller=tuple(made.pixels[1:]),
        etag=decoded.etag,
    )


def _measured(source: Source, settings: DecodeSettings) -> DecodedPhoto:
    size, turn, _ = decoder.measure_here(source.path, settings.max_pixels)
    stored = _is_stored(source, size, turn, settings)
    width, height = exif.turned_size(size, turn) if stored else size
    return DecodedPhoto(source, width=width, height=height, turn=turn, stored=stored)


def _is_stored(source: Source, upright: tuple[int, int], turn: int, settings: DecodeSettings) -> bool:
    return settings.orient is not None and settings.orient(source, upright, turn)


def failed(source: Source, failure: Failure) -> DecodedPhoto:
    """Return a photo that cannot be decoded."""
    size, mtime = source.size_bytes, source.mtime_ns
    return DecodedPhoto(source, size_bytes=size, mtime_ns=mtime, failure=failure, etag=source.etag)
