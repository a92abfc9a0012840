"""Matrix products in float32: a kernel for the 1x1 convolutions, and one for those of Winograd's tiles.

The scheme is the usual one (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"): the
right factor, a layer's weights, lies in panels of as many columns as the registers hold; the left one in
blocks of as many rows. For each pair a small part of the result is summed up in registers, over all of the
depth, then gets what is added to it and is written, once. So it does not depend on how rows are shared out.

Blocks lie as (depth / 16, rows of a block, 16): a cache line of every row in turn. The 1x1 convolutions'
kernel copies them there; the transform of tiles writes them so.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..workspace import Workspace
from . import compiler, matmul_ir
from .compiler import Clamp, SimdTarget
from .ir_builder import FLOAT_BYTES
from .matmul_ir import DEPTH

# Bytes of the left factor that a thread goes through for each panel of the right one: both stay in its L2.
_BLOCKS_BYTES = 384 << 10


def fits(depth: int, columns: int) -> bool:
    """Say whether a right factor of this shape can be multiplied with."""
    return depth % DEPTH == 0 and columns % max(each.lanes for each in compiler.PROCESSORS) == 0


def padded(columns: int) -> int:
    """Return how many columns whole panels have."""
    width = compiler.processor().columns
    return -(-columns // width) * width


def filled(columns: Tensor) -> Tensor:
    """Return (..., columns) filled up with zeros to whole panels."""
    count = columns.shape[-1]
    return F.pad(columns, (0, padded(count) - count))


def in_panels(weights: Tensor) -> Tensor:
    """Return (..., depth, columns) as float32 panels (..., panels, depth, width), filled up with zeros."""
    width = compiler.processor().columns
    panels = filled(weights.float()).unflatten(-1, (-1, width))  # type: ignore[no-untyped-call]
    result: Tensor = panels.transpose(-3, -2).contiguous()
    return result


def pointwise(
    pixels: Tensor,
    panels: Tensor,
    bias: Tensor,
    result: Tensor,
    limits: Clamp,
    space: Workspace,
    *,
    add: bool,
) -> None:
    """Write the product of pixels and weights, with bias and clamped, or add it to what is there before that.

    Parameters
    ----------
    pixels
        float32, shape (pixels, channels in), contiguous.
    panels
        The weights, (channels in, channels out), as `in_panels` has them.
    bias
        float32, shape (channels out,) filled up to whole panels.
    result
        float32, shape (pixels, channels out), contiguous.
    limits
        The least and the largest value of the result, if any.
    space
        For the pixels in blocks.
    add
        Whether the result is added to.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides are not as said above.
    """
    here = compiler.processor()
    _need_factors("pixels", pixels, result)
    rows, depth = pixels.shape
    compiler.need_shape("result", result, rows, result.shape[1])
    compiler.need_shape("panels", panels, padded(result.shape[1]) // here.columns, depth, here.columns)
    compiler.need_shape("bias", bias, padded(result.shape[1]))
    threads = torch.get_num_threads()
    # Some items a thread, so that none waits long for the last one.
    fair = math.ceil(rows / (8 * threads * here.rows))
    rows_per_item = min(_most_blocks(depth, here), fair) * here.rows
    packed = space.take("packed", threads, rows_per_item * depth)
    whole = result.shape[1] % here.columns == 0
    matmul_ir.pointwise(here, add=add, whole=whole, deep=depth > matmul_ir.SUMMED)(
        math.ceil(rows / rows_per_item),
        left=compiler.address(pixels),
        panels=compiler.address(panels),
        result=compiler.address(result),
        depth=depth,
        columns=result.shape[1],
        rows=rows,
        rows_per_item=rows_per_item,
        bias=compiler.address(bias),
        **compiler.clamp_fields(limits),
        packed=compiler.address(packed),
        packed_floats=packed.shape[1],
    )


def tiles(left: Tensor, panels: Tensor, result: Tensor) -> None:
    """Multiply matrices pair by pair.

    Parameters
    ----------
    left
        float32, shape (matrices, blocks, depth / 16, rows of a block, 16), all but the first dimension
        contiguous.
    panels
        float32, shape (matrices, panels, depth, columns of a panel), contiguous.
    result
        float32, shape (matrices, blocks * rows of a block, columns of all panels), each matrix contiguous.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides are not as said above.
    """
    here = compiler.processor()
    if left.ndim != 5 or not left.numel():
        raise ValueError(f"left has shape {tuple(left.shape)}, five dimensions are needed")
    matrices, blocks, depths = left.shape[:3]
    depth = depths * DEPTH
    compiler.need_shape("left", left, matrices, blocks, depths, here.rows, DEPTH)
    count = panels.shape[1] if panels.ndim == 4 else 1
    compiler.need_shape("panels", panels, matrices, max(1, count), depth, here.columns)
    compiler.need_shape("result", result, matrices, blocks * here.rows, count * here.columns)
    compiler.need_matrices("left", left)
    compiler.need_matrices("result", result)
    blocks_per_item = min(_most_blocks(depth, here), blocks)
    items = math.ceil(blocks / blocks_per_item)
    matmul_ir.tiles(here, deep=depth > matmul_ir.SUMMED)(
        matrices * items,
        left=compiler.start(left),
        panels=compiler.address(panels),
        result=compiler.start(result),
        depth=depth,
        columns=result.shape[2],
        rows=result.shape[1],
        rows_per_item=blocks_per_item * here.rows,
        items_per_matrix=items,
        left_floats=left.stride(0),
        panels_floats=panels.stride(0),
        result_floats=result.stride(0),
    )


def _need_factors(name: str, left: Tensor, result: Tensor) -> None:
    """Check what makes the other shapes of a product computable: the left factor's, and the columns."""
    if left.ndim != 2 or not left.numel() or left.shape[1] % DEPTH:
        raise ValueError(f"{name} has shape {tuple(left.shape)}, (rows, a multiple of {DEPTH}) is needed")
    lanes = compiler.processor().lanes
    if result.ndim != 2 or not result.numel() or result.shape[1] % lanes:
        raise ValueError(f"result has shape {tuple(result.shape)}, (rows, a multiple of {lanes}) is needed")


def _most_blocks(depth: int, target: SimdTarget) -> int:
    return max(1, _BLOCKS_BYTES // (FLOAT_BYTES * depth * target.rows))
