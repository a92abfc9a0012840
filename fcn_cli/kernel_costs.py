"""Which kernel a 3x3 convolution takes: a small model of what each costs, set offline.

Decided by shapes and by which library multiplies, never by a timing while it runs: results must be the same
in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import products
from .winograd import POINTS, TAPS, Grid

_TILES = tuple(POINTS)


@dataclass(frozen=True)
class Costs:
    """What things cost, in units of one multiplication of a direct convolution.

    `transform_in` and `transform_out` are for each element of the transformed input and output, `filter` for
    each of the (transformed) filters, which are read once whatever the image's size.
    """

    transform_in: float
    transform_out: float
    filter: float


# `python -m benchmarks.costs` fits them. Where oneDNN multiplies, a multiplication costs half.
MKL = Costs(25, 35, 0)
ONEDNN = Costs(110, 160, 40)


def present() -> Costs:
    """Return the costs that hold on this machine."""
    return ONEDNN if products.onednn_leads() else MKL


def choose_tile(
    height: int, width: int, dilation: int, channels_in: int, channels_out: int, costs: Costs
) -> int | None:
    """Return the tile size of the Winograd kernel that costs least, or None where a direct one does."""
    best, least = None, (height * width + costs.filter) * TAPS**2 * channels_in * channels_out
    for tile in _TILES:
        cost = winograd_cost(Grid(height, width, dilation, tile), channels_in, channels_out, costs)
        if cost < least:
            best, least = tile, cost
    return best


def winograd_cost(grid: Grid, channels_in: int, channels_out: int, costs: Costs) -> float:
    """Return what it costs: the products, the filters' way from memory, and the transforms."""
    products_each = (grid.tiles + costs.filter) * channels_in * channels_out
    transforms = grid.tiles * (costs.transform_in * channels_in + costs.transform_out * channels_out)
    return (grid.tile + TAPS - 1) ** 2 * (products_each + transforms)
