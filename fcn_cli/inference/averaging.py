"""The average of a photo's probabilities over several sizes and its mirror image, row by row.

Everything here is its own mirror image, bit for bit: the average of a and the mirrored b is the mirror image
of the average of b and the mirrored a, and a right half is interpolated as the left half of the mirror image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .blending import RowBlocks
from .interpolation import Taps, Window, windows
from .upsampling import Upsampled, Upsampler

# Columns of a label map that are interpolated at once: the matrix that does it stays small.
_COLUMNS = 1024


def average_mirrored(straight: RowBlocks, mirrored: RowBlocks) -> RowBlocks:
    """Yield the average of the probabilities of an image and its mirror image, from the logits of both."""
    for ours, theirs in zip(straight, mirrored, strict=True):
        yield (torch.softmax(ours, 0) + torch.softmax(theirs, 0).flip(2)).mul_(0.5)


def probabilities(blocks: RowBlocks) -> RowBlocks:
    """Yield the probabilities of logits."""
    for block in blocks:
        yield torch.softmax(block, 0)


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
        rows, (low, high, weight) = window.rows, window.y
        weight = weight.to(rows.device)[:, None]
        tall = rows[:, low.to(rows.device)] * (1 - weight) + rows[:, high.to(rows.device)] * weight
        size = len(x.low)
        wide = tall.new_empty((*tall.shape[:2], size))
        left = x.part(0, (size + 1) // 2)
        wide[:, :, : len(left.low)] = _interpolated(tall, left)
        right = x.part(0, size // 2)
        wide[:, :, len(left.low) :] = _interpolated(tall.flip(2), right).flip(2)
        yield wide


def _interpolated(rows: Tensor, x: Taps) -> Tensor:
    weight = x.weight.to(rows.device)
    return rows[:, :, x.low.to(rows.device)] * (1 - weight) + rows[:, :, x.high.to(rows.device)] * weight


def upsample_blocks(
    blocks: RowBlocks, x: Taps, y: Taps, upsampler: Upsampler, device: torch.device, *, symmetric: bool
) -> Upsampled:
    """Return the label map of rows that come block by block, and its confidence if that is wanted.

    Parameters
    ----------
    blocks
        Logits or probabilities: float32, shape (classes, rows, columns).
    x, y
        The taps of the label map's columns and rows.
    upsampler
        Interpolates and takes the argmax.
    device
        Where the rows are.
    symmetric
        Mirrored rows shall give the mirrored label map, bit for bit; the taps are their own mirror image.
    """
    shape = len(y.low), len(x.low)
    maps = [torch.empty(shape, dtype=torch.uint8, device=device)]
    if upsampler.options.confidence:
        maps.append(torch.empty_like(maps[0]))
    for window in windows(blocks, y):
        for columns, part in _parts(window, x, upsampler, symmetric=symmetric):
            for whole, piece in zip(maps, part, strict=False):
                assert piece is not None  # noqa: S101 - there is a map for each piece that is wanted
                whole[window.start : window.stop, columns] = piece
    return Upsampled(maps[0], maps[1] if upsampler.options.confidence else None)


def _parts(
    window: Window, x: Taps, upsampler: Upsampler, *, symmetric: bool
) -> Iterator[tuple[slice, Upsampled]]:
    """Yield the label map of a window in columns; with `symmetric` the right half from mirrored rows."""
    width = len(x.low)
    halves = ((width + 1) // 2, width // 2) if symmetric else (width, 0)
    for size, is_mirrored in zip(halves, (False, True), strict=True):
        rows = window.rows.flip(2) if is_mirrored else window.rows
        for left in range(0, size, _COLUMNS):
            right = min(left + _COLUMNS, size)
            first, end = int(x.low[left]), int(x.high[right - 1]) + 1
            part = upsampler.upsample(rows[:, :, first:end], x.part(left, right, first), window.y)
            if is_mirrored:
                flipped = None if part.confidence is None else part.confidence.flip(1)
                yield slice(width - right, width - left), Upsampled(part.labels.flip(1), flipped)
            else:
                yield slice(left, right), part
