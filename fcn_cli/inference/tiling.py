"""The geometry of overlapping tiles: their positions, cells and blending weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..inputs.shared_pixels import Pixels
from .interpolation import Taps
from .options import ViewOptions


@dataclass(frozen=True)
class TileAxis:
    """The tiles along one axis of an image: pixels on one side, cells (logits) on the other.

    An image that is not longer than a tile is one tile of its own length. A longer one is extended by its
    edge until the last tile fits: at its end, or, `is_centred`, at both ends alike, so that the mirror image
    has the mirrored tiles. Then all tiles have one length, and their length and step are multiples of the
    stride.

    Attributes
    ----------
    length
        The image's length in pixels.
    tile
        The length of a tile in pixels.
    step
        From the origin of one tile to that of the next, in pixels; at least half of a tile.
    stride
        Pixels per cell.
    is_centred
        The image is extended at both ends.
    """

    length: int
    tile: int
    step: int
    stride: int
    is_centred: bool = False

    @classmethod
    def of(
        cls, length: int, tile: int | None, overlap: int | None, stride: int, *, is_centred: bool = False
    ) -> TileAxis:
        """Return the tiles along an axis.

        The tile and the overlap, which neighbours share, are in pixels and rounded up to a multiple of the
        stride, the overlap to at most half of the tile; None: one tile.
        """
        if tile is None or overlap is None or length <= tile:
            return cls(length, length, length, stride, is_centred)
        cells = -(-tile // stride)
        shared = min(-(-overlap // stride), cells // 2)
        return cls(length, cells * stride, (cells - shared) * stride, stride, is_centred)

    @property
    def is_tiled(self) -> bool:
        """Whether the image is longer than a tile, and so extended to whole tiles."""
        return self.step != self.length

    @property
    def count(self) -> int:
        """The number of tiles."""
        return 1 + max(0, -(-(self.length - self.tile) // self.step))

    @property
    def before(self) -> int:
        """The number of pixels from the origin of the first tile to the image."""
        return self._extended // 2

    @property
    def cells(self) -> int:
        """The number of cells that count: not those of an extension at the end only."""
        return -(-(self.length + self._extended) // self.stride)

    @property
    def _extended(self) -> int:
        """The pixels of an extension at both ends."""
        return (self.count - 1) * self.step + self.tile - self.length if self.is_centred else 0

    @property
    def tile_cells(self) -> int:
        """The number of cells of a tile."""
        return -(-self.tile // self.stride)

    @property
    def step_cells(self) -> int:
        """The number of cells from the origin of one tile to that of the next."""
        return -(-self.step // self.stride)

    def weights(self, index: int) -> Tensor:
        """Return how much each cell of a tile counts: float32, shape (tile_cells,), from 0 to 1.

        1 where no other tile is; in an overlap a straight line that falls to the tile's edge. Over all tiles
        the weights of a cell sum to one.
        """
        weights = torch.ones(self.tile_cells)
        shared = self.tile_cells - self.step_cells
        if shared:
            rising = (torch.arange(shared, dtype=torch.float32) + 0.5) / shared
            if index:
                weights[:shared] = rising
            if index < self.count - 1:
                weights[-shared:] = 1 - rising
        return weights

    def taps_of_pixels(self, size: int) -> Taps:
        """Return the taps of the pixels of a label map with `size` pixels along this axis."""
        return self._taps(2 * torch.arange(size) + 1, 2 * size)

    def taps_of_cells(self, other: TileAxis) -> Taps:
        """Return the taps of the cells of the same image in another size."""
        return self._taps(
            (2 * torch.arange(other.cells) + 1) * other.stride - other._extended, 2 * other._span
        )

    @property
    def _span(self) -> int:
        """The pixels that the image takes up.

        One tile: its cells are stretched over the image, as torchvision does it. Several: a cell is exactly
        `stride` pixels, so that an image moved by the stride gives the moved mask; the last cell may extend
        beyond the image.
        """
        return self.length if self.is_tiled else self.cells * self.stride

    def _taps(self, places: Tensor, whole: int) -> Taps:
        """Return the taps of places in the image, whole numbers of `whole`.

        The image begins half of the extension after the first cell. If that is not a whole number of pixels,
        the cells of the image and of its mirror image lie half a pixel to either side of where they count.
        There is one rounding, in the division: what lies half-way, or on a cell, is there exactly.
        """
        exact = 2 * places * self._span + (self._extended - self.stride) * whole
        position = (exact.double() / (2 * self.stride * whole)).clamp_(0, self.cells - 1)
        low = position.floor().long()
        return Taps(low, (low + 1).clamp_(max=self.cells - 1), (position - low).float())


@dataclass(frozen=True)
class Tiles:
    """The tiles of an image: in columns along `x`, in rows along `y`."""

    x: TileAxis
    y: TileAxis

    @classmethod
    def of(cls, pixels: Pixels, views: ViewOptions, stride: int) -> Tiles:
        """Return the tiles of an image."""
        height, width = pixels.shape[:2]
        return cls(
            TileAxis.of(width, views.tile, views.shared, stride, is_centred=views.flip),
            TileAxis.of(height, views.tile, views.shared, stride),
        )

    @property
    def count(self) -> int:
        """The number of tiles."""
        return self.x.count * self.y.count

    def row(self, pixels: Pixels, index: int) -> Iterator[Pixels]:
        """Yield the pixels of the tiles in a row, from left to right: uint8, shape (tile, tile, 3)."""
        top = index * self.y.step
        for column in range(self.x.count):
            left = column * self.x.step - self.x.before
            part = pixels[top : top + self.y.tile, max(0, left) : left + self.x.tile]
            below, beside = self.y.tile - part.shape[0], self.x.tile - part.shape[1]
            if below or beside:
                before = max(0, -left)
                part = np.pad(part, ((0, below), (before, beside - before), (0, 0)), mode="edge")
            yield np.ascontiguousarray(part)
