"""Where bilinear interpolation reads, by PyTorch's rule (``align_corners=False``)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """For every output index the two source indices and the weight of the second."""

    low: Tensor
    high: Tensor
    weight: Tensor


def taps(size_in: int, size_out: int) -> Taps:
    """Return where PyTorch's half-pixel rule reads: (i + 0.5) * in / out - 0.5, not below 0, in float32."""
    scale = torch.tensor(size_in, dtype=torch.float32) / torch.tensor(size_out, dtype=torch.float32)
    position = ((torch.arange(size_out, dtype=torch.float32) + 0.5) * scale - 0.5).clamp_(min=0)
    low = position.floor().long().clamp_(max=size_in - 1)
    high = (low + 1).clamp_(max=size_in - 1)
    return Taps(low, high, position - low)


def bounds(y: Taps) -> list[int]:
    """Return where strips begin that each lie between two rows of logits, and where the last one ends."""
    return [0, *(torch.nonzero(y.low.diff()).flatten() + 1).tolist(), len(y.low)]


def widening(x: Taps, size: int, width: int) -> Tensor:
    """Return float32, shape (size, width): what a row of logits is multiplied with to be interpolated."""
    matrix = torch.zeros(size, width)
    columns = torch.arange(len(x.low))
    matrix[x.low, columns] = 1 - x.weight
    matrix[x.high, columns] += x.weight
    return matrix
