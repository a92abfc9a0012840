"""``fcn bench``: time this machine."""

from __future__ import annotations

from . import network_options, options
from .figures import print_figures


def bench(
    backbone: network_options.BackboneOption = network_options.BackboneName.RESNET50,
    size: network_options.Size = "693x520",
    batch_size: network_options.BatchSize = "auto",
    rounds: options.Rounds = 5,
    device: network_options.Device = "auto",
    threads: network_options.Threads = "auto",
    kernels: network_options.KernelsOption = network_options.Kernels.FAST,
    precision: network_options.PrecisionOption = network_options.Precision.AUTO,
    as_json: options.FiguresAsJson = False,
) -> None:
    """Time this machine: images/s of plain torchvision and of fcn, in turn, with random weights.

    torchvision runs as on the PyTorch Hub page, with its auxiliary head, and also without it. The limit of
    direct convolution is the rate that the fastest matrix product would allow.
    """
    from ..evaluation import speed
    from ..inference.execution import resolve_execution
    from ..inference.options import InferenceOptions
    from . import tables

    execution = resolve_execution(InferenceOptions(device, precision, kernels, batch_size, threads))
    measured = speed.measure(backbone, size[0], size[1], execution, rounds)
    print_figures(measured.as_json(), tables.bench, as_json=as_json)
