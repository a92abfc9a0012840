"""Both transforms of Winograd's tiles against their NumPy references, and the matrices that they apply.

The matrices of the input and the output hold sums of powers of two, so that transforms of small integers are
exact in float32.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fcn_cli.cpu.kernels import tile_transforms
from fcn_cli.cpu.kernels.arguments import Clamp
from fcn_cli.cpu.kernels.simd_targets import SimdTarget
from fcn_cli.cpu.kernels.tile_transforms import TileGrid, TileRange
from fcn_cli.cpu.toom_cook import POINTS, TAPS, Transforms

from . import references
from .conftest import torch_threads
from .test_matmul import UNTOUCHED, integers, with_gap

SIZES = list(POINTS)


def grids(tile: int) -> list[TileGrid]:
    """Images at the edges of a tile, of a phase and of two tiles."""
    found = []
    for dilation in (1, 2, 4):
        edge = tile * dilation
        sides = sorted({1, dilation, dilation + 1, edge - 1, edge, edge + 1})
        pairs = zip(sides, reversed(sides), strict=True)
        found += [TileGrid(height, width, dilation, tile) for height, width in pairs]
        found.append(TileGrid(edge + 1, 2 * edge, dilation, tile))
    return found


def ranges(grid: TileGrid, block: int) -> list[TileRange]:
    """All tiles of a grid, and parts at the edges of a block that begin in the middle."""
    parts = {(0, grid.tiles)}
    for count in (1, block - 1, block, block + 1):
        first = grid.tiles // 3
        if first + count <= grid.tiles:
            parts.add((first, count))
    return [TileRange(grid, first, count) for first, count in sorted(parts)]


@pytest.mark.parametrize("tile", SIZES)
def test_the_input_transform(target: SimdTarget, tile: int) -> None:
    matrix = Transforms.of(tile).input
    for grid, channels in zip(grids(tile), itertools.cycle((16, 48))):
        image = integers(grid.height, grid.width, channels)
        positions = list(references.tile_positions(grid))
        for tiles in ranges(grid, target.rows):
            blocks = -(-tiles.count // target.rows)
            result, gap = with_gap((tile + 2) ** 2, blocks, channels // 16, target.rows, 16)
            tile_transforms.transform_input(image, tiles, matrix, result)
            expected = np.full((blocks * target.rows, channels, (tile + 2) ** 2), UNTOUCHED)
            for number in range(tiles.count):
                rows, columns = positions[tiles.first + number]
                expected[number] = references.transformed_input(
                    image, rows, columns, grid.dilation, matrix
                ).reshape(channels, -1)
            np.testing.assert_array_equal(
                result, references.in_blocks(expected.transpose(2, 0, 1), target.rows)
            )
            assert (gap == UNTOUCHED).all()


@pytest.mark.parametrize("clamp", [(None, None), (0.0, None), (0.0, 6.0)])
@pytest.mark.parametrize("tile", SIZES)
def test_the_output_transform(target: SimdTarget, tile: int, clamp: Clamp) -> None:
    matrix = Transforms.of(tile).output
    for grid, vectors in zip(grids(tile), itertools.cycle((1, 3))):
        channels = vectors * target.lanes
        bias = integers(channels, seed=1)
        positions = list(references.tile_positions(grid))
        for tiles in ranges(grid, target.rows):
            # More rows and columns than there are tiles and channels, as the products have them.
            products, _ = with_gap((tile + 2) ** 2, tiles.count + 2, channels + 16)
            products.copy_(integers(*products.shape))
            out = torch.full((grid.height, grid.width, channels), UNTOUCHED)
            tile_transforms.transform_output(products, tiles, matrix, bias, clamp, out)
            expected = np.full(out.shape, UNTOUCHED)
            for number in range(tiles.count):
                of_tile = products[:, number, :channels].numpy().T.reshape(channels, tile + 2, tile + 2)
                pixels = references.clamped(
                    references.transformed_output(of_tile, matrix) + bias.numpy(), clamp
                )
                rows, columns = positions[tiles.first + number]
                for y, x in itertools.product(range(tile), range(tile)):
                    if rows[y] < grid.height and columns[x] < grid.width:
                        expected[rows[y], columns[x]] = pixels[y, x]
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("grid", [TileGrid(0, 5, 1, 4), TileGrid(5, 0, 1, 4)])
def test_an_image_without_pixels_has_no_tiles(grid: TileGrid) -> None:
    assert grid.tiles == 0
    with pytest.raises(ValueError, match="has 0"):
        TileRange(grid, 0, 0)


@pytest.mark.parametrize("tile", SIZES)
def test_items_that_divide_the_channels(
    target: SimdTarget, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more threads than blocks each item has fewer; the last one has the rest."""
    grid, transforms, size = TileGrid(9, 11, 1, tile), Transforms.of(tile), (tile + 2) ** 2
    tiles = TileRange(grid, 0, grid.tiles)
    image = integers(grid.height, grid.width, 80)
    products, bias = (
        integers(size, grid.tiles, 80 + target.lanes, seed=1),
        integers(80 + target.lanes, seed=2),
    )
    monkeypatch.setattr(tile_transforms, "_FEWEST_CHANNELS", 32)
    results = []
    for threads in (1, 64):
        blocks, out = -(-grid.tiles // target.rows), torch.zeros(grid.height, grid.width, len(bias))
        transformed = torch.zeros(size, blocks, 5, target.rows, 16)
        with torch_threads(threads):
            tile_transforms.transform_input(image, tiles, transforms.input, transformed)
            tile_transforms.transform_output(products, tiles, transforms.output, bias, (0.0, None), out)
        results.append((transformed, out))
    assert all(torch.equal(one, same) for one, same in zip(*results, strict=True))
    assert results[0][1].count_nonzero() > 100


@pytest.mark.parametrize("tile", SIZES)
def test_every_pixel_is_in_one_tile(tile: int) -> None:
    for grid in grids(tile):
        seen = np.zeros((grid.height, grid.width), int)
        for rows, columns in references.tile_positions(grid):
            for row, column in itertools.product(rows, columns):
                if row < grid.height and column < grid.width:
                    seen[row, column] += 1
        assert (seen == 1).all()
        assert len(list(references.tile_positions(grid))) == grid.tiles


@pytest.mark.parametrize("tile", SIZES)
def test_the_matrices_filter(tile: int) -> None:
    """F(m, 3) is the correlation, for every filter and every tile: the unit vectors show it."""
    matrices = Transforms.of(tile)
    output, filters, inputs = (np.array(each) for each in (matrices.output, matrices.filter, matrices.input))
    for taps, data in itertools.product(np.eye(TAPS), np.eye(tile + TAPS - 1)):
        exact = np.correlate(data, taps, "valid")
        np.testing.assert_allclose(output @ ((filters @ taps) * (inputs @ data)), exact, atol=1e-13)


@pytest.mark.parametrize("tile", SIZES)
def test_input_and_output_matrices_are_exact_in_float32(tile: int) -> None:
    matrices = Transforms.of(tile)
    for matrix in (matrices.input, matrices.output):
        np.testing.assert_array_equal(np.array(matrix, np.float32), matrix)
