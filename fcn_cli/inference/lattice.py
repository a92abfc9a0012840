"""Where the cells of logits lie in a photo, and the taps between one lattice of cells and another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolation import Taps
from .tiling import TileAxis


@dataclass(frozen=True)
class Lattice:
    """The places of an image's cells of logits along one axis.

    A place t from 0 to 1 in the image is at the index ``t * span / stride + shift / (2 * stride) - 0.5``.

    Attributes
    ----------
    cells
        The number of cells.
    span
        The pixels that the photo takes up.
    shift
        Twice the pixels by which the cells begin before the photo.
    stride
        Pixels per cell.
    """

    cells: int
    span: int
    shift: int
    stride: int

    @classmethod
    def of(cls, axis: TileAxis, *, symmetric: bool) -> Lattice:
        """Return the lattice of an axis.

        One tile: the cells are stretched over the photo, as torchvision does it. Several: a cell is exactly
        `stride` pixels, so that a photo moved by the stride gives the moved mask; the last cell may extend
        beyond the photo. `symmetric`: it is for the average with the mirror image, whose cells begin at the
        other end; the lattice half-way between the two is its own mirror image.
        """
        whole = axis.cells * axis.stride
        if not axis.is_tiled:
            return cls(axis.cells, whole, 0, axis.stride)
        return cls(axis.cells, axis.length, whole - axis.length if symmetric else 0, axis.stride)

    def taps_of_pixels(self, size: int) -> Taps:
        """Return the taps of the pixels of a label map with `size` pixels along this axis."""
        return self._taps(2 * torch.arange(size) + 1, 2 * size)

    def taps_of_cells(self, other: Lattice) -> Taps:
        """Return the taps of the cells of another lattice over the same photo."""
        return self._taps((2 * torch.arange(other.cells) + 1) * other.stride - other.shift, 2 * other.span)

    def _taps(self, places: Tensor, whole: int) -> Taps:
        """Return the taps of places, whole numbers of `whole`.

        There is one rounding, in the division: what lies half-way, or on a cell, is there exactly.
        """
        exact = 2 * places * self.span + (self.shift - self.stride) * whole
        position = (exact.double() / (2 * self.stride * whole)).clamp_(0, self.cells - 1)
        low = position.floor().long()
        return Taps(low, (low + 1).clamp_(max=self.cells - 1), (position - low).float())
