"""What a megapixel of a large photo costs on this machine, in tiles. Input and weights are random."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..common import resources
from ..inference import device_errors
from ..inference.engine import Engine
from ..inference.execution import ExecutionConfig
from ..inference.options import ViewOptions
from ..inference.tiling import TileGrid
from . import speed

DEFAULT_SIZE = (2000, 1500)
"""Width and height in pixels of the photo that is timed unless another size is given."""

TILED = "tiles"
ALONE = "a tile alone"


@dataclass(frozen=True)
class MeasuredTiles:
    """The result: for `TILED` and `ALONE` the seconds per megapixel of each round.

    `TILED` is a photo of `width` x `height` pixels, per megapixel of the photo; `ALONE` is a photo of the
    size of a tile, per megapixel of the tile. The difference is what the overlap and the extension of the
    photo to whole tiles cost.
    """

    backbone: str
    width: int
    height: int
    grid: TileGrid
    execution: ExecutionConfig
    seconds: dict[str, list[float]]

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        axis = self.grid.x if self.grid.x.is_tiled else self.grid.y
        return {
            "backbone": self.backbone,
            "width": self.width,
            "height": self.height,
            "tiles": self.grid.count,
            "tile_width": self.grid.x.tile,
            "tile_height": self.grid.y.tile,
            "overlap": axis.tile - axis.step,
            "batch_size": self.execution.batch_size,
            "machine": resources.describe(),
            "torch": torch.__version__,
            **self.execution.as_json(),
            "rounds": len(self.seconds[TILED]),
            "seconds_per_megapixel": statistics.median(self.seconds[TILED]),
            "seconds_per_megapixel_of_a_tile_alone": statistics.median(self.seconds[ALONE]),
            "all_seconds_per_megapixel": self.seconds,
        }


def measure(
    backbone: str, size: tuple[int, int], execution: ExecutionConfig, views: ViewOptions, rounds: int
) -> MeasuredTiles:
    """Time a photo in tiles, and a photo of the size of one tile, in turn, round by round.

    Parameters
    ----------
    backbone
        A name in the registry.
    size
        The photo's (width, height) in pixels.
    execution
        Where and how the network runs.
    views
        The tiles.
    rounds
        Timed rounds, at least 1; one untimed round runs before them.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    RequestError
        The device has too little memory for a batch of tiles.
    """
    network = speed.random_network(backbone)
    engine = Engine(network, execution, views=views)
    width, height = size
    photo = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    grid = TileGrid.of(photo[0], views, network.backbone.stride)
    tile = photo[:, : grid.y.tile, : grid.x.tile]
    with (
        device_errors.detect_lost_device(execution.device),
        speed.detect_out_of_memory(execution, grid.x.tile, grid.y.tile),
    ):
        seconds = speed.in_turn(
            {TILED: speed.engine_run(engine, photo), ALONE: speed.engine_run(engine, tile)}, rounds
        )
    pixels = {TILED: width * height, ALONE: tile.shape[1] * tile.shape[2]}
    per_megapixel = {name: [one * 1e6 / pixels[name] for one in each] for name, each in seconds.items()}
    return MeasuredTiles(backbone, width, height, grid, execution, per_megapixel)
