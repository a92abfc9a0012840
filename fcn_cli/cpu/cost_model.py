"""Which kernel a 3x3 convolution takes: a small model of what each costs, set offline.

Decided by shapes, never by a timing while it runs: results must be the same in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .kernels import compiler
from .kernels.tile_grid import Grid
from .winograd import POINTS, TAPS

_TILES = tuple(POINTS)


@dataclass(frozen=True)
class Costs:
    """What things cost, in units of one multiplication of a direct convolution.

    `transform_in` and `transform_out` are for each element of the transformed input and output, `filters` and
    `direct_filters` for each number of the filters, transformed or not, whatever the image's size.
    """

    transform_in: float
    transform_out: float
    filters: float
    direct_filters: float


# `python -m benchmarks.costs` fits them.
COSTS = Costs(30, 20, 5, 40)


def choose_tile(
    height: int, width: int, dilation: int, channels_in: int, channels_out: int, costs: Costs = COSTS
) -> int | None:
    """Return the tile size of the Winograd kernel that costs least, or None where a direct one does."""
    best, least = None, (height * width + costs.direct_filters) * TAPS**2 * channels_in * channels_out
    for tile in _TILES:
        cost = winograd_cost(Grid(height, width, dilation, tile), channels_in, channels_out, costs)
        if cost < least:
            best, least = tile, cost
    return best


def winograd_cost(grid: Grid, channels_in: int, channels_out: int, costs: Costs) -> float:
    """Return what it costs: the products, the filters' way from memory, and the transforms."""
    rows = compiler.processor().rows
    products_each = (math.ceil(grid.tiles / rows) * rows + costs.filters) * channels_in * channels_out
    transforms = grid.tiles * (costs.transform_in * channels_in + costs.transform_out * channels_out)
    return (grid.tile + TAPS - 1) ** 2 * (products_each + transforms)
