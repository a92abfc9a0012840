"""Choose the kernel of a 3x3 convolution by a small cost model, fitted offline.

The choice depends on shapes only, never on timings: results must be the same in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .kernels import simd_targets
from .kernels.tile_grid import TileGrid
from .toom_cook import POINTS, TAPS

_TILES = tuple(POINTS)


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
    """Return the tile size of the cheapest Winograd kernel, or None where a direct convolution is cheaper."""
    best, lowest = None, (height * width + costs.direct_filters) * TAPS**2 * channels_in * channels_out
    for tile in _TILES:
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
