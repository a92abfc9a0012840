"""The transforms of Winograd's tiles: a kernel for the input's, and one for the output's.

Both go once over their input and once over their output: pixels are gathered, transformed and written to
where the matrix products want them, and back, padding, dilation, bias and clamp included. A vector's lanes
are channels.
"""

from __future__ import annotations

import math

from torch import Tensor

from . import compiler, tile_transforms_ir
from .compiler import Clamp
from .matmul_ir import DEPTH
from .tile_grid import Grid
from .tile_transforms_ir import Matrix


def transform_input(x: Tensor, grid: Grid, first: int, tiles: int, transform: Matrix, result: Tensor) -> None:
    """Transform some tiles of an image.

    Parameters
    ----------
    x
        float32, shape (h, w, channels), the last stride 1.
    grid
        The image's.
    first, tiles
        The first tile, and how many.
    transform
        m + 2 rows of m + 2 numbers, applied to rows and columns.
    result
        float32, shape ((m + 2)^2, blocks, channels / 16, rows of a block, 16), all but the first dimension
        contiguous: what `matmul.tiles` takes. Rows of the last block beyond the last tile stay as they are.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides, the transform's shape or the range of tiles are not as said above.
    """
    here = compiler.processor()
    size = grid.tile + 2
    _need_tiles(grid, first, tiles, transform, (size, size))
    channels = _channels("x", x, grid, DEPTH)
    blocks = math.ceil(tiles / here.rows)
    compiler.need_shape("result", result, size**2, blocks, channels // DEPTH, here.rows, DEPTH)
    if x.stride(2) != 1:
        raise ValueError(f"x has strides {x.stride()}, the last one must be 1")
    compiler.need_matrices("result", result)
    tile_transforms_ir.input_kernel(here, grid.tile, transform)(
        result.shape[1],
        **grid.fields(first, tiles),
        channels=x.shape[2],
        image=compiler.start(x),
        row_floats=x.stride(0),
        pixel_floats=x.stride(1),
        result=compiler.start(result),
        matrix_floats=result.stride(0),
    )


def transform_output(
    products: Tensor,
    grid: Grid,
    first: int,
    tiles: int,
    transform: Matrix,
    bias: Tensor,
    limits: Clamp,
    out: Tensor,
) -> None:
    """Transform some tiles back, and write them into the image.

    Parameters
    ----------
    products
        float32, shape ((m + 2)^2, at least `tiles`, at least the channels), each matrix contiguous.
    grid
        The image's.
    first, tiles
        The first tile, and how many.
    transform
        m rows of m + 2 numbers, applied to rows and columns.
    bias
        float32, shape (channels,).
    limits
        The least and the largest value of the result, if any.
    out
        float32, shape (h, w, channels), contiguous.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides, the transform's shape or the range of tiles are not as said above.
    """
    here = compiler.processor()
    size = grid.tile + 2
    _need_tiles(grid, first, tiles, transform, (grid.tile, size))
    channels = _channels("out", out, grid, here.lanes)
    compiler.need_shape("bias", bias, channels)
    needed = (size**2, tiles, channels)
    if products.ndim != 3 or any(has < least for has, least in zip(products.shape, needed, strict=True)):
        raise ValueError(f"products has shape {tuple(products.shape)}, at least {needed} is needed")
    compiler.need_matrices("products", products)
    tile_transforms_ir.output_kernel(here, grid.tile, transform)(
        math.ceil(tiles / here.rows),
        **grid.fields(first, tiles),
        channels=out.shape[2],
        products=compiler.start(products),
        matrix_floats=products.stride(0),
        product_floats=products.stride(1),
        image=compiler.address(out),
        row_floats=out.stride(0),
        pixel_floats=out.stride(1),
        bias=compiler.address(bias),
        **compiler.clamp_fields(limits),
    )


def _need_tiles(grid: Grid, first: int, tiles: int, transform: Matrix, shape: tuple[int, int]) -> None:
    """Check the range of tiles, and the transform's shape."""
    if first < 0 or tiles <= 0 or first + tiles > grid.tiles:
        raise ValueError(f"tiles {first} to {first + tiles} of a grid that has {grid.tiles}")
    rows, columns = shape
    if len(transform) != rows or any(len(row) != columns for row in transform):
        lengths = sorted({len(row) for row in transform})
        raise ValueError(
            f"the transform has {len(transform)} rows of {lengths}, {rows} of {columns} are needed"
        )


def _channels(name: str, image: Tensor, grid: Grid, multiple: int) -> int:
    """Return how many channels an image has; its other sizes must be the grid's."""
    channels = image.shape[2] if image.ndim == 3 else 0
    if not channels or channels % multiple or image.shape[:2] != (grid.height, grid.width):
        raise ValueError(
            f"{name} has shape {tuple(image.shape)}, "
            f"({grid.height}, {grid.width}, a multiple of {multiple}) is needed"
        )
    return channels
