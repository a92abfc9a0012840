"""One image that the network sees in several views: tiles, sizes, the mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from . import averaging
from .averaging import upsample_blocks
from .blending import Forward, RowBlocks, blend
from .lattice import Lattice
from .options import ViewOptions
from .tiling import Pixels, TileGrid
from .upsampling import Upsampled, Upsampler


class _Rows(NamedTuple):
    """An image's rows of logits or probabilities, and where they lie in the image."""

    blocks: RowBlocks
    x: Lattice
    y: Lattice


class Views:
    """Knows the views of an image, and makes one label map of them; `stride` is the network's, in pixels."""

    def __init__(self, options: ViewOptions, stride: int) -> None:
        self._options = options
        self._stride = stride

    def grid(self, pixels: Pixels) -> TileGrid:
        """Return the tiles of an image."""
        return TileGrid.of(pixels, self._options, self._stride)

    def input_size(self, pixels: Pixels) -> tuple[int, int]:
        """Return the (width, height) in which the network sees an image: its own, or that of a tile."""
        grid = self.grid(pixels)
        return grid.x.tile, grid.y.tile

    def describe(self, pixels: Pixels) -> tuple[str, ...]:
        """Return notes for an image's record: its tiles, and whether its mirror image counts."""
        if self._options.tile is None and not self._options.flip:
            return ()
        grid = self.grid(pixels)
        notes = ["averaged with its mirror image"] if self._options.flip else []
        if grid.count > 1:
            notes.insert(0, f"{grid.count} tiles of {grid.x.tile}x{grid.y.tile}")
        return tuple(notes)

    def sees_whole(self, pixels: Pixels, smaller: Sequence[Pixels]) -> bool:
        """Say whether an image is seen once, as a whole."""
        return not smaller and not self._options.flip and self.grid(pixels).count == 1

    def upsample(
        self,
        sizes: Sequence[Pixels],
        size: tuple[int, int],
        forward: Forward,
        batch_size: int,
        upsampler: Upsampler,
        device: torch.device,
    ) -> Upsampled:
        """Return the label map of an image.

        Parameters
        ----------
        sizes
            The image at each size, the largest first.
        size
            The (width, height) of the label map in pixels.
        forward, batch_size
            The network, and how many tiles to give it at once.
        upsampler
            Makes the label map of logits.
        device
            Where the logits are.
        """
        is_average = len(sizes) > 1 or self._options.flip
        rows = self._average(
            [self._rows(pixels, forward, batch_size, as_probabilities=is_average) for pixels in sizes]
        )
        return upsample_blocks(
            rows.blocks,
            rows.x.taps_of_pixels(size[0]),
            rows.y.taps_of_pixels(size[1]),
            replace(upsampler, probabilities=is_average),
            device,
            symmetric=self._options.flip,
        )

    def _average(self, sizes: Sequence[_Rows]) -> _Rows:
        """Return the average of an image's probabilities at several sizes, on the lattice of the largest."""
        largest = sizes[0]
        if len(sizes) == 1:
            return largest
        resampled = [
            averaging.resample(rows.blocks, rows.x.taps_of_cells(largest.x), rows.y.taps_of_cells(largest.y))
            for rows in sizes[1:]
        ]
        return _Rows(averaging.average([largest.blocks, *resampled]), largest.x, largest.y)

    def _rows(self, pixels: Pixels, forward: Forward, batch_size: int, *, as_probabilities: bool) -> _Rows:
        """Return the logits of an image at one size, or its probabilities."""
        grid, flip = self.grid(pixels), self._options.flip
        blocks = blend(pixels, grid, forward, batch_size)
        if flip:
            mirrored = blend(pixels[:, ::-1], grid, forward, batch_size)
            blocks = averaging.average_mirrored(blocks, mirrored)
        elif as_probabilities:
            blocks = averaging.probabilities(blocks)
        return _Rows(blocks, Lattice.of(grid.x, symmetric=flip), Lattice.of(grid.y, symmetric=False))
