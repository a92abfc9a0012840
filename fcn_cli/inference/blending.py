"""Logits of overlapping tiles become rows of logits of the whole image, a row of tiles at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .tiling import Pixels, TileGrid

Forward = Callable[[list[Pixels]], Tensor]
"""Runs the network on tiles of one shape; returns logits: float32, shape (tiles, classes, rows, columns)."""

RowBlocks = Iterator[Tensor]
"""Rows of an image from top to bottom, some at a time: float32, shape (classes, rows, columns)."""


def blend(pixels: Pixels, grid: TileGrid, forward: Forward, batch_size: int) -> RowBlocks:
    """Yield an image's logits at the network's stride, blended where tiles overlap.

    It holds the logits of one row of tiles, whatever the image's height is.

    Parameters
    ----------
    pixels
        RGB, uint8, shape (h, w, 3); it may be mapped from a file.
    grid
        Its tiles.
    forward
        The network.
    batch_size
        How many tiles to give it at once; the logits do not depend on it.
    """
    carried: Tensor | None = None
    for index in range(grid.y.count):
        rows = _row_of_tiles(pixels, grid, index, forward, batch_size)
        rows *= grid.y.weights(index).to(rows.device)[:, None]
        if carried is not None:
            rows[:, : carried.shape[1]] += carried
        # The rows from here on have a part of the next row of tiles.
        final = grid.y.step_cells if index < grid.y.count - 1 else grid.y.cells - index * grid.y.step_cells
        carried = rows[:, final:].clone()
        yield rows[:, :final]


def _row_of_tiles(pixels: Pixels, grid: TileGrid, index: int, forward: Forward, batch_size: int) -> Tensor:
    """Return the logits of a row of tiles, blended from left to right: (classes, tile_cells, cells)."""
    axis = grid.x
    total: Tensor | None = None
    tiles = grid.row(pixels, index)
    column = 0
    while batch := list(itertools.islice(tiles, batch_size)):
        for logits in forward(batch):
            if total is None:
                width = (axis.count - 1) * axis.step_cells + axis.tile_cells
                total = torch.zeros((*logits.shape[:2], width), device=logits.device)
            left = column * axis.step_cells
            weighted = logits * axis.weights(column).to(logits.device)
            total[:, :, left : left + axis.tile_cells] += weighted
            column += 1
    assert total is not None  # noqa: S101 - a row has a tile
    return total[:, :, : axis.cells]
