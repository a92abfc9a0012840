"""3x3 convolutions with stride 1 by Winograd's minimal filtering, which needs fewer multiplications.

Lavin and Gray apply it to networks ("Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308):
for every pair of channels, F(m x m, 3 x 3) computes each m x m tile of the output with (m + 2)^2 instead of 9
m^2 multiplications. `toom_cook` has the matrices of its transforms.

A convolution with dilation d never mixes the d^2 interleaved phases of its input: each phase is a small image
of its own, convolved without dilation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import matmul, simd_targets, tile_transforms
from .kernels.arguments import Clamp
from .kernels.tile_transforms import TileGrid, TileRange
from .toom_cook import POINTS, TAPS, Matrix, Transforms
from .workspace import Workspace

# Elements of the transformed input or output of the tiles that are processed together: enough to amortise
# loading the filters from memory, and bounded, so that memory does not grow with the image.
_BLOCK_ELEMENTS = 1 << 23
_MIN_BLOCK_TILES = 256
# Without a gap, the (m + 2)^2 elements of a channel would compete for one cache set.
_MATRIX_GAP = 16
# A multiple of every target's panel.
_FILTERS_TOGETHER = 64


class Winograd:
    """A 3x3 convolution with stride 1, zero padding equal to its dilation, a bias and a clamp.

    `weight` (channels out, channels in, 3, 3) and `bias` are float64; `tile` is one of `POINTS`.
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
        self._input, self._output = transforms.input, transforms.output
        self._bias = bias.float()
        self._filters = _transform_filter(weight, transforms.filter)

    def __call__(self, x: Tensor, out: Tensor, space: Workspace) -> None:
        """Convolve an image `x` into `out`: (h, w, channels), float32 or bfloat16.

        The last stride of `x` is 1, and `out` is contiguous. `space` holds the transformed tiles.
        """
        grid = TileGrid(x.shape[0], x.shape[1], self.dilation, self.tile)
        matrices = (self.tile + TAPS - 1) ** 2
        block_tiles = max(_MIN_BLOCK_TILES, _BLOCK_ELEMENTS // (matrices * max(self._in, self._out)))
        rows = simd_targets.simd_target().rows
        depths = self._in // matmul.DEPTH
        for first in range(0, grid.tiles, block_tiles):
            tiles = TileRange(grid, first, min(block_tiles, grid.tiles - first))
            blocks = -(-tiles.count // rows)
            left = _take_matrices(space, "tiles", matrices, blocks, depths, rows, matmul.DEPTH)
            products = _take_matrices(space, "products", matrices, blocks * rows, matmul.padded(self._out))
            tile_transforms.transform_input(x, tiles, self._input, left)
            matmul.batched_product(left, self._filters, products)
            tile_transforms.transform_output(products, tiles, self._output, self._bias, self.clamp, out)


def _take_matrices(space: Workspace, name: str, count: int, *shape: int) -> Tensor:
    """Return a tensor (count, *shape) of contiguous matrices with a gap between them."""
    size = math.prod(shape)
    return space.take(name, count, size + _MATRIX_GAP)[:, :size].unflatten(1, shape)  # type: ignore[no-any-return,no-untyped-call]


def _transform_filter(weight: Tensor, transform: Matrix) -> Tensor:
    """Return `matmul.in_panels` of the transformed filters ((m + 2)^2, in, out), computed in float64.

    The two spatial axes are swapped, because the tile transforms store columns first.
    """
    one = torch.tensor(transform, dtype=torch.float64)
    both = torch.kron(one, one)
    channels, width = weight.shape[1], simd_targets.simd_target().columns
    # Zeros pad the last panel.
    result = torch.zeros(len(both), matmul.padded(len(weight)) // width, channels, width)
    # Some at a time: all of the largest layer in float64 takes half a GiB more. Always as many: a product of
    # another size may round otherwise.
    for index, part in enumerate(torch.split(weight, _FILTERS_TOGETHER)):
        columns = part.double().permute(3, 2, 1, 0).reshape(TAPS * TAPS, -1)
        transformed = (both @ columns).view(len(both), channels, -1)
        first = index * _FILTERS_TOGETHER // width
        for panel, piece in enumerate(torch.split(transformed, width, 2), first):
            result[:, panel, :, : piece.shape[2]] = piece
    return result


# ---- the cost model


@dataclass(frozen=True)
class Costs:
    """Costs in units of one multiplication of a direct convolution.

    `transform_in` and `transform_out` are the costs per element of the transformed input and output;
    `filters` and `direct_filters` per element of the filters, transformed and not, independent of the image's
    size.
    """

    transform_in: float
    transform_out: float
    filters: float
    direct_filters: float


# Fitted by `python -m benchmarks.costs`.
COSTS = Costs(30, 20, 5, 40)


def choose_tile(
    height: int, width: int, dilation: int, channels_in: int, channels_out: int, costs: Costs = COSTS
) -> int | None:
    """Return the tile size of the cheapest Winograd kernel, or None where a direct convolution is cheaper.

    The choice depends on shapes only, never on timings: results must be the same in every run.
    """
    best, lowest = None, (height * width + costs.direct_filters) * TAPS**2 * channels_in * channels_out
    for tile in POINTS:
        cost = winograd_cost(TileGrid(height, width, dilation, tile), channels_in, channels_out, costs)
        if cost < lowest:
            best, lowest = tile, cost
    return best


def winograd_cost(grid: TileGrid, channels_in: int, channels_out: int, costs: Costs) -> float:
    """Return the cost of the products, of loading the filters from memory, and of the transforms."""
    rows = simd_targets.simd_target().rows
    products_per_matrix = (math.ceil(grid.tiles / rows) * rows + costs.filters) * channels_in * channels_out
    transforms = grid.tiles * (costs.transform_in * channels_in + costs.transform_out * channels_out)
    return (grid.tile + TAPS - 1) ** 2 * (products_per_matrix + transforms)
