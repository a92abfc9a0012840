"""The geometry of overlapping tiles: where they lie, and how much each counts where they overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .options import ViewOptions

Pixels = NDArray[np.uint8]
"""One image: RGB, uint8, shape (h, w, 3)."""


@dataclass(frozen=True)
class TileAxis:
    """The tiles along one axis of an image: pixels on one side, cells (logits) on the other.

    An image that is not longer than a tile is one tile of its own length. A longer one is extended by its
    last pixel until the last tile fits; then all tiles have one length, and their origins and their length
    are multiples of the stride.

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
    """

    length: int
    tile: int
    step: int
    stride: int

    @classmethod
    def of(cls, length: int, tile: int | None, overlap: int | None, stride: int) -> TileAxis:
        """Return the tiles along an axis.

        Parameters
        ----------
        length
            The image's length in pixels.
        tile, overlap
            The length of a tile and of the part that neighbours share, in pixels; both are rounded up to a
            multiple of the stride, the overlap to at most half of the tile. None: one tile.
        stride
            The network's stride in pixels.
        """
        if tile is None or overlap is None or length <= tile:
            return cls(length, length, length, stride)
        cells = -(-tile // stride)
        shared = min(-(-overlap // stride), cells // 2)
        return cls(length, cells * stride, (cells - shared) * stride, stride)

    @property
    def is_tiled(self) -> bool:
        """Whether the image is longer than a tile, and so extended to whole tiles."""
        return self.step != self.length

    @property
    def count(self) -> int:
        """The number of tiles."""
        return 1 + max(0, -(-(self.length - self.tile) // self.step))

    @property
    def cells(self) -> int:
        """The number of cells that have pixels of the image, and not of its extension only."""
        return -(-self.length // self.stride)

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


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image: in columns along `x`, in rows along `y`."""

    x: TileAxis
    y: TileAxis

    @classmethod
    def of(cls, pixels: Pixels, views: ViewOptions, stride: int) -> TileGrid:
        """Return the tiles of an image of shape (h, w, 3)."""
        height, width = pixels.shape[:2]
        return cls(
            TileAxis.of(width, views.tile, views.shared, stride),
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
            left = column * self.x.step
            part = pixels[top : top + self.y.tile, left : left + self.x.tile]
            below, beside = self.y.tile - part.shape[0], self.x.tile - part.shape[1]
            if below or beside:
                part = np.pad(part, ((0, below), (0, beside), (0, 0)), mode="edge")
            yield np.ascontiguousarray(part)
