"""How features and weights lie in memory for AMX.

Features lie in planes of 32 channels, so that 16 neighbouring pixels are a tile, wherever they begin. There
are zeros around an image, and they are positions like pixels. Weights lie in panels of 32 columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..workspace import Workspace, prefer_huge_pages
from .amx_blocks import BLOCK
from .amx_ir import PARTS
from .ir_amx import DEPTH, ROWS

BORDER = 4
"""The zeros right of a row, which are those left of the next one, and the rows of zeros above and below."""


def fits(channels: int, columns: int) -> bool:
    """Return whether the kernel supports a filter of so many channels in and out."""
    return channels % DEPTH == 0 and columns % BLOCK == 0


def in_panels(weights: Tensor) -> Tensor:
    """Return filters in the order in which the kernel reads them.

    Parameters
    ----------
    weights
        Shape (columns, channels, taps, taps).

    Returns
    -------
    Tensor
        bfloat16, shape (columns / 32, channels / 32, taps * taps, 2, 16, 16, 2): for each tap two tiles side
        by side, whose rows are pairs of channels.
    """
    return _in_panels(weights.flatten(2))


def in_three_panels(weights: Tensor) -> Tensor:
    """Return a 1x1 filter of float32 weights, as `in_panels` does, but with three parts for the taps.

    A weight is their sum, to 24 bits: each part is the bfloat16 nearest to what the parts before left.
    """
    parts, rest = [], weights.flatten(2).float()
    for _ in range(PARTS):
        parts.append(rest.bfloat16().float())
        rest = rest - parts[-1]
    return _in_panels(torch.cat(parts, dim=2))


def _in_panels(weights: Tensor) -> Tensor:
    columns, channels = weights.shape[:2]
    tiles = weights.reshape(columns // BLOCK, 2, ROWS, channels // DEPTH, ROWS, 2, -1)
    ordered = tiles.permute(0, 3, 6, 1, 4, 2, 5)
    return prefer_huge_pages(torch.empty(ordered.shape, dtype=torch.bfloat16)).copy_(ordered)


def take_features(
    space: Workspace, name: str, height: int, width: int, channels: int, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Return memory for features in the layout of `Convolution`.

    It is a view of shape (channels / 32, h, w, 32) of memory with zeros around each plane, to which nothing
    may write. The pixels are uninitialised.
    """
    row, plane = width + BORDER, _plane_positions(height, width)
    memory = space.take_zeroed(f"{name} of {channels}", channels // DEPTH, plane, DEPTH, dtype=dtype)
    strides = (plane * DEPTH, row * DEPTH, DEPTH, 1)
    return memory.as_strided((len(memory), height, width, DEPTH), strides, BORDER * (row + 1) * DEPTH)


def are_features(x: Tensor) -> bool:
    """Return whether a tensor has the layout of `take_features`."""
    if x.dtype not in (torch.bfloat16, torch.float32) or x.ndim != 4 or x.shape[3] != DEPTH:
        return False
    planes, height, width, _ = x.shape
    row, plane = width + BORDER, _plane_positions(height, width)
    strides = (plane * DEPTH, row * DEPTH, DEPTH, 1)
    whole = x.untyped_storage().nbytes() // x.itemsize >= planes * plane * DEPTH
    return bool(x.stride() == strides and x.storage_offset() == BORDER * (row + 1) * DEPTH and whole)


def _plane_positions(height: int, width: int) -> int:
    # The last block may begin at the last pixel, and reads as much further as the last tap is away.
    return (height + 2 * BORDER) * (width + BORDER) + BORDER + BLOCK
