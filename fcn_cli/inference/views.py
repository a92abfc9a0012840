"""One photo that the network sees in several views: tiles, sizes, the mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.errors import Failure
from ..common.label_map import Segmentation
from . import averaging
from .averaging import upsample_blocks
from .batch_limits import BatchLimits
from .blending import RowBlocks, blend
from .device_network import DeviceNetwork
from .failures import not_finite, out_of_memory
from .lattice import Lattice
from .options import ViewOptions
from .tiling import TileGrid
from .upsampling import PredictionOptions, Upsampler

LARGEST_LOGIT = torch.finfo(torch.float32).max / 4
"""Interpolation computes differences of logits, which must not overflow either."""

Pixels = NDArray[np.uint8]
"""RGB, uint8, shape (h, w, 3)."""


class OutOfMemory(Exception):
    """The network has too little memory for one input of `shape`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.shape = shape


class NotFinite(Exception):
    """The network's logits are not finite."""


class _Rows(NamedTuple):
    """An image's rows of logits or probabilities, and where they lie in the photo."""

    blocks: RowBlocks
    x: Lattice
    y: Lattice


class ViewNetwork:
    """Predicts one photo from several views of it; see `ViewOptions`.

    Parameters
    ----------
    network
        The network on its device.
    limits
        How many inputs of a shape fit into memory.
    views
        The tiles, and whether the mirror image counts too.
    options
        What to predict beside the classes.
    stride
        The network's stride in pixels.
    """

    def __init__(
        self,
        network: DeviceNetwork,
        limits: BatchLimits,
        views: ViewOptions,
        options: PredictionOptions,
        stride: int,
    ) -> None:
        self._network = network
        self._limits = limits
        self._views = views
        self._options = options
        self._stride = stride

    def grid(self, pixels: Pixels) -> TileGrid:
        """Return the tiles of an image."""
        return TileGrid.of(pixels, self._views, self._stride)

    def input_size(self, pixels: Pixels) -> tuple[int, int]:
        """Return the (width, height) in which the network sees an image: its own, or that of a tile."""
        grid = self.grid(pixels)
        return grid.x.tile, grid.y.tile

    def describe(self, pixels: Pixels) -> tuple[str, ...]:
        """Return notes for a photo's record: its tiles, and whether its mirror image counts."""
        if self._views.tile is None and not self._views.flip:
            return ()
        grid = self.grid(pixels)
        notes = ["averaged with its mirror image"] if self._views.flip else []
        if grid.count > 1:
            notes.insert(0, f"{grid.count} tiles of {grid.x.tile}x{grid.y.tile}")
        return tuple(notes)

    def is_needed(self, pixels: Pixels, smaller: Sequence[Pixels]) -> bool:
        """Say whether a photo is seen in more than one view."""
        return bool(smaller) or self._views.flip or self.grid(pixels).count > 1

    def predict(self, sizes: Sequence[Pixels], size: tuple[int, int]) -> Segmentation | Failure:
        """Segment one photo; where its logits are not finite, again in the fallback precision.

        Parameters
        ----------
        sizes
            The photo at each size, the largest first.
        size
            The (width, height) of the label map in pixels.
        """
        execution = self._network.execution
        precision, fallback = execution.precision, execution.fallback
        try:
            try:
                return self._predict_in(precision, sizes, size)
            except NotFinite:
                if fallback is None:
                    raise
            return self._predict_in(fallback, sizes, size)
        except NotFinite:
            return not_finite(fallback or precision)
        except OutOfMemory as error:
            return out_of_memory(error.shape)

    def _predict_in(self, precision: str, sizes: Sequence[Pixels], size: tuple[int, int]) -> Segmentation:
        """Segment one photo in a precision; raises NotFinite or OutOfMemory."""
        is_average = len(sizes) > 1 or self._views.flip
        with torch.inference_mode():
            rows = self._average(
                [self._rows(pixels, precision, as_probabilities=is_average) for pixels in sizes]
            )
            maps = upsample_blocks(
                rows.blocks,
                rows.x.taps_of_pixels(size[0]),
                rows.y.taps_of_pixels(size[1]),
                Upsampler(
                    self._options,
                    compiled=self._network.compiled,
                    probabilities=is_average,
                    kernel=self._network.label_kernel,
                ),
                self._network.device,
                symmetric=self._views.flip,
            )
            arrays = self._network.to_host([tensor for tensor in maps if tensor is not None])
        return Segmentation(arrays[0], arrays[1] if self._options.confidence else None, precision)

    def _average(self, sizes: Sequence[_Rows]) -> _Rows:
        """Return the average of a photo's probabilities at several sizes, on the lattice of the largest."""
        largest = sizes[0]
        if len(sizes) == 1:
            return largest
        resampled = [
            averaging.resample(rows.blocks, rows.x.taps_of_cells(largest.x), rows.y.taps_of_cells(largest.y))
            for rows in sizes[1:]
        ]
        return _Rows(averaging.average([largest.blocks, *resampled]), largest.x, largest.y)

    def _rows(self, pixels: Pixels, precision: str, *, as_probabilities: bool) -> _Rows:
        """Return the logits of an image at one size, or its probabilities."""
        grid, flip = self.grid(pixels), self._views.flip
        blocks = self._blend(pixels, grid, precision)
        if flip:
            blocks = averaging.average_mirrored(blocks, self._blend(pixels[:, ::-1], grid, precision))
        elif as_probabilities:
            blocks = averaging.probabilities(blocks)
        return _Rows(blocks, Lattice.of(grid.x, symmetric=flip), Lattice.of(grid.y, symmetric=False))

    def _blend(self, pixels: Pixels, grid: TileGrid, precision: str) -> RowBlocks:
        def forward(tiles: list[Pixels]) -> Tensor:
            return self._forward(tiles, precision)

        return blend(pixels, grid, forward, self._limits.maximum)

    def _forward(self, tiles: Sequence[Pixels], precision: str) -> Tensor:
        """Return the logits of tiles of one shape, in as many batches as memory needs."""
        shape, parts, done = tiles[0].shape, list[Tensor](), 0
        while done < len(tiles):
            count = min(len(tiles) - done, self._limits.images(shape))
            batch = tiles[done : done + count]
            logits = (
                self._network.unless_out_of_memory(partial(self._network.logits, batch, precision))
                if batch
                else None
            )
            if logits is not None:
                if not bool(logits.abs().amax() <= LARGEST_LOGIT):
                    raise NotFinite
                parts.append(logits)
                done += count
            elif count > 1:
                self._limits.did_not_fit(shape, count)
            else:
                raise OutOfMemory(shape)
        return torch.cat(parts) if len(parts) > 1 else parts[0]
