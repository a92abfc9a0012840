"""Which kernel a 3x3 convolution takes: a small model of what each costs, set offline.

Decided by shapes alone, never by a timing while it runs: results must be the same in every run.
"""

from __future__ import annotations

from .winograd import POINTS, TAPS, Grid

# In units of one multiplication of a direct convolution; `python -m benchmarks.costs` fits them.
TRANSFORM_IN = 25.0
TRANSFORM_OUT = 35.0
_TILES = tuple(POINTS)


def choose_tile(height: int, width: int, dilation: int, channels_in: int, channels_out: int) -> int | None:
    """Return the tile size of the Winograd kernel that costs least, or None where a direct one does."""
    best, least = None, float(height * width * TAPS**2 * channels_in * channels_out)
    for tile in _TILES:
        cost = winograd_cost(Grid(height, width, dilation, tile), channels_in, channels_out)
        if cost < least:
            best, least = tile, cost
    return best


def winograd_cost(grid: Grid, channels_in: int, channels_out: int) -> float:
    """Return what it costs: the GEMMs, and the transforms, which are bound by memory."""
    elements = grid.tiles * (grid.tile + TAPS - 1) ** 2
    return elements * (channels_in * channels_out + TRANSFORM_IN * channels_in + TRANSFORM_OUT * channels_out)
