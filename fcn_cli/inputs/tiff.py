"""Open TIFFs: choose the full image among several, refuse camera RAW, read samples of any common type."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from typing_extensions import override

from ..common.errors import FailureKind, ImageError
from ..common.wording import counted
from .samples import BY_THE_FILE, PART_PIXELS, Rendering, Samples, Values
from .tiff_strips import Part, read_part, small_tiff

PREFIXES = tuple(TiffImagePlugin.PREFIXES)

_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_FILL_ORDER, _MAKE, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 266, 271, 273, 277, 278, 279
_PLANES, _PREDICTOR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 284, 317, 322, 323, 324, 325
_SUB_DIRECTORIES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _GDAL_NO_DATA, _DNG_VERSION = 330, 338, 339, 42113, 50706

_ABSENT = 0
"""The place of a strip or tile that GDAL has not written: all of its samples are no data, or 0."""

_REDUCED, _OLD_REDUCED, _MASK = 1, 2, 4
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_RAW_PHOTOMETRICS = frozenset({32803, 34892})
_SEPARATE_PLANES = 2
_UNASSOCIATED, _ASSOCIATED = 2, 1
# None, LZW, both deflates, PackBits, LZMA and Zstandard keep samples bit by bit.
_UNCOMPRESSED = 1
_LOSSLESS = frozenset({_UNCOMPRESSED, 5, 8, 32946, 32773, 34925, 50000})
_HORIZONTAL, _FLOATING = 2, 3
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_FORMATS = {
    _UNSIGNED: "unsigned",
    _SIGNED: "signed",
    _FLOAT: "float",
    4: "untyped",
    5: "complex",
    6: "complex",
}

_SHORT, _ASCII, _DOUBLE = 3, 2, 12
GEO_TAGS = {33550: _DOUBLE, 33922: _DOUBLE, 34264: _DOUBLE, 34735: _SHORT, 34736: _DOUBLE, 34737: _ASCII}
"""GeoTIFF's tags and their TIFF types: scale, tie points, matrix, the keys of the coordinate system."""
_MOST_GEO_VALUES = 1 << 16
Georeference: TypeAlias = dict[int, tuple[float, ...] | tuple[int, ...] | str]
"""The values of those `GEO_TAGS` that an image has; empty where it has no georeference."""

_MOST_DIRECTORIES = 64
_BIG = 43
_MAKERS = {
    "NIKON": "NEF",
    "SONY": "ARW",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "PHASE ONE": "IIQ",
    "KODAK": "DCR",
    "OLYMPUS": "ORF",
    "LEICA": "DNG",
}


class _Layout(NamedTuple):
    """How samples are stored: in whole bytes, or packed; the first `colours` of all `bands` are colours."""

    dtype: np.dtype[Any]
    bits: int
    is_packed: bool
    bands: int
    colours: int
    alpha: int | None
    sample_format: int


def open_tiff(file: BinaryIO, rendering: Rendering = BY_THE_FILE) -> Tiff:
    """Open a TIFF; raises ImageError where it is RAW, a thumbnail, or has samples that cannot be read."""
    try:
        return Tiff(file, rendering)
    except (SyntaxError, IndexError, TypeError, KeyError) as error:
        raise UnidentifiedImageError(str(error)) from error


class Tiff(TiffImageFile):
    """A TIFF as Pillow reads it, or `samples` of types that Pillow has no mode for, or of more than 8 bits.

    `which` says which of several images is taken, if not the first. `has_upper_halves`: Pillow decodes the
    upper 8 bits of its 16-bit samples.
    """

    def __init__(self, file: BinaryIO, rendering: Rendering) -> None:
        self.samples: Samples | None = None
        self.has_upper_halves = False
        self.which: str | None = None
        self._rendering = rendering
        self._is_examined = False
        super().__init__(file)

    @override
    def _setup(self) -> None:
        if not self._is_examined:
            self._is_examined = True
            if (full := self._place_of_full_image()) is not None:
                self._frame_pos = [full]
                self._seek(0)
                return
        self._apply_alpha_option()
        self.samples = None
        # Pillow takes the file's first bytes for a block that is not there.
        is_sparse = _ABSENT in self.tag_v2.get(_TILE_OFFSETS, self.tag_v2.get(_STRIP_OFFSETS, ()))
        layout = self._layout() if is_sparse or max(self.tag_v2.get(_BITS, (1,))) > 8 else None
        self.has_upper_halves = layout is not None and not is_sparse and self._is_fast_in_pillow(layout)
        if layout is not None and not self.has_upper_halves:
            self._set_up_samples(layout)
            return
        try:
            super()._setup()
        except (SyntaxError, KeyError) as error:
            self.has_upper_halves = False
            layout = self._layout()
            if layout is None:
                self._refuse_samples(error)
            self._set_up_samples(layout)

    def _is_fast_in_pillow(self, layout: _Layout) -> bool:
        return (
            not self._rendering.stretch
            and layout.dtype.kind == "u"
            and layout.bits == 16
            and self.tag_v2.get(_PHOTOMETRIC) == _RGB
            and self.tag_v2.get(_PLANES, 1) != _SEPARATE_PLANES
        )

    def _apply_alpha_option(self) -> None:
        tags, option = self.tag_v2, self._rendering.alpha
        extra = tags.get(_EXTRA_SAMPLES, ())
        if option is None or tags.get(_PHOTOMETRIC) not in {_MIN_IS_BLACK, _RGB}:
            return
        colours = 3 if tags.get(_PHOTOMETRIC) == _RGB else 1
        count = int(tags.get(_SAMPLES, 1)) - colours
        if option == "ignore" and 0 < count <= 8:
            tags[_EXTRA_SAMPLES] = (0,) * count
        elif option == "use" and count and extra[:1] in {(0,), ()}:
            tags[_EXTRA_SAMPLES] = (_UNASSOCIATED, *extra[1:])

    def _set_up_samples(self, layout: _Layout) -> None:
        tags = self.tag_v2
        width, height = tags[_WIDTH], tags[_LENGTH]
        self._mode = "F"
        self._tile_size = width, height
        self._size = (height, width) if tags.get(274) in {5, 6, 7, 8} else (width, height)
        self._planar_configuration = tags.get(_PLANES, 1)
        self.tile = []
        names = {_UNSIGNED: "integer", _SIGNED: "integer", _FLOAT: "float"}
        plain = layout.sample_format == _UNSIGNED and 8 <= layout.bits <= 16
        self.samples = Samples(
            (width, height),
            lambda: self._rows(layout, layout.colours + (layout.alpha is not None)),
            layout.bits if plain else None,
            f"{layout.bits}-bit {names[layout.sample_format]}" if not plain else f"{layout.bits}-bit",
            alpha=layout.alpha is not None,
            premultiplied=layout.alpha == _ASSOCIATED,
            white_is_zero=tags.get(_PHOTOMETRIC, _MIN_IS_BLACK) == _MIN_IS_WHITE,
            no_data=gdal_no_data(tags, layout.dtype),
        )
        taken = layout.colours + (layout.alpha is not None)
        if layout.bands > taken and layout.colours == 3 and tags.get(_PHOTOMETRIC) != _RGB:
            self.which = self.which or f"bands 1 to 3 of {layout.bands} taken as red, green and blue"

    def _layout(self) -> _Layout | None:
        """Return how the samples are stored, or None where they cannot be read bit by bit."""
        tags = self.tag_v2
        bits, formats = set(tags.get(_BITS, (1,))), set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
        photometric, count = tags.get(_PHOTOMETRIC, _MIN_IS_BLACK), int(tags.get(_SAMPLES, 1))
        if (
            len(bits) != 1
            or len(formats) != 1
            or tags.get(_COMPRESSION, _UNCOMPRESSED) not in _LOSSLESS
            or photometric not in {_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB}
            or not 1 <= count <= 64
        ):
            return None
        (depth,), (sample_format,) = bits, formats
        if sample_format == 4:
            sample_format = _UNSIGNED
        is_packed = 8 < depth < 16 and sample_format == _UNSIGNED
        kind = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}.get(sample_format)
        sizes = {16, 32, 64} if kind == "f" else {8, 16, 32, 64}
        if kind is None or (depth not in sizes and not is_packed):
            return None
        order = "<" if tags.prefix == b"II" else ">"
        dtype = np.dtype(np.uint16) if is_packed else np.dtype(f"{order}{kind}{depth // 8}")
        extra = tags.get(_EXTRA_SAMPLES, ())
        colours = 3 if photometric == _RGB or (photometric == _MIN_IS_BLACK and count in {3, 4}) else 1
        if count < colours or (colours == 1 and count > 2):
            return None
        # They describe the last samples. Four samples of RGB without a word are RGBA, as Pillow takes them.
        place = colours - count + len(extra)
        meaning = extra[place] if 0 <= place < len(extra) else 0
        if not extra and photometric == _RGB and count == colours + 1:
            meaning = _UNASSOCIATED
        is_alpha = meaning in {_ASSOCIATED, _UNASSOCIATED}
        return _Layout(dtype, depth, is_packed, count, colours, meaning if is_alpha else None, sample_format)

    def _refuse_samples(self, error: Exception) -> NoReturn:
        tags = self.tag_v2
        has_pixels = _STRIP_OFFSETS in tags or _TILE_OFFSETS in tags
        if _WIDTH not in tags or _LENGTH not in tags or not has_pixels:
            raise error
        bits = ", ".join(str(each) for each in sorted(set(tags.get(_BITS, (1,)))))
        kinds = sorted(_FORMATS.get(each, str(each)) for each in set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))))
        samples = counted(tags.get(_SAMPLES, 1), f"{'/'.join(kinds)} sample")
        raise ImageError(
            FailureKind.NOT_AN_IMAGE,
            f"a TIFF with {samples} of {bits} bits a pixel (photometric "
            f"{tags.get(_PHOTOMETRIC, 'missing')}, compression {tags.get(_COMPRESSION, _UNCOMPRESSED)}), "
            "which is not supported; convert it to 8 or 16 bits of grey or RGB, for example with "
            "gdal_translate",
        ) from error

    def all_bands(self) -> Iterator[Values] | None:
        """Return rows of all samples as they are stored: shape (rows, width, bands).

        None where they cannot be read bit by bit.
        """
        layout = self._layout()
        return self._rows(layout, layout.bands) if layout is not None else None

    def _rows(self, layout: _Layout, taken: int) -> Iterator[Values]:
        """Yield rows of so many bands, the colours and then alpha first: shape (rows, width, bands)."""
        width, height = self._tile_size
        separate = self._planar_configuration == _SEPARATE_PLANES
        across, parts = self._parts(layout)
        down = len(parts) // (layout.bands if separate else 1)
        top = place = 0
        while place < down:
            together = 1
            if across == 1:
                rows = parts[place].rows
                while (
                    place + together < down
                    and parts[place + together - 1].rows == rows
                    and (parts[place].offset == _ABSENT) == (parts[place + together].offset == _ABSENT)
                    and (together + 1) * rows * width <= PART_PIXELS
                ):
                    together += 1
            planes = range(taken) if separate else range(1)
            blocks = [
                np.concatenate(
                    [
                        self._block(layout, parts[plane * down + place + column :][:together])
                        for column in range(across)
                    ],
                    axis=1,
                )
                for plane in planes
            ]
            block = np.concatenate(blocks, axis=2) if len(blocks) > 1 else blocks[0]
            block = block[: height - top, :width, :taken]
            yield block
            top += block.shape[0]
            place += across * together

    def _parts(self, layout: _Layout) -> tuple[int, list[Part]]:
        """Return how many tiles are in a row (1 for strips), and all strips or tiles, plane by plane."""
        tags, (width, height) = self.tag_v2, self._tile_size
        is_tiled = _TILE_OFFSETS in tags
        offsets = tags.get(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, ())
        sizes = tags.get(_TILE_BYTES if is_tiled else _STRIP_BYTES, ())
        rows = int(tags[_TILE_LENGTH] if is_tiled else min(tags.get(_ROWS_PER_STRIP, height), height))
        across = -(-width // int(tags[_TILE_WIDTH])) if is_tiled else 1
        planes = layout.bands if self._planar_configuration == _SEPARATE_PLANES else 1
        down = -(-height // rows)
        if len(offsets) != across * down * planes:
            raise ValueError(f"{len(offsets)} strips or tiles in place of {across * down * planes}")
        heights = [rows if is_tiled else min(rows, height - top) for top in range(0, height, rows)] * planes
        each = [height for height in heights for _ in range(across)]
        if tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED or len(sizes) != len(offsets):
            sizes = [height * self._row_bytes(layout) for height in each]
        return across, [Part(*values) for values in zip(offsets, sizes, each, strict=True)]

    def _stored_width(self) -> int:
        return int(self.tag_v2[_TILE_WIDTH] if _TILE_OFFSETS in self.tag_v2 else self._tile_size[0])

    def _in_pixel(self, layout: _Layout) -> int:
        return 1 if self._planar_configuration == _SEPARATE_PLANES else layout.bands

    def _row_bytes(self, layout: _Layout) -> int:
        return math.ceil(self._stored_width() * self._in_pixel(layout) * layout.bits / 8)

    def _block(self, layout: _Layout, parts: list[Part]) -> Values:
        """Return some strips, or one tile, as an array of shape (rows, width, samples)."""
        rows = sum(part.rows for part in parts)
        shape = rows, self._stored_width(), self._in_pixel(layout)
        if parts[0].offset == _ABSENT:
            return np.full(shape, gdal_no_data(self.tag_v2, layout.dtype) or 0, layout.dtype)
        stored = self._stored_bytes(parts, rows, self._row_bytes(layout))
        predictor = self.tag_v2.get(_PREDICTOR, 1)
        if layout.is_packed:
            return _unpacked(stored, layout.bits, shape)
        if predictor == _FLOATING:
            return _without_floating_predictor(stored, layout.dtype, shape)
        values = np.ascontiguousarray(stored).view(layout.dtype).reshape(shape)
        if predictor != _HORIZONTAL:
            return values
        whole = values.view(f"{layout.dtype.byteorder.replace('|', '=')}u{layout.dtype.itemsize}")
        native = np.dtype(f"u{layout.dtype.itemsize}")
        return np.cumsum(whole, axis=1, dtype=native).view(layout.dtype.newbyteorder("="))

    def _stored_bytes(self, parts: list[Part], rows: int, row_bytes: int) -> NDArray[np.uint8]:
        """Return the bytes of some rows, without compression."""
        tags = self.tag_v2
        if tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED and tags.get(_FILL_ORDER, 1) == 1:
            data = b"".join(read_part(self.fp, part) for part in parts)
            return np.frombuffer(data, np.uint8).reshape(rows, row_bytes)
        directory = ImageFileDirectory_v2()
        for tag in (_COMPRESSION, _FILL_ORDER):
            if tag in tags:
                directory[tag] = tags[tag]
        directory[_BITS] = 8
        directory[_PHOTOMETRIC] = _MIN_IS_BLACK
        with _Bytes(small_tiff(self.fp, parts, row_bytes, directory)) as opened:
            opened.load()
            return np.asarray(opened)

    def _place_of_full_image(self) -> int | None:
        """Return where the directory of the full image is, or None where the first one has it."""
        tags = self.tag_v2
        self._refuse_raw(tags)
        is_reduced = _is_reduced(tags)
        if not is_reduced and _SUB_DIRECTORIES not in tags:
            return None
        pixels, full = tags.get(_WIDTH, 0) * tags.get(_LENGTH, 0), None
        for place, other in self._other_directories():
            self._refuse_raw(other, self._maker())
            size = other.get(_WIDTH, 0) * other.get(_LENGTH, 0)
            if is_reduced and not _is_reduced(other) and size > pixels:
                pixels, full = size, place
                self.which = f"the full image; the first in the file is a reduced one ({_size(tags)})"
        if is_reduced and full is None:
            raise ImageError(
                FailureKind.NOT_AN_IMAGE,
                f"a TIFF that has only a reduced image ({_size(tags)}), a thumbnail; give the full image",
            )
        return full

    def _other_directories(self) -> Iterator[tuple[int, ImageFileDirectory_v2]]:
        assert self.fp is not None  # noqa: S101 - it is being opened
        self.fp.seek(0)
        header = self.fp.read(8)
        header += self.fp.read(8) if header[2] == _BIG else b""
        pending = [*_places_below(self.tag_v2), self.tag_v2.next]
        seen: set[int] = {0}
        while pending and len(seen) <= _MOST_DIRECTORIES:
            place = pending.pop()
            if not isinstance(place, int) or place in seen:
                continue
            seen.add(place)
            directory = ImageFileDirectory_v2(header)
            try:
                self.fp.seek(place)
                directory.load(self.fp)
                following = [*_places_below(directory), directory.next]
                directory.get(_WIDTH, 0) * directory.get(_LENGTH, 0)
            except Exception:  # noqa: BLE001, S112 - what cannot be read is no image
                continue
            yield place, directory
            pending += following

    def _maker(self) -> str:
        return str(self.tag_v2.get(_MAKE, "")).strip().upper()

    def _refuse_raw(self, tags: ImageFileDirectory_v2, maker: str | None = None) -> None:
        assert self.fp is not None  # noqa: S101 - it is being opened
        self.fp.seek(8)
        is_canon = self.fp.read(2) == b"CR"
        is_raw = tags.get(_PHOTOMETRIC) in _RAW_PHOTOMETRICS
        if not (is_canon or is_raw or _DNG_VERSION in tags):
            return
        maker = maker if maker is not None else self._maker()
        name = next((name for start, name in _MAKERS.items() if maker.startswith(start)), "RAW")
        name = "CR2" if is_canon else "DNG" if _DNG_VERSION in self.tag_v2 else name
        raise ImageError(FailureKind.NOT_AN_IMAGE, raw_message(name))


def raw_message(name: str) -> str:
    """Return why a camera's RAW file is not read, and what to do."""
    return (
        f"a camera's RAW file ({name}), which is not supported: develop it to TIFF, PNG or JPEG, for example "
        "with darktable-cli, RawTherapee or dcraw -T"
    )


class _Bytes(TiffImageFile):
    """A TIFF of bytes, of which a row may have more than Pillow takes for an image's pixels."""

    @override
    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self.size)  # type: ignore[attr-defined]
        ImageFile.ImageFile.load_prepare(self)


def _places_below(tags: ImageFileDirectory_v2) -> tuple[int, ...]:
    places = tags.get(_SUB_DIRECTORIES, ())
    return places if isinstance(places, tuple) else (places,)


def _is_reduced(tags: ImageFileDirectory_v2) -> bool:
    flags = tags.get(_SUBFILE, 0)
    return bool(flags & (_REDUCED | _MASK)) or tags.get(_OLD_SUBFILE) == _OLD_REDUCED


def _size(tags: ImageFileDirectory_v2) -> str:
    return f"{tags.get(_WIDTH)}x{tags.get(_LENGTH)}"


def georeference(opened: Image.Image) -> Georeference:
    """Return the georeference of an open image; what is damaged in it is left out."""
    found: Georeference = {}
    tags = getattr(opened, "tag_v2", {}) if opened.format == "TIFF" else {}
    for code, kind in GEO_TAGS.items():
        values = tags.get(code)
        if values is None:
            continue
        if kind == _ASCII:
            if isinstance(values, str) and values.isascii() and len(values) <= _MOST_GEO_VALUES:
                found[code] = values
            continue
        numbers = values if isinstance(values, tuple) else (values,)
        if len(numbers) <= _MOST_GEO_VALUES and all(isinstance(one, int | float) for one in numbers):
            if kind == _DOUBLE:
                found[code] = tuple(map(float, numbers))
            elif all(0 <= one < 1 << 16 for one in numbers):
                found[code] = tuple(map(int, numbers))
    return found


def gdal_no_data(tags: ImageFileDirectory_v2, dtype: np.dtype[Any] | None = None) -> float | None:
    """Return GDAL's value for no data, which may be NaN; None without one that samples of this type have."""
    text = str(tags.get(_GDAL_NO_DATA, "")).strip(" \0")
    try:
        value = float(text)
    except ValueError:
        return None
    if dtype is None or dtype.kind == "f":
        return value
    if dtype.kind not in "ui" or not math.isfinite(value):
        return None
    # A float has not all the digits of 64 bits.
    whole = int(text) if text.lstrip("+-").isdigit() else math.trunc(value)
    limits = np.iinfo(dtype)
    return whole if limits.min <= whole <= limits.max else None


def _unpacked(stored: Values, bits: int, shape: tuple[int, int, int]) -> Values:
    """Return samples of 9 to 15 bits, which are packed without gaps, the first bit first."""
    count = shape[1] * shape[2]
    ones = np.unpackbits(stored, axis=1, count=count * bits).reshape(shape[0], count, bits)
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint16)
    return (ones @ weights).astype(np.uint16).reshape(shape)


def _without_floating_predictor(stored: Values, dtype: np.dtype[Any], shape: tuple[int, int, int]) -> Values:
    """Undo predictor 3 (TIFF Technical Note 3): differences of bytes, the most significant of a row first."""
    rows, width, samples = shape
    size = dtype.itemsize
    steps = stored.reshape(rows, width * size, samples)
    planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, size, width * samples)
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
    return values.reshape(shape)
