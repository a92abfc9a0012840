"""The kernels' references in NumPy: what each one computes, in float64 and in the simplest way.

Where the inputs are small integers, every sum is exact in float32 too, in whatever order it is taken. Then a
kernel's result must be the reference's to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fcn_cli.cpu.kernels.arguments import Clamp
from fcn_cli.cpu.kernels.tile_transforms import TileGrid

Floats = NDArray[np.float64]


def product(left: ArrayLike, right: ArrayLike) -> Floats:
    """Matrix product of (..., rows, depth) and (..., depth, columns)."""
    result: Floats = np.asarray(left, float) @ np.asarray(right, float)
    return result


def clamped(x: Floats, clamp: Clamp) -> Floats:
    low, high = clamp
    return np.clip(x, low, high) if (low, high) != (None, None) else x


def in_blocks(left: ArrayLike, block_rows: int) -> Floats:
    """Rearrange (..., rows, depth) to (..., blocks, depth / 16, rows of a block, 16)."""
    matrix = np.asarray(left, float)
    *batch, rows, depth = matrix.shape
    split = matrix.reshape(*batch, rows // block_rows, block_rows, depth // 16, 16)
    return split.swapaxes(-3, -2)


def tile_positions(grid: TileGrid) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the image rows and columns of every tile's pixels, in the grid's order.

    A dilated convolution falls apart into phases: every dilation-th row and column from a start. Tiles are
    numbered by phase row, tile row, phase column and tile column.
    """

    def pixels(phase: int, tile: int) -> list[int]:
        return [phase + grid.dilation * (tile * grid.tile + index) for index in range(grid.tile)]

    for phase_row in range(min(grid.dilation, grid.height)):
        for tile_row in range(grid.rows):
            for phase_column in range(min(grid.dilation, grid.width)):
                for tile_column in range(grid.columns):
                    yield pixels(phase_row, tile_row), pixels(phase_column, tile_column)


def transformed_input(
    image: ArrayLike, rows: list[int], columns: list[int], dilation: int, matrix: ArrayLike
) -> Floats:
    """Transform one tile and its border: (channels, m + 2, m + 2), columns first; zeros lie outside."""
    pixels, transform = np.asarray(image, float), np.asarray(matrix, float)
    height, width, channels = pixels.shape
    around_rows = [rows[0] - dilation, *rows, rows[-1] + dilation]
    around_columns = [columns[0] - dilation, *columns, columns[-1] + dilation]
    tile = np.zeros((len(around_rows), len(around_columns), channels))
    for y, row in enumerate(around_rows):
        for x, column in enumerate(around_columns):
            if 0 <= row < height and 0 <= column < width:
                tile[y, x] = pixels[row, column]
    result: Floats = np.einsum("vy,yxc,ux->cuv", transform, tile, transform)
    return result


def transformed_output(product_of_tile: ArrayLike, matrix: ArrayLike) -> Floats:
    """Transform one tile's products (channels, m + 2, m + 2), columns first, to pixels (m, m, channels)."""
    transform = np.asarray(matrix, float)
    result: Floats = np.einsum("yv,cuv,xu->yxc", transform, np.asarray(product_of_tile, float), transform)
    return result


def labels(
    logits: ArrayLike, strips: list[int], between: list[tuple[int, int]], weights: ArrayLike
) -> NDArray[np.uint8]:
    """Interpolate between two rows of logits (rows, classes, width) for every row of a label map; argmax."""
    source, share = np.asarray(logits, float), np.asarray(weights, float)
    result = []
    for number, (upper, lower) in enumerate(between):
        for row in range(strips[number], strips[number + 1]):
            mixed = source[upper] + share[row] * (source[lower] - source[upper])
            result.append(mixed.argmax(0))
    return np.array(result, np.uint8)
