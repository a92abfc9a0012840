"""3x3 convolutions with stride 1 by Winograd's minimal filtering, which needs fewer multiplications.

Lavin and Gray apply it to networks ("Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308):
for every pair of channels, F(m x m, 3 x 3) computes each m x m tile of the output with (m + 2)^2 instead of 9
m^2 multiplications. The transforms are computed here by the Toom-Cook construction from interpolation points,
exactly, in fractions.

A convolution with dilation d never mixes the d^2 interleaved phases of its input: each phase is a small image
of its own, convolved without dilation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .kernels import matmul, matmul_ir, simd_targets, tile_transforms, tile_transforms_ir
from .kernels.arguments import Clamp
from .kernels.tile_grid import TileGrid, TileRange
from .workspace import Workspace

TAPS = 3

# Symmetric under negation and inversion: of the sets tried, these lose the fewest digits.
_HALF = Fraction(1, 2)
POINTS: dict[int, tuple[Fraction, ...]] = {
    4: (Fraction(0), Fraction(1), Fraction(-1), _HALF, Fraction(-2)),
    6: (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), _HALF, -_HALF),
}
"""Tile size m → m + 1 finite interpolation points; the last point is always infinity."""

# Elements of the transformed input or output of the tiles that are processed together: enough to amortise
# loading the filters from memory, and bounded, so that memory does not grow with the image.
_BLOCK_ELEMENTS = 1 << 23
_MIN_BLOCK_TILES = 256
# Without a gap, the (m + 2)^2 elements of a channel would compete for one cache set.
_MATRIX_GAP = 16


@dataclass(frozen=True)
class Transforms:
    """The three matrices of F(m, 3), float64: Y = output · [(filter · g) * (input · d)].

    Shapes: `output` (m, m + 2), `filter` (m + 2, 3), `input` (m + 2, m + 2).
    """

    output: Tensor
    filter: Tensor
    input: Tensor

    @classmethod
    def of(cls, tile: int) -> Transforms:
        """Return the transforms for a tile size in `POINTS`."""
        points = POINTS[tile]
        size = tile + TAPS - 1
        all_roots = [Fraction(1)]
        for point in points:
            all_roots = _times_root(all_roots, point)
        outputs = [[point**row for point in points] + [Fraction(row == tile - 1)] for row in range(tile)]
        filters, inputs = [], []
        for index, point in enumerate(points):
            scale, other_roots = Fraction(1), [Fraction(1)]
            for other in points[:index] + points[index + 1 :]:
                scale *= point - other
                other_roots = _times_root(other_roots, other)
            filters.append([point**power / scale for power in range(TAPS)])
            inputs.append(other_roots + [Fraction(0)] * (size - len(other_roots)))
        filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
        inputs.append(all_roots)
        return cls(_matrix(outputs), _matrix(filters), _matrix(inputs))


def _times_root(polynomial: Sequence[Fraction], root: Fraction) -> list[Fraction]:
    """Return the coefficients, lowest first, of a polynomial times (x - root)."""
    shifted = [Fraction(0), *polynomial]
    scaled = [*(root * coefficient for coefficient in polynomial), Fraction(0)]
    return [a - b for a, b in zip(shifted, scaled, strict=True)]


def _matrix(rows: Sequence[Sequence[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)


class Winograd:
    """A 3x3 convolution with stride 1, zero padding equal to its dilation, a bias and a clamp.

    Parameters
    ----------
    weight
        float64, shape (channels out, channels in, 3, 3).
    bias
        float64, shape (channels out,).
    dilation
        At least 1.
    tile
        The size m of the output's tiles, one of `POINTS`.
    clamp
        The range of the result: (0, None) is ReLU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        dilation: int,
        tile: int,
        clamp: Clamp,
    ) -> None:
        transforms = Transforms.of(tile)
        self.dilation = dilation
        self.tile = tile
        self.clamp = clamp
        self._out, self._in = weight.shape[:2]
        self._input, self._output = _rows(transforms.input), _rows(transforms.output)
        self._bias = bias.float()
        self._filters = _transform_filter(weight, transforms.filter)

    def __call__(self, x: Tensor, out: Tensor, space: Workspace) -> None:
        """Convolve one image.

        Parameters
        ----------
        x
            float32, shape (h, w, channels in), with a last stride of 1.
        out
            float32, shape (h, w, channels out), contiguous; is overwritten.
        space
            Holds the transformed tiles.
        """
        grid = TileGrid(x.shape[0], x.shape[1], self.dilation, self.tile)
        matrices = (self.tile + TAPS - 1) ** 2
        block_tiles = max(_MIN_BLOCK_TILES, _BLOCK_ELEMENTS // (matrices * max(self._in, self._out)))
        rows = simd_targets.simd_target().rows
        for first in range(0, grid.tiles, block_tiles):
            tiles = TileRange(grid, first, min(block_tiles, grid.tiles - first))
            blocks = -(-tiles.count // rows)
            depths = self._in // matmul_ir.DEPTH
            left = _take_matrices(space, "tiles", matrices, blocks, depths, rows, matmul_ir.DEPTH)
            products = _take_matrices(space, "products", matrices, blocks * rows, matmul.padded(self._out))
            tile_transforms.transform_input(x, tiles, self._input, left)
            matmul.batched_product(left, self._filters, products)
            tile_transforms.transform_output(products, tiles, self._output, self._bias, self.clamp, out)


def _take_matrices(space: Workspace, name: str, count: int, *shape: int) -> Tensor:
    """Return a tensor (count, *shape) of contiguous matrices with a gap between them."""
    size = math.prod(shape)
    return space.take(name, count, size + _MATRIX_GAP)[:, :size].unflatten(1, shape)  # type: ignore[no-any-return,no-untyped-call]


def _rows(matrix: Tensor) -> tile_transforms_ir.Matrix:
    return tuple(tuple(row) for row in matrix.tolist())


def _transform_filter(weight: Tensor, transform: Tensor) -> Tensor:
    """Return `matmul.in_panels` of the transformed filters ((m + 2)^2, in, out), computed in float64.

    The two spatial axes are swapped, because the tile transforms store columns first.
    """
    both = torch.kron(transform, transform)
    channels, width = weight.shape[1], simd_targets.simd_target().columns
    # Zeros pad the last panel.
    result = torch.zeros(len(both), matmul.padded(len(weight)) // width, channels, width)
    # Panel by panel: all of the largest layer in float64 would take half a GiB more.
    for index, part in enumerate(torch.split(weight, width)):
        columns = part.double().permute(3, 2, 1, 0).reshape(TAPS * TAPS, -1)
        result[:, index, :, : len(part)] = (both @ columns).view(len(both), channels, -1)
    return result
