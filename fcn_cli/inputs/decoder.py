"""Decode image files to upright RGB, and to the network's input."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Generic, NamedTuple, TypeVar

from PIL import Image

from ..common import label_map, store_urls
from ..common.errors import Failure, FailureKind, ImageError
from . import exif, file_content, formats, mending, remote, resizing, tiff
from .decode_options import DEFAULT_MAX_PIXELS, DecodeOptions
from .discovery import Source
from .no_data import NoData
from .rgb import greatest_of_halves, has_upper_halves, is_srgb, load_rgb, note_on_profile, to_rgb, to_srgb
from .samples import BY_THE_FILE, Rendering, dark_note
from .shared_pixels import Allocate, Pixels, in_memory
from .tiff_strips import TiffStrips

T = TypeVar("T")

_KEPT_BLOCKS = 4
"""Blocks of memory that Pillow keeps in a decoding process; each has at most 16 MiB."""


class Decoded(NamedTuple, Generic[T]):
    """An upright RGB image or what was made of it, notes for the record, and the identity of its file.

    That is its size and mtime; of an object in a store its ETag instead of the mtime. `turn` is the file's
    EXIF orientation: 2 to 8 if the image was rotated or mirrored, else 1. `no_data` has the pixels of the
    upright image that hold none; it is None where there are none, and for people.
    """

    image: T
    notes: tuple[str, ...]
    size_bytes: int | None = None
    mtime_ns: int | None = None
    turn: int = 1
    etag: str | None = None
    no_data: NoData | None = None


class Measured(NamedTuple):
    """The (width, height) in pixels of an upright image, and its EXIF orientation as in `Decoded`.

    `is_srgb` says that its pixels are sRGB as they are stored, as far as a profile says; `georeference` is
    that of the image as stored.
    """

    size: tuple[int, int]
    turn: int
    is_srgb: bool
    georeference: tiff.Georeference


def prepare_process(max_pixels: int) -> None:
    """Configure Pillow, and how large label maps may be, in a process of our own.

    Silences the warnings of Pillow and its native decoders (what matters becomes a note in the record), and
    raises the limit of Pillow's own bomb check, because `decode_with` checks the user's limit.
    """
    label_map.allow_pixels(max_pixels)
    formats.prepare_process()
    warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").handlers[:] = [logging.NullHandler()]
    logging.getLogger("PIL").propagate = False
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def prepare_worker(max_pixels: int) -> None:
    """Configure Pillow as `prepare_process` does, and apply the pixel limit to images inside a file as well.

    An icon, for example, is a small header with a PNG in it that may claim any size. Pillow checks that size
    when it decodes the PNG, against twice the number that is set here.
    """
    prepare_process(max_pixels)
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    # An image takes its memory from the one before it: new pages cost a quarter of the time of small images.
    # The public way to this is PILLOW_BLOCKS_MAX, which would reach other processes.
    Image.core.set_blocks_max(_KEPT_BLOCKS)  # type: ignore[attr-defined]


def decode_here(
    path: str | os.PathLike[str],
    max_pixels: int = DEFAULT_MAX_PIXELS,
    rendering: Rendering = BY_THE_FILE,
) -> Decoded[Image.Image]:
    """Decode an image file to upright RGB in this process.

    EXIF orientation is applied, alpha is composited on white, 16-bit samples are shifted to 8 bits, and
    32-bit integers and floats are scaled from their minimum and maximum, without values that are no data.
    Only the first of several frames is decoded; of a TIFF that begins with a reduced image, the full one.

    Parameters
    ----------
    path
        A regular file, or the URL of an object. Its content determines the format, or its suffix for formats
        without a signature.
    max_pixels
        An image with more pixels in its header is refused before it is decoded.
    rendering
        How its samples become RGB.

    Raises
    ------
    ImageError
        The image cannot be decoded; its `FailureKind` is the reason.
    """
    return decode_with(path, max_pixels, _whole, rendering=rendering)


def decode_with(
    path: str | os.PathLike[str],
    max_pixels: int,
    use: Callable[[Image.Image | LargeTiff, int], T],
    begin: Callable[[int], None] | None = None,
    hashed: Callable[[str], None] | None = None,
    rendering: Rendering = BY_THE_FILE,
) -> Decoded[T]:
    """Decode an image file as `decode_here` does, and make something of it while the file is open.

    `use` takes the upright RGB image, or the rows of a TIFF that is too large to be decoded whole, and the
    EXIF orientation. `begin` is told the number of pixels before they are decoded, `hashed` the hash of the
    file's bytes (see `file_content`); not of an object in a store, which has an ETag. Without it nothing is
    hashed. Raises ImageError where the image cannot be decoded, or `use` does.
    """
    has_begun = False

    def made_of(opened: Image.Image) -> Decoded[T]:
        nonlocal has_begun
        _check_pixels(opened, max_pixels)
        if begin is not None and not has_begun:
            has_begun = True
            begin(opened.width * opened.height)
        strips = TiffStrips.of(opened) if use is not _whole else None
        if strips is not None:
            no_data, more = _no_data(opened, 1, rendering)
            large = LargeTiff(strips, rendering, has_upper_halves=has_upper_halves(opened))
            made = use(large, 1)
            return Decoded(made, _notes(opened) + large.notes() + more, no_data=no_data)
        loaded = _load(opened, max_pixels, rendering)
        made = use(loaded.image, loaded.turn)
        return Decoded(made, loaded.notes, turn=loaded.turn, no_data=loaded.no_data)

    try:
        with _opened(path, max_pixels, hashed) as file:
            made, more = _read(file.file, file.name, made_of, rendering)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
        formats.refuse(error, path, max_pixels)
    identity = file.size_bytes, file.mtime_ns
    return Decoded(made.image, made.notes + more, *identity, made.turn, file.etag, made.no_data)


def _read(
    file: BinaryIO, name: str, use: Callable[[Image.Image], T], rendering: Rendering = BY_THE_FILE
) -> tuple[T, tuple[str, ...]]:
    """Open an image and make something of it, at the second try without a defect that can be mended."""
    try:
        with formats.open_image(file, name, rendering) as opened:
            return use(opened), mending.notes_on(file, opened.format)
    except (ImageError, MemoryError):
        raise
    except Exception:
        mended = mending.mend(file)
        if mended is None:
            raise
    with formats.open_image(mended.file, name, rendering) as opened:
        return use(opened), (mended.note,)


class LargeTiff:
    """A TIFF that is decoded some rows at a time; see `resizing.Rows`."""

    def __init__(self, strips: TiffStrips, rendering: Rendering, *, has_upper_halves: bool) -> None:
        self._strips = strips
        self._rendering = rendering
        self._has_upper_halves = has_upper_halves
        self._greatest = 0
        self.size = strips.size

    def rows(self) -> Iterator[Image.Image]:
        """Yield the rows from top to bottom, as RGB."""
        for part in self._strips.rows():
            if self._has_upper_halves:
                self._greatest = max(self._greatest, greatest_of_halves(part))
            yield to_rgb(part, self._rendering)[0]

    def notes(self) -> tuple[str, ...]:
        """Return notes on the rows, once they have been decoded."""
        return dark_note(self._greatest, 16) if self._has_upper_halves else ()


def _whole(image: Image.Image | LargeTiff, turn: int) -> Image.Image:  # noqa: ARG001
    assert isinstance(image, Image.Image)  # noqa: S101 - `decode_with` gives rows to others only
    return image


def _notes(opened: Image.Image) -> tuple[str, ...]:
    frames = formats.note_on_frames(opened)
    return (frames,) if frames else ()


def measure_here(path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Measured:
    """Return an image's upright size and EXIF orientation, from its header if the format allows it.

    Raises ImageError as `decode_here`, as far as the header shows.
    """

    def measured(opened: Image.Image) -> Measured:
        _check_pixels(opened, max_pixels)
        srgb, geo = is_srgb(opened), tiff.georeference(opened)
        turn = exif.tiff_turn(opened)
        if turn != 1:
            return Measured(opened.size, turn, srgb, geo)
        turn = exif.known_turn(exif.orientation(opened))
        return Measured(exif.turned_size(opened.size, turn), turn, srgb, geo)

    try:
        with _opened(path, max_pixels) as file:
            return _read(file.file, file.name, measured)[0]
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - as in `decode_with`
        formats.refuse(error, path, max_pixels)


def from_image(image: Image.Image, rendering: Rendering = BY_THE_FILE) -> Decoded[Image.Image]:
    """Return a Pillow image as upright RGB, by the same rules as a file; raises ImageError."""
    try:
        return _load(image, DEFAULT_MAX_PIXELS, rendering)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - this may decode the image, see `decode_with`
        formats.refuse(error, "", DEFAULT_MAX_PIXELS)


def from_bytes(data: bytes, rendering: Rendering = BY_THE_FILE) -> Decoded[Image.Image]:
    """Return an encoded image as upright RGB, by the same rules as a file; raises ImageError."""
    if not data:
        raise ImageError(FailureKind.EMPTY_FILE, "the image is empty (0 bytes)")
    try:
        loaded, more = _read(
            io.BytesIO(data), "", lambda opened: _load(opened, DEFAULT_MAX_PIXELS, rendering), rendering
        )
        return loaded._replace(notes=loaded.notes + more)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - see `decode_with`
        formats.refuse(error, "", DEFAULT_MAX_PIXELS)


class _Open(NamedTuple):
    """An open image: its file or its bytes in memory, its name, and its identity as in `Decoded`."""

    file: BinaryIO
    name: str
    size_bytes: int | None
    mtime_ns: int | None
    etag: str | None


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike[str], max_pixels: int, hashed: Callable[[str], None] | None = None
) -> Iterator[_Open]:
    if isinstance(path, str) and store_urls.is_url(path):
        data, identity = remote.fetch(path, max_pixels)
        yield _Open(io.BytesIO(data), store_urls.name_in(path), *identity)
        return
    with _open_regular(path) as file:
        status = os.fstat(file.fileno())
        if hashed is not None:
            hashed(file_content.of_open_file(file))
        yield _Open(file, os.fspath(path), status.st_size, status.st_mtime_ns, None)


def _open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    # Opening a FIFO would block, so check the file type first (and again afterwards, if it was replaced).
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(FailureKind.NOT_A_FILE, "not a regular file")
    if status.st_size == 0:
        raise ImageError(FailureKind.EMPTY_FILE, "the file is empty (0 bytes)")
    file = open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError(FailureKind.NOT_A_FILE, "not a regular file")
    return file


def _load(opened: Image.Image, max_pixels: int, rendering: Rendering) -> Decoded[Image.Image]:
    """Return the image as upright RGB; without the identity of its file."""
    _check_pixels(opened, max_pixels)
    tiff_turn = exif.tiff_turn(opened)
    notes = _notes(opened)
    no_data, of_no_data = _no_data(opened, tiff_turn, rendering)
    # No `draft`: it is faster but changes pixels. Loading a TIFF rotates it, so read EXIF afterwards.
    rgb, more = load_rgb(opened, rendering)
    # The size in a container's header may differ from that of the image in it.
    _check_pixels(opened, max_pixels)
    orientation = exif.orientation(opened)
    if orientation is None:
        notes += ("unreadable EXIF data ignored",)
    turn = exif.known_turn(orientation)
    notes += more + of_no_data + note_on_profile(opened)
    if rendering.for_people:
        rgb = to_srgb(rgb, opened)
    elif profile := opened.info.get("icc_profile"):
        rgb.info["icc_profile"] = profile
    upright = exif.upright(rgb, turn)
    return Decoded(upright, notes, turn=tiff_turn if turn == 1 else turn, no_data=no_data)


def _no_data(opened: Image.Image, turn: int, rendering: Rendering) -> tuple[NoData | None, tuple[str, ...]]:
    """Return the pixels of the upright image that hold no data, and a note on them."""
    found = None if rendering.for_people else NoData.find(opened, turn)
    return found, (found.note,) if found is not None else ()


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        formats.refuse_pixels(f"{width}x{height}", max_pixels)


@dataclass(slots=True)
class DecodedImage:
    """One image, ready for the network, or the reason why it is not.

    `pixels` is uint8, shape (h, w, 3), at the network's input size; with several sizes it is the largest,
    and `smaller` has the others, in descending order. `width` and `height` are the image's own: of the
    upright image, or with `stored` of the image as stored in the file. `size_bytes`, `mtime_ns` and `etag`
    are those of the file that was decoded, `content` is the hash of its bytes (see `file_content`), or None
    where it is not known. `turn` is its EXIF orientation, 1 for an upright image. `no_data` has the pixels
    of the image that hold none.
    """

    source: Source
    pixels: Pixels | None = None
    width: int = 0
    height: int = 0
    size_bytes: int | None = None
    mtime_ns: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
    turn: int = 1
    stored: bool = False
    smaller: tuple[Pixels, ...] = ()
    etag: str | None = None
    content: str | None = None
    no_data: NoData | None = None

    @classmethod
    def failed(cls, source: Source, failure: Failure) -> DecodedImage:
        """Return an image that cannot be decoded."""
        size, mtime = source.size_bytes, source.mtime_ns
        return cls(source, size_bytes=size, mtime_ns=mtime, failure=failure, etag=source.etag)

    @property
    def nbytes(self) -> int:
        """The size of all pixels in bytes."""
        return sum(part.nbytes for part in (self.pixels, *self.smaller) if part is not None)


Orient = Callable[[Source, tuple[int, int], int], bool]
"""Takes an image, its upright (width, height) and its EXIF orientation; returns whether to take it as stored.

Raises ImageError when the image fits neither way. It is sent to the workers, so it must be picklable."""


@dataclass(frozen=True)
class DecodeSettings:
    """How a command has its images decoded, by a user's options.

    Without `orient` every image is taken upright. With `measure_only` only sizes and orientations are read:
    pixels are neither decoded nor returned. With `refuse_changed` an image fails as `FailureKind.CHANGED`
    when its file, before or after it is decoded, has not the size and mtime that its source has.
    """

    options: DecodeOptions
    orient: Orient | None = None
    measure_only: bool = False
    refuse_changed: bool = False


def decode_source(
    source: Source,
    settings: DecodeSettings,
    allocate: Allocate = in_memory,
    begin: Callable[[int], None] | None = None,
) -> DecodedImage:
    """Decode and resize one image in this process; a failure is part of the result and is never raised.

    `allocate` makes the arrays; `begin` is told the number of pixels before they are decoded.
    """
    hashes: list[str] = []
    if source.problem is not None:
        return DecodedImage.failed(source, source.problem)
    try:
        if settings.measure_only:
            image = _measured_source(source, settings)
        else:
            image = _decoded_source(source, settings, allocate, begin, hashes.append)
    except ImageError as error:
        image = DecodedImage.failed(source, error.failure)
    except MemoryError:
        image = DecodedImage.failed(source, formats.out_of_memory())
    if hashes and _is_still(source.path, image.size_bytes, image.mtime_ns):
        image.content = hashes[0]
    if settings.refuse_changed and _has_changed(source, image):
        # Whatever was decoded, or failed to be, may be half of one version of the file and half of another.
        failure = Failure(FailureKind.CHANGED, "the file changed while it was being read")
        return DecodedImage.failed(source, failure)
    return image


def _decoded_source(
    source: Source,
    settings: DecodeSettings,
    allocate: Allocate,
    begin: Callable[[int], None] | None,
    hashed: Callable[[str], None],
) -> DecodedImage:
    started, options = time.perf_counter(), settings.options

    def make(image: Image.Image | LargeTiff, turn: int) -> DecodedImage:
        stored = _is_stored(source, image.size, turn, settings)
        if stored and isinstance(image, Image.Image):
            image = exif.as_stored(image, turn)
        pixels, notes = resizing.network_inputs(image, options.short_side, options.scales, allocate)
        smaller = tuple(pixels[1:])
        return DecodedImage(source, pixels[0], *image.size, notes=notes, stored=stored, smaller=smaller)

    decoded = decode_with(source.path, options.max_pixels, make, begin, hashed, options.rendering)
    no_data = decoded.no_data
    if no_data is not None and decoded.image.stored:
        no_data = no_data.turned(decoded.turn, back=True)
    return replace(
        decoded.image,
        size_bytes=decoded.size_bytes,
        mtime_ns=decoded.mtime_ns,
        seconds=time.perf_counter() - started,
        notes=decoded.notes + decoded.image.notes,
        turn=decoded.turn,
        etag=decoded.etag,
        no_data=no_data,
    )


def _measured_source(source: Source, settings: DecodeSettings) -> DecodedImage:
    size, turn, *_ = measure_here(source.path, settings.options.max_pixels)
    stored = _is_stored(source, size, turn, settings)
    width, height = exif.turned_size(size, turn) if stored else size
    return DecodedImage(source, width=width, height=height, turn=turn, stored=stored)


def _is_stored(source: Source, upright: tuple[int, int], turn: int, settings: DecodeSettings) -> bool:
    return settings.orient is not None and settings.orient(source, upright, turn)


def _has_changed(source: Source, image: DecodedImage) -> bool:
    expected = (source.size_bytes, source.mtime_ns)
    if source.size_bytes is None or (image.size_bytes, image.mtime_ns) != expected:
        return source.size_bytes is not None
    return not _is_still(source.path, *expected)


def _is_still(path: str, size_bytes: int | None, mtime_ns: int | None) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size_bytes, mtime_ns)
