"""The taps of bilinear interpolation by PyTorch's rule (``align_corners=False``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_CPU = torch.device("cpu")


class Taps(NamedTuple):
    """Two source indices (`low`, `high`, int64) for each output index, and the float32 weight of `high`."""

    low: Tensor
    high: Tensor
    weight: Tensor

    def part(self, start: int, stop: int, first: int = 0) -> Taps:
        """Return the taps of some output indices; source index `first` becomes 0."""
        return Taps(self.low[start:stop] - first, self.high[start:stop] - first, self.weight[start:stop])

    def to(self, device: torch.device) -> Taps:
        """Return the taps on a device."""
        return Taps(*(part.to(device, non_blocking=True) for part in self))


def taps(size_in: int, size_out: int, device: torch.device = _CPU) -> Taps:
    """Return the taps of output index i by PyTorch's half-pixel rule, computed in float32.

    The source position is max(0, (i + 0.5) * size_in / size_out - 0.5).
    """
    scale = float(np.float32(size_in) / np.float32(size_out))
    position = ((torch.arange(size_out, dtype=torch.float32, device=device) + 0.5) * scale - 0.5).clamp_(0)
    low = position.floor().long().clamp_(max=size_in - 1)
    high = (low + 1).clamp_(max=size_in - 1)
    return Taps(low, high, position - low)


def strip_bounds(y: Taps) -> list[int]:
    """Return the first output row of each strip, and the end of the last strip.

    All rows of a strip lie between the same two rows of logits.
    """
    return [0, *(torch.nonzero(y.low.diff()).flatten() + 1).tolist(), len(y.low)]


def interpolation_matrix(x: Taps, size: int, width: int) -> Tensor:
    """Return the matrix that interpolates a row of logits: float32, shape (size, width).

    Columns after the last tap are zero, so that `width` may include padding.
    """
    matrix = torch.zeros(size, width)
    columns = torch.arange(len(x.low))
    matrix[x.low, columns] = 1 - x.weight
    matrix[x.high, columns] += x.weight
    return matrix


class Window(NamedTuple):
    """Output rows from `start` to `stop`, the source rows that they need, and their taps in these."""

    start: int
    stop: int
    rows: Tensor
    y: Taps


def windows(blocks: Iterable[Tensor], y: Taps) -> Iterator[Window]:
    """Yield the output rows, in order, as soon as the source rows that they need have come.

    `blocks` are the source rows from top to bottom, some at a time: shape (classes, rows, columns). `y` are
    the taps of all output rows.
    """
    kept: Tensor | None = None
    start = first = 0
    for block in blocks:
        kept = block if kept is None else torch.cat([kept, block], 1)
        stop = int(torch.searchsorted(y.high, first + kept.shape[1]))
        if stop > start:
            yield Window(start, stop, kept, y.part(start, stop, first))
            start = stop
        if start < len(y.low):
            needed = int(y.low[start]) - first
            kept = kept[:, needed:].clone()
            first += needed
