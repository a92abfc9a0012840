"""Logits to labels on a CPU by our compiled kernels; llvmlite comes with this module."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..cpu.kernels import matmul
from ..cpu.kernels.argmax import argmax
from ..cpu.kernels.matmul import in_panels, pointwise
from ..cpu.kernels.matmul_ir import DEPTH
from ..cpu.workspace import Workspace
from .interpolation import Taps, bounds, widening

# Elements of the logits that are widened together: 32 MiB, whatever the label map's size.
_WIDE_ELEMENTS = 1 << 23


def labels_between(logits: Tensor, x: Taps, y: Taps) -> Tensor:
    """Return the label map by the kernel."""
    classes, _, size = logits.shape
    height, width = len(y.low), len(x.low)
    padded = matmul.padded(width)
    depth = -(-size // DEPTH) * DEPTH
    # Equal logits stay equal: our product sums up every row in one order, other libraries' need not.
    widen, nothing = in_panels(widening(x, depth, padded)), torch.zeros(padded)
    space = Workspace()
    labels = torch.empty((height, padded), dtype=torch.uint8)
    ends = torch.tensor(bounds(y))
    rows = torch.stack([y.low[ends[:-1]], y.high[ends[:-1]]], 1)
    together = max(1, _WIDE_ELEMENTS // (classes * padded))
    for first in range(0, len(rows), together):
        part = rows[first : first + together]
        top, bottom = int(part[0, 0]), int(part[-1, 1]) + 1
        narrow = F.pad(logits[:, top:bottom].transpose(0, 1), (0, depth - size)).reshape(-1, depth)
        wide = space.take("wide", bottom - top, classes, padded)
        pointwise(narrow, widen, nothing, wide.view(-1, padded), (None, None), space, add=False)
        argmax(
            wide,
            ends[first : first + len(part) + 1],
            (part - top).contiguous(),
            y.weight,
            labels,
        )
    return labels[:, :width].contiguous()
