"""How an image is cut into the tiles that Winograd's method computes together."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """How an image of `height` x `width` is cut into tiles of `tile` x `tile`.

    Tiles are numbered by the row in which their phase starts, then by their row of tiles, phase, and place in
    the row. All phases have the tiles of the largest one, so that they look alike to the matrix products.
    """

    height: int
    width: int
    dilation: int
    tile: int

    @property
    def across(self) -> int:
        """How many tiles there are in a row of one phase."""
        return math.ceil(math.ceil(self.width / self.dilation) / self.tile)

    @property
    def down(self) -> int:
        """How many tiles there are in a column of one phase."""
        return math.ceil(math.ceil(self.height / self.dilation) / self.tile)

    @property
    def phases(self) -> int:
        """How many phases start in an image row."""
        return min(self.dilation, self.width)

    @property
    def tiles(self) -> int:
        """How many tiles there are in all."""
        return min(self.dilation, self.height) * self.down * self.phases * self.across

    def fields(self, first: int, tiles: int) -> dict[str, int]:
        """Return what a kernel must know to do some tiles."""
        return {
            "height": self.height,
            "width": self.width,
            "dilation": self.dilation,
            "across": self.across,
            "phases": self.phases,
            "down": self.down,
            "first": first,
            "tiles": tiles,
        }
