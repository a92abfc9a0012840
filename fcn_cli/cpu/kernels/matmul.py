"""Matrix products: one kernel for 1x1 convolutions, in float32 or bfloat16, one for Winograd's tiles.

The scheme is Goto and van de Geijn's ("Anatomy of High-Performance Matrix Multiplication"). The right factor,
a layer's weights, is stored in panels of as many columns as the registers hold; the left one in blocks of as
many rows. For every block and panel, a small part of the result is summed over the whole depth in registers,
finished (bias, clamp) and written once. So the result does not depend on how threads share the rows.

Blocks have the layout (depth / 16, rows of a block, 16): a cache line of every row in turn. The kernel of the
1x1 convolutions copies its input into this layout; `tile_transforms` writes it directly.

In bfloat16, a pair of neighbouring numbers stands in the place of a float32, and the depth counts pairs. Sums
are float32.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..workspace import Workspace
from . import arguments, matmul_ir, simd_targets
from .arguments import Clamp
from .llvm import F32
from .matmul_ir import DEPTH
from .simd_targets import SimdTarget

_pointwise_kernel = functools.lru_cache(matmul_ir.pointwise)
_batched_kernel = functools.lru_cache(matmul_ir.batched_product)

# Bytes of the left factor that a thread multiplies by each panel of the right one: both stay in its L2 cache.
_BLOCKS_BYTES = 384 << 10


def fits(depth: int, columns: int, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether the kernels support a right factor of this shape and type."""
    return (
        depth % (DEPTH * _per_float(dtype)) == 0
        and columns % max(target.lanes for target in simd_targets.SIMD_TARGETS) == 0
    )


def padded(columns: int) -> int:
    """Round a number of columns up to whole panels."""
    width = simd_targets.simd_target().columns
    return -(-columns // width) * width


def filled(columns: Tensor) -> Tensor:
    """Pad (..., columns) with zeros to whole panels."""
    count = columns.shape[-1]
    return F.pad(columns, (0, padded(count) - count))


def in_panels(weights: Tensor) -> Tensor:
    """Return (..., depth, columns) as float32 panels (..., panels, depth, width), padded with zeros."""
    width = simd_targets.simd_target().columns
    panels = filled(weights.float()).unflatten(-1, (-1, width))  # type: ignore[no-untyped-call]
    result: Tensor = panels.transpose(-3, -2).contiguous()
    return result


def in_bf16_panels(weights: Tensor) -> Tensor:
    """Return (depth, columns) as bfloat16 panels (panels, depth / 2, width, 2), padded with zeros."""
    pairs = in_panels(weights).unflatten(1, (-1, 2))  # type: ignore[no-untyped-call]
    result: Tensor = pairs.transpose(2, 3).to(torch.bfloat16).contiguous()
    return result


def pointwise(
    pixels: Tensor,
    panels: Tensor,
    bias: Tensor,
    result: Tensor,
    clamp: Clamp,
    space: Workspace,
    *,
    add: bool,
) -> None:
    """Compute a 1x1 convolution: clamp(pixels x weights + bias), or with `add` clamp(... + result).

    Parameters
    ----------
    pixels
        float32 or bfloat16, shape (pixels, channels in), contiguous.
    panels
        The weights (channels in, channels out), as `in_panels` or for bfloat16 `in_bf16_panels` returns them.
    bias
        float32, shape (channels out,) padded to whole panels (`filled`).
    result
        Of the pixels' type, shape (pixels, channels out), contiguous.
    clamp
        The range of the result.
    space
        Holds the pixels in blocks.
    add
        Whether to add to the result.

    Raises
    ------
    ValueError
        A tensor has another shape, type or strides.
    """
    target, bf16 = simd_targets.simd_target(), pixels.dtype == torch.bfloat16
    dtype = torch.bfloat16 if bf16 else torch.float32
    _require_factors("pixels", pixels, result)
    rows, depth = pixels.shape[0], pixels.shape[1] // _per_float(dtype)
    arguments.require_shape("result", result, rows, result.shape[1])
    panel_count, pair = padded(result.shape[1]) // target.columns, (2,) if bf16 else ()
    arguments.require_shape("panels", panels, panel_count, depth, target.columns, *pair)
    arguments.require_shape("bias", bias, padded(result.shape[1]))
    threads = torch.get_num_threads()
    # Several items for each thread, so that none waits long for the last one.
    even_share = math.ceil(rows / (8 * threads * target.rows))
    rows_per_item = min(_blocks_in_cache(depth, target), even_share) * target.rows
    packed = space.take("packed", threads, rows_per_item * depth)
    whole = result.shape[1] % target.columns == 0
    _pointwise_kernel(target, add=add, whole=whole, deep=depth > matmul_ir.SUM_BLOCK, bf16=bf16)(
        math.ceil(rows / rows_per_item),
        left=arguments.contiguous_pointer(pixels, dtype),
        panels=arguments.contiguous_pointer(panels, dtype),
        result=arguments.contiguous_pointer(result, dtype),
        depth=depth,
        columns=result.shape[1],
        rows=rows,
        rows_per_item=rows_per_item,
        bias=arguments.contiguous_pointer(bias),
        **arguments.clamp_fields(clamp),
        packed=arguments.contiguous_pointer(packed),
        packed_floats=packed.shape[1],
    )


def batched_product(left: Tensor, panels: Tensor, result: Tensor) -> None:
    """Multiply matrices pair by pair, for the tiles of Winograd's method.

    Parameters
    ----------
    left
        float32, shape (matrices, blocks, depth / 16, rows of a block, 16), contiguous in all but the first
        dimension.
    panels
        float32, shape (matrices, panels, depth, columns of a panel), contiguous.
    result
        float32, shape (matrices, blocks * rows of a block, columns of all panels), each matrix contiguous.

    Raises
    ------
    ValueError
        A tensor has another shape, type or strides.
    """
    target = simd_targets.simd_target()
    if left.ndim != 5 or not left.numel():
        raise ValueError(f"left has shape {tuple(left.shape)}, expected five dimensions")
    matrices, blocks, depths = left.shape[:3]
    depth = depths * DEPTH
    arguments.require_shape("left", left, matrices, blocks, depths, target.rows, DEPTH)
    count = panels.shape[1] if panels.ndim == 4 else 1
    arguments.require_shape("panels", panels, matrices, max(1, count), depth, target.columns)
    arguments.require_shape("result", result, matrices, blocks * target.rows, count * target.columns)
    arguments.require_contiguous_matrices("left", left)
    arguments.require_contiguous_matrices("result", result)
    blocks_per_item = min(_blocks_in_cache(depth, target), blocks)
    items = math.ceil(blocks / blocks_per_item)
    _batched_kernel(target, deep=depth > matmul_ir.SUM_BLOCK)(
        matrices * items,
        left=arguments.data_pointer(left),
        panels=arguments.contiguous_pointer(panels),
        result=arguments.data_pointer(result),
        depth=depth,
        columns=result.shape[2],
        rows=result.shape[1],
        rows_per_item=blocks_per_item * target.rows,
        items_per_matrix=items,
        left_floats=left.stride(0),
        panels_floats=panels.stride(0),
        result_floats=result.stride(0),
    )


def _require_factors(name: str, left: Tensor, result: Tensor) -> None:
    """Check the left factor and the columns of the result, from which the other shapes follow."""
    multiple = DEPTH * _per_float(left.dtype)
    if left.ndim != 2 or not left.numel() or left.shape[1] % multiple:
        raise ValueError(f"{name} has shape {tuple(left.shape)}, expected (rows, a multiple of {multiple})")
    lanes = simd_targets.simd_target().lanes
    if result.ndim != 2 or not result.numel() or result.shape[1] % lanes:
        raise ValueError(f"result has shape {tuple(result.shape)}, expected (rows, a multiple of {lanes})")


def _per_float(dtype: torch.dtype) -> int:
    """Return how many numbers of a type stand in the place of a float32."""
    return 2 if dtype == torch.bfloat16 else 1


def _blocks_in_cache(depth: int, target: SimdTarget) -> int:
    return max(1, _BLOCKS_BYTES // (F32.size * depth * target.rows))
