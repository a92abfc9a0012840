"""Logits to labels on a CPU by our compiled kernels. Importing this module loads llvmlite."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..cpu.kernels import matmul
from ..cpu.kernels.argmax import argmax
from ..cpu.kernels.matmul import DEPTH, in_panels, pointwise
from ..cpu.workspace import Workspace
from .interpolation import Taps, interpolation_matrix, strip_bounds

# Elements of the rows that are interpolated at once: 32 MiB at any size of the label map.
_CHUNK_ELEMENTS = 1 << 23


def compiled_label_map(logits: Tensor, x: Taps, y: Taps) -> Tensor:
    """Interpolate logits and take the argmax with the compiled kernels.

    `logits` are float32, shape (classes, h, w), contiguous, on the CPU; `x` and `y` the taps of the columns
    and of the rows. The result is uint8, shape (len(y.low), len(x.low)).
    """
    classes, _, size = logits.shape
    height, width = len(y.low), len(x.low)
    padded = matmul.padded(width)
    depth = -(-size // DEPTH) * DEPTH
    # Equal logits stay equal: our product sums every row in the same order; other libraries' may not.
    matrix, no_bias = in_panels(interpolation_matrix(x, depth, padded)), torch.zeros(padded)
    space = Workspace()
    labels = torch.empty((height, padded), dtype=torch.uint8)
    ends = torch.tensor(strip_bounds(y))
    rows = torch.stack([y.low[ends[:-1]], y.high[ends[:-1]]], 1)
    strips_at_once = max(1, _CHUNK_ELEMENTS // (classes * padded))
    for first in range(0, len(rows), strips_at_once):
        part = rows[first : first + strips_at_once]
        top, bottom = int(part[0, 0]), int(part[-1, 1]) + 1
        narrow = F.pad(logits[:, top:bottom].transpose(0, 1), (0, depth - size)).reshape(-1, depth)
        wide = space.take("wide", bottom - top, classes, padded)
        pointwise(narrow, matrix, no_bias, wide.view(-1, padded), (None, None), space, add=False)
        argmax(
            wide,
            ends[first : first + len(part) + 1],
            (part - top).contiguous(),
            y.weight,
            labels,
        )
    return labels[:, :width].contiguous()
