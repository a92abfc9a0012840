"""Pixels of a GeoTIFF without data: they have no class."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ..common.label_map import VOID_INDEX, Segmentation
from ..common.wording import counted
from . import exif
from .samples import PART_PIXELS, holds
from .tiff import Tiff, gdal_no_data
from .tiff_strips import TiffStrips

_BITS, _PHOTOMETRIC, _MIN_IS_WHITE = 258, 262, 0

Mask: TypeAlias = NDArray[np.bool_]


class NoData(NamedTuple):
    """So many pixels of an image of this (width, height); `packed` has a bit for each one of the image."""

    size: tuple[int, int]
    pixels: int
    packed: bytes

    @classmethod
    def of(cls, size: tuple[int, int], masks: Iterable[Mask]) -> NoData | None:
        """Return the pixels that are set in some rows after the other; None where there are none."""
        count, rows = 0, []
        for mask in masks:
            count += int(np.count_nonzero(mask))
            rows.append(np.packbits(mask, axis=1).tobytes())
        return cls(size, count, zlib.compress(b"".join(rows), zlib.Z_BEST_SPEED)) if count else None

    @classmethod
    def find(cls, opened: Image.Image, turn: int) -> NoData | None:
        """Return the pixels of an upright image that hold no data; None where it has none.

        In all of their bands they hold the value that GDAL has for that in a tag of TIFFs. `opened` is not
        loaded yet, and `turn` is its orientation.
        """
        if not isinstance(opened, TiffImageFile) or gdal_no_data(opened.tag_v2) is None:
            return None
        if opened.mode == "CMYK":
            # GDAL shows it as RGBA without a transparent pixel.
            return None
        bands = opened.all_bands() if isinstance(opened, Tiff) else None
        if bands is not None:
            found = cls.of(exif.turned_size(opened.size, turn), _masks(opened, bands))
            return found.turned(turn) if found is not None else None
        # What decoders have changed the value of (JPEG, for example) is compared as they return it.
        return cls.of(opened.size, _masks(opened, _decoded(opened)))

    def masks(self) -> Iterator[tuple[int, Mask]]:
        """Yield the number of the first row of some, and these rows: bool, shape (rows, width)."""
        width, height = self.size
        packed = np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(height, -1)
        rows = max(1, PART_PIXELS // width)
        for top in range(0, height, rows):
            yield top, np.unpackbits(packed[top : top + rows], axis=1, count=width).view(np.bool_)

    def turned(self, turn: int, *, back: bool = False) -> NoData:
        """Return the pixels of an image after an orientation has been undone, or applied when `back`."""
        if turn == 1:
            return self
        image = Image.fromarray(np.concatenate([mask for _, mask in self.masks()]).view(np.uint8))
        other = exif.as_stored(image, turn) if back else exif.upright(image, turn)
        return NoData.of(other.size, [np.asarray(other).view(np.bool_)]) or self

    def void(self, predicted: Segmentation) -> Segmentation:
        """Make these pixels void, with a confidence of 0, in a prediction at the image's own size."""
        if predicted.labels.shape == self.size[::-1]:
            for top, mask in self.masks():
                predicted.labels[top : top + len(mask)][mask] = VOID_INDEX
                if predicted.confidence is not None:
                    predicted.confidence[top : top + len(mask)][mask] = 0
        return predicted

    @property
    def note(self) -> str:
        """What a record says of them."""
        return f"{counted(self.pixels, 'pixel')} without data, set to 255"


def _masks(opened: TiffImageFile, parts: Iterable[NDArray[Any]]) -> Iterator[Mask]:
    """Yield which pixels hold no data: of rows of shape (rows, width, bands), or without bands."""
    depth = max(opened.tag_v2.get(_BITS, (1,)))
    most = (1 << depth) - 1
    for decoded in parts:
        part = decoded
        if depth < 8 and opened.mode in {"1", "L"}:
            # Pillow returns black and white, or what it has scaled to 8 bits.
            part = (decoded.astype(np.uint16) * most // (1 if opened.mode == "1" else 255)).astype(np.uint8)
            part = most - part if opened.tag_v2.get(_PHOTOMETRIC) == _MIN_IS_WHITE else part
        value = gdal_no_data(opened.tag_v2, part.dtype)
        # Pillow returns the upper 8 bits of some samples.
        if value is None or 8 * part.dtype.itemsize < depth:
            yield np.zeros(part.shape[:2], np.bool_)
            continue
        held = holds(part, value)
        yield np.asarray(held.all(2)) if held.ndim > 2 else held


def _decoded(opened: TiffImageFile) -> Iterator[NDArray[Any]]:
    strips = TiffStrips.of(opened)
    if strips is None:
        opened.load()
    for part in [opened] if strips is None else strips.rows():
        yield np.asarray(part)
