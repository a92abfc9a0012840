"""``fcn bench``: time this machine."""

from __future__ import annotations

from ..models.registry import DEFAULT_BACKBONE
from . import network_options, options
from .figures import print_figures


def bench(
    backbone: network_options.BackboneOption = DEFAULT_BACKBONE,
    size: network_options.Size = None,
    tile: network_options.Tile = None,
    overlap: network_options.Overlap = None,
    batch_size: network_options.BatchSize = "auto",
    rounds: options.Rounds = 5,
    device: network_options.Device = "auto",
    threads: network_options.Threads = "auto",
    kernels: network_options.KernelsOption = network_options.Kernels.AUTO,
    precision: network_options.PrecisionOption = network_options.Precision.AUTO,
    as_json: options.FiguresAsJson = False,
) -> None:
    """Time this machine: images/s of plain torchvision and of fcn, in turn, with random weights.

    torchvision runs as on the PyTorch Hub page, with its auxiliary head, and also without it. The limit of
    direct convolution is the rate that the fastest matrix product would allow. With --tile, instead: what a
    megapixel of a large photo costs in tiles.
    """
    from ..evaluation import speed, tile_speed
    from ..inference.execution import resolve_execution
    from ..inference.options import InferenceOptions, ViewOptions
    from . import tables

    execution = resolve_execution(InferenceOptions(device, precision, kernels, batch_size, threads))
    views = ViewOptions(tile, overlap)
    if tile is not None:
        tiled = tile_speed.measure(backbone, size or tile_speed.DEFAULT_SIZE, execution, views, rounds)
        print_figures(tiled.as_json(), tables.tile_bench, as_json=as_json)
        return
    width, height = size or speed.DEFAULT_SIZE
    measured = speed.measure(backbone, width, height, execution, rounds)
    print_figures(measured.as_json(), tables.bench, as_json=as_json)
