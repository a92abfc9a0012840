"""The input and output transforms of Winograd's tiles.

Each kernel reads its input once and writes its output once: it gathers pixels, transforms them and stores
them in the layout of the matrix products, or the reverse. Padding, dilation, bias and clamp are included. The
lanes of a vector are channels.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ..toom_cook import Matrix
from . import arguments, simd_targets, tile_transforms_ir
from .arguments import Clamp
from .matmul_ir import DEPTH
from .tile_grid import TileGrid, TileRange

_input_kernel = functools.lru_cache(tile_transforms_ir.input_kernel)
_output_kernel = functools.lru_cache(tile_transforms_ir.output_kernel)


def transform_input(x: Tensor, tiles: TileRange, transform: Matrix, result: Tensor) -> None:
    """Transform tiles of an image.

    Parameters
    ----------
    x
        float32 or bfloat16, shape (h, w, channels), with a last stride of 1.
    tiles
        The tiles to transform, of size m.
    transform
        m + 2 rows of m + 2 numbers; applied to rows and columns.
    result
        float32, shape ((m + 2)^2, blocks, channels / 16, rows of a block, 16), contiguous in all but the
        first dimension: the left factor of `matmul.batched_product`. Rows of the last block beyond the last
        tile are left unchanged.

    Raises
    ------
    ValueError
        A tensor has another shape, type or strides, or the transform another shape.
    """
    target = simd_targets.simd_target()
    grid = tiles.grid
    size = grid.tile + 2
    _require_transform(transform, size, size)
    channels = _channels("x", x, grid, DEPTH)
    blocks = math.ceil(tiles.count / target.rows)
    arguments.require_shape("result", result, size**2, blocks, channels // DEPTH, target.rows, DEPTH)
    if x.stride(2) != 1:
        raise ValueError(f"x has strides {x.stride()}, the last one must be 1")
    arguments.require_contiguous_matrices("result", result)
    dtype = _image_type(x)
    _input_kernel(target, grid.tile, transform, bf16=dtype == torch.bfloat16)(
        result.shape[1],
        **tiles.fields(),
        channels=x.shape[2],
        image=arguments.data_pointer(x, dtype),
        row_floats=x.stride(0),
        pixel_floats=x.stride(1),
        result=arguments.data_pointer(result),
        matrix_floats=result.stride(0),
    )


def transform_output(
    products: Tensor, tiles: TileRange, transform: Matrix, bias: Tensor, clamp: Clamp, out: Tensor
) -> None:
    """Transform tiles back and write them into the image.

    Parameters
    ----------
    products
        float32, shape ((m + 2)^2, at least the number of tiles, at least the channels), each matrix
        contiguous.
    tiles
        The tiles to transform, of size m.
    transform
        m rows of m + 2 numbers; applied to rows and columns.
    bias
        float32, shape (channels,).
    clamp
        The range of the result.
    out
        float32 or bfloat16, shape (h, w, channels), contiguous.

    Raises
    ------
    ValueError
        A tensor has another shape, type or strides, or the transform another shape.
    """
    target = simd_targets.simd_target()
    grid = tiles.grid
    size = grid.tile + 2
    _require_transform(transform, grid.tile, size)
    channels = _channels("out", out, grid, target.lanes)
    arguments.require_shape("bias", bias, channels)
    minimum = (size**2, tiles.count, channels)
    if products.ndim != 3 or any(has < needs for has, needs in zip(products.shape, minimum, strict=True)):
        raise ValueError(f"products has shape {tuple(products.shape)}, expected at least {minimum}")
    arguments.require_contiguous_matrices("products", products)
    dtype = _image_type(out)
    _output_kernel(target, grid.tile, transform, bf16=dtype == torch.bfloat16)(
        math.ceil(tiles.count / target.rows),
        **tiles.fields(),
        channels=out.shape[2],
        products=arguments.data_pointer(products),
        matrix_floats=products.stride(0),
        product_floats=products.stride(1),
        image=arguments.contiguous_pointer(out, dtype),
        row_floats=out.stride(0),
        pixel_floats=out.stride(1),
        bias=arguments.contiguous_pointer(bias),
        **arguments.clamp_fields(clamp),
    )


def _image_type(image: Tensor) -> torch.dtype:
    """Return the type that an image must have."""
    return torch.bfloat16 if image.dtype == torch.bfloat16 else torch.float32


def _require_transform(transform: Matrix, rows: int, columns: int) -> None:
    if len(transform) != rows or any(len(row) != columns for row in transform):
        lengths = sorted({len(row) for row in transform})
        raise ValueError(
            f"the transform has {len(transform)} rows of {lengths}, expected {rows} of {columns}"
        )


def _channels(name: str, image: Tensor, grid: TileGrid, multiple: int) -> int:
    """Return the number of channels of an image; raises ValueError unless its size is the grid's."""
    channels = image.shape[2] if image.ndim == 3 else 0
    if not channels or channels % multiple or image.shape[:2] != (grid.height, grid.width):
        raise ValueError(
            f"{name} has shape {tuple(image.shape)}, "
            f"expected ({grid.height}, {grid.width}, a multiple of {multiple})"
        )
    return channels
