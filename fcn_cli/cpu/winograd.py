"""3x3 convolutions with stride 1 by minimal filtering: fewer multiplications than the definition has.

The method is Winograd's, as Lavin and Gray apply it to networks ("Fast Algorithms for Convolutional Neural
Networks", arXiv 1509.09308): F(m x m, 3 x 3) turns each m x m tile of the output, for every pair of
channels, from 9 m^2 multiplications into (m + 2)^2. The transforms are built here by the Toom-Cook
construction from interpolation points, exactly, in fractions.

A dilated convolution with dilation d never mixes the d^2 interleaved phases of its input: each phase is a
small image of its own, convolved without dilation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .kernels import compiler, matmul, matmul_ir, tile_transforms, tile_transforms_ir
from .kernels.compiler import Clamp
from .kernels.tile_grid import Grid
from .workspace import Workspace

TAPS = 3

# Symmetric in sign and in inversion: of the sets tried, these lose the fewest digits.
_HALF = Fraction(1, 2)
POINTS: dict[int, tuple[Fraction, ...]] = {
    4: (Fraction(0), Fraction(1), Fraction(-1), _HALF, Fraction(-2)),
    6: (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), _HALF, -_HALF),
}
"""Tile size m → m + 1 finite interpolation points; infinity is always the last one."""

# The transformed input and output of as many tiles as go together: enough of them for the filters' way from
# memory to pay, and a bound that does not grow with the image.
_BLOCK_ELEMENTS = 1 << 23
_MIN_BLOCK_TILES = 256
# Else the (m + 2)^2 places of a channel would compete for one set of the cache.
_APART = 16


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
        """Build them for tiles of a size in `POINTS`."""
        points = POINTS[tile]
        size = tile + TAPS - 1
        every = [Fraction(1)]
        for point in points:
            every = _times(every, point)
        outputs = [[point**row for point in points] + [Fraction(row == tile - 1)] for row in range(tile)]
        filters, inputs = [], []
        for index, point in enumerate(points):
            scale, others = Fraction(1), [Fraction(1)]
            for other in points[:index] + points[index + 1 :]:
                scale *= point - other
                others = _times(others, other)
            filters.append([point**power / scale for power in range(TAPS)])
            inputs.append(others + [Fraction(0)] * (size - len(others)))
        filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
        inputs.append(every)
        return cls(_matrix(outputs), _matrix(filters), _matrix(inputs))


def _times(polynomial: Sequence[Fraction], root: Fraction) -> list[Fraction]:
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
        Size m of the output's tiles, one of `POINTS`.
    limits
        The result is clamped to these: (0, None) is ReLU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        dilation: int,
        tile: int,
        limits: Clamp,
    ) -> None:
        transforms = Transforms.of(tile)
        self.dilation = dilation
        self.tile = tile
        self.limits = limits
        self._out, self._in = weight.shape[:2]
        self._input, self._output = _rows(transforms.input), _rows(transforms.output)
        self._bias = bias.float()
        self._filters = _transform_filter(weight, transforms.filter)

    def __call__(self, x: Tensor, out: Tensor, space: Workspace) -> None:
        """Convolve one image.

        Parameters
        ----------
        x
            float32, shape (h, w, channels in), the last stride 1.
        out
            float32, shape (h, w, channels out), contiguous; is overwritten.
        space
            For what lies between.
        """
        grid = Grid(x.shape[0], x.shape[1], self.dilation, self.tile)
        matrices = (self.tile + TAPS - 1) ** 2
        most = max(_MIN_BLOCK_TILES, _BLOCK_ELEMENTS // (matrices * max(self._in, self._out)))
        rows = compiler.processor().rows
        for first in range(0, grid.tiles, most):
            count = min(most, grid.tiles - first)
            blocks = -(-count // rows)
            left = _apart(
                space,
                "tiles",
                matrices,
                blocks,
                self._in // matmul_ir.DEPTH,
                rows,
                matmul_ir.DEPTH,
            )
            products = _apart(space, "products", matrices, blocks * rows, matmul.padded(self._out))
            tile_transforms.transform_input(x, grid, first, count, self._input, left)
            matmul.tiles(left, self._filters, products)
            tile_transforms.transform_output(
                products, grid, first, count, self._output, self._bias, self.limits, out
            )


def _apart(space: Workspace, name: str, count: int, *shape: int) -> Tensor:
    """Return a tensor (count, *shape), each of its matrices contiguous, with a gap between them."""
    size = math.prod(shape)
    return space.take(name, count, size + _APART)[:, :size].unflatten(1, shape)  # type: ignore[no-any-return,no-untyped-call]


def _rows(matrix: Tensor) -> tile_transforms_ir.Matrix:
    return tuple(tuple(row) for row in matrix.tolist())


def _transform_filter(weight: Tensor, transform: Tensor) -> Tensor:
    """Return float32 panels, as `matmul.in_panels` of ((m + 2)^2, in, out), computed in float64.

    The two axes are swapped on the way: the transforms of tiles leave columns first.
    """
    both = torch.kron(transform, transform)
    channels, width = weight.shape[1], compiler.processor().columns
    # Zeros fill the last panel.
    result = torch.zeros(len(both), matmul.padded(len(weight)) // width, channels, width)
    # In parts: in float64 all of the largest layer would take half a GiB more.
    for index, part in enumerate(torch.split(weight, width)):
        columns = part.double().permute(3, 2, 1, 0).reshape(TAPS * TAPS, -1)
        result[:, index, :, : len(part)] = (both @ columns).view(len(both), channels, -1)
    return result
