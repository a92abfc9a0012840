"""Several views of one image: tiles, scales, mirror image.

All of it goes row by row, a row of tiles at a time: whole logits of a large image are too large.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..inputs.shared_pixels import Pixels, leave_rows
from .interpolation import Taps, windows
from .labels import Upsampled, Upsampler, in_half
from .options import ViewOptions
from .tiling import Tiles

Forward = Callable[[list[Pixels]], Tensor]
"""Runs the network on tiles of one shape; returns logits: float32, shape (tiles, classes, rows, columns)."""

RowBlocks = Iterator[Tensor]
"""Rows of an image from top to bottom, some at a time: float32, shape (classes, rows, columns)."""

# Columns of a label map that are interpolated at once: the matrix that does it stays small.
_COLUMNS = 1024


class _Rows(NamedTuple):
    """An image's rows of logits or probabilities, and where they lie in the image."""

    blocks: RowBlocks
    grid: Tiles


class Views:
    """Knows the views of an image, and makes one label map of them; `stride` is the network's, in pixels."""

    def __init__(self, options: ViewOptions, stride: int) -> None:
        self._options = options
        self._stride = stride

    def grid(self, pixels: Pixels) -> Tiles:
        """Return the tiles of an image."""
        return Tiles.of(pixels, self._options, self._stride)

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
        kept: list[Tensor] | None = None,
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
        kept
            Takes the logits as float16, some rows at a time; only of one size, without its mirror image.
        """
        is_average = len(sizes) > 1 or self._options.flip
        blocks, grid = _average(
            [self._rows(pixels, forward, batch_size, as_probabilities=is_average) for pixels in sizes]
        )
        if kept is not None:
            blocks = _keeping(blocks, kept)
        x, y = grid.x.taps_of_pixels(size[0]), grid.y.taps_of_pixels(size[1])
        return upsample_blocks(blocks, x, y, replace(upsampler, probabilities=is_average), device)

    def _rows(self, pixels: Pixels, forward: Forward, batch_size: int, *, as_probabilities: bool) -> _Rows:
        """Return the logits of an image at one size, or its probabilities."""
        grid = self.grid(pixels)
        blocks = blend(pixels, grid, forward, batch_size)
        if as_probabilities:
            blocks = (torch.softmax(block, 0) for block in blocks)
        if self._options.flip:
            # Its tiles are the mirrored tiles, so its cells coincide with those of the image.
            mirrored = blend(pixels[:, ::-1], grid, forward, batch_size)
            turned = (torch.softmax(block, 0).flip(2) for block in mirrored)
            blocks = average([blocks, turned])
        return _Rows(blocks, grid)


def _keeping(blocks: RowBlocks, kept: list[Tensor]) -> RowBlocks:
    for block in blocks:
        kept.append(in_half(block))
        yield block


def blend(pixels: Pixels, grid: Tiles, forward: Forward, batch_size: int) -> RowBlocks:
    """Yield an image's logits at the network's stride, blended where tiles overlap.

    `pixels` may be mapped from a file. The logits do not depend on `batch_size`, the number of tiles that the
    network gets at once.
    """
    carried: Tensor | None = None
    for index in range(grid.y.count):
        rows = _row_of_tiles(pixels, grid, index, forward, batch_size)
        leave_rows(pixels, (index + 1) * grid.y.step)
        rows *= grid.y.weights(index).to(rows.device)[:, None]
        if carried is not None:
            rows[:, : carried.shape[1]] += carried
        # The rows from here on have a part of the next row of tiles.
        final = grid.y.step_cells if index < grid.y.count - 1 else grid.y.cells - index * grid.y.step_cells
        carried = rows[:, final:].clone()
        yield rows[:, :final]


def _row_of_tiles(pixels: Pixels, grid: Tiles, index: int, forward: Forward, batch_size: int) -> Tensor:
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


def _average(sizes: Sequence[_Rows]) -> _Rows:
    """Return the average of an image's probabilities at several sizes, in the cells of the largest."""
    (blocks, grid), *smaller = sizes
    if not smaller:
        return sizes[0]
    resampled = [
        resample(other, at.x.taps_of_cells(grid.x), at.y.taps_of_cells(grid.y)) for other, at in smaller
    ]
    return _Rows(average([blocks, *resampled]), grid)


def average(streams: Sequence[RowBlocks]) -> RowBlocks:
    """Yield the average of several images' rows; they have one size, but each comes in its own blocks."""
    waiting: list[Tensor | None] = [None] * len(streams)
    while True:
        for index, stream in enumerate(streams):
            block = waiting[index]
            if block is None or not block.shape[1]:
                waiting[index] = next(stream, None)
        ready = [block for block in waiting if block is not None]
        if len(ready) < len(streams):
            return
        rows = min(block.shape[1] for block in ready)
        total = ready[0][:, :rows].clone()
        for block in ready[1:]:
            total += block[:, :rows]
        waiting = [block[:, rows:] for block in ready]
        yield total.div_(len(ready))


def resample(blocks: RowBlocks, x: Taps, y: Taps) -> RowBlocks:
    """Yield rows that are interpolated bilinearly at other places."""
    for window in windows(blocks, y):
        rows = window.rows
        down, across = window.y.to(rows.device), x.to(rows.device)
        weight = down.weight[:, None]
        tall = rows[:, down.low] * (1 - weight) + rows[:, down.high] * weight
        yield tall[:, :, across.low] * (1 - across.weight) + tall[:, :, across.high] * across.weight


def upsample_blocks(
    blocks: RowBlocks, x: Taps, y: Taps, upsampler: Upsampler, device: torch.device
) -> Upsampled:
    """Return the label map of rows that come block by block, and its confidence if that is wanted.

    Parameters
    ----------
    blocks
        Logits or probabilities: float32, shape (classes, rows, columns), on `device`.
    x, y
        The taps of the label map's columns and rows.
    upsampler
        Interpolates and takes the argmax.
    device
        Where the label map is made.
    """
    width = len(x.low)
    labels = torch.empty((len(y.low), width), dtype=torch.uint8, device=device)
    confidence = torch.empty_like(labels) if upsampler.options.confidence else None
    for window in windows(blocks, y):
        rows = slice(window.start, window.stop)
        for left in range(0, width, _COLUMNS):
            right = min(left + _COLUMNS, width)
            first, end = int(x.low[left]), int(x.high[right - 1]) + 1
            part = upsampler.upsample(window.rows[:, :, first:end], x.part(left, right, first), window.y)
            labels[rows, left:right] = part.labels
            if confidence is not None and part.confidence is not None:
                confidence[rows, left:right] = part.confidence
    return Upsampled(labels, confidence)
