"""How an image is divided into the tiles of Winograd's method."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TileGrid:
    """The tiles of `tile` x `tile` pixels that cover an image of `height` x `width` pixels.

    A convolution with dilation d splits the image into d^2 interleaved phases, and each phase has tiles of
    its own. Tiles are ordered by the row in which their phase starts, tile row, column in which their phase
    starts, and tile column. Every phase has as many tiles as the largest one, so that the matrix products
    need not tell phases apart.
    """

    height: int
    width: int
    dilation: int
    tile: int

    @property
    def columns(self) -> int:
        """The number of tile columns of a phase."""
        return math.ceil(math.ceil(self.width / self.dilation) / self.tile)

    @property
    def rows(self) -> int:
        """The number of tile rows of a phase."""
        return math.ceil(math.ceil(self.height / self.dilation) / self.tile)

    @property
    def phases(self) -> int:
        """The number of phases that start in an image row."""
        return min(self.dilation, self.width)

    @property
    def tiles(self) -> int:
        """The number of all tiles."""
        return min(self.dilation, self.height) * self.rows * self.phases * self.columns


@dataclass(frozen=True)
class TileRange:
    """`count` consecutive tiles of a grid, from number `first` on.

    Raises
    ------
    ValueError
        The grid has no such tiles.
    """

    grid: TileGrid
    first: int
    count: int

    def __post_init__(self) -> None:
        if self.first < 0 or self.count <= 0 or self.first + self.count > self.grid.tiles:
            raise ValueError(
                f"tiles {self.first} to {self.first + self.count} of a grid that has {self.grid.tiles}"
            )

    def fields(self) -> dict[str, int]:
        """Return the task fields that describe the range to a kernel."""
        return {
            "height": self.grid.height,
            "width": self.grid.width,
            "dilation": self.grid.dilation,
            "tile_columns": self.grid.columns,
            "phases": self.grid.phases,
            "tile_rows": self.grid.rows,
            "first": self.first,
            "tiles": self.count,
        }
