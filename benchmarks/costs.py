"""Fit the constants of `fcn_cli.cpu.winograd`: the cost of Winograd and direct convolutions."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks import material
from fcn_cli.cpu import winograd
from fcn_cli.cpu.toom_cook import POINTS
from fcn_cli.cpu.winograd import Winograd
from fcn_cli.cpu.workspace import Workspace
from fcn_cli.evaluation.bench import in_turn

ROUNDS = 9
# Channels in and out, height, width and dilation of the ResNets' and the preview's layers at several sizes.
SHAPES = [
    (channels, out, height, width, dilation)
    for height, width in ((5, 7), (9, 11), (17, 22), (33, 44), (65, 87), (130, 174))
    for channels, out, dilation in (
        (64, 64, 1),
        (128, 128, 1),
        (256, 256, 2),
        (512, 512, 4),
        (320, 96, 1),
        (2048, 512, 1),
    )
    if height < 130 or channels < 512
]


Times = dict[int | None, float]
# The candidate values of each constant, in the order of `winograd.Costs`.
CANDIDATES = (
    (20, 30, 40, 60, 80, 120),
    (10, 20, 30, 40, 60),
    (0, 2, 5, 10, 20, 40),
    (0, 10, 20, 30, 40, 60, 80, 120),
)


def main() -> None:
    """Print the measurements, the loss of the current constants, and the best candidates."""
    print(material.machine())
    with torch.inference_mode():
        measured: dict[tuple[int, ...], Times] = {shape: measure(*shape) for shape in SHAPES}
    losses = choices(measured, winograd.COSTS)
    for (shape, times), (chosen, loss) in zip(measured.items(), losses, strict=True):
        shown = ", ".join(f"{name or 'direct'} {seconds * 1e3:.2f} ms" for name, seconds in times.items())
        print(f"{shape}: {shown}; chosen {chosen or 'direct'}, {loss:.2f} of the fastest")
    print(f"mean of {winograd.COSTS}: {mean(losses):.3f}")
    candidates = [winograd.Costs(*each) for each in itertools.product(*CANDIDATES)]
    best = min(candidates, key=lambda costs: mean(choices(measured, costs)))
    print(f"mean of {best}, the best candidate: {mean(choices(measured, best)):.3f}")


def choices(measured: dict[tuple[int, ...], Times], costs: winograd.Costs) -> list[tuple[int | None, float]]:
    """Return the chosen tile size for every shape, and its time relative to the fastest."""
    result = []
    for (channels, out, height, width, dilation), times in measured.items():
        chosen = winograd.choose_tile(height, width, dilation, channels, out, costs)
        result.append((chosen, times[chosen] / min(times.values())))
    return result


def mean(losses: list[tuple[int | None, float]]) -> float:
    """Return the mean loss."""
    return statistics.mean(loss for _, loss in losses)


def measure(channels: int, out: int, height: int, width: int, dilation: int) -> Times:
    """Return the median seconds by Winograd's tile size; None is the direct convolution. Timed in turn."""
    x = torch.randn(height, width, channels).relu_()
    weight, bias = torch.randn(out, channels, 3, 3), torch.zeros(out)
    batch = x.unsqueeze(0).permute(0, 3, 1, 2)
    channels_last = weight.contiguous(memory_format=torch.channels_last)
    space, result = Workspace(), torch.empty(height, width, out)
    kernels = {tile: Winograd(weight.double(), bias.double(), dilation, tile, (0.0, None)) for tile in POINTS}

    def direct() -> None:
        F.conv2d(batch, channels_last, bias, padding=dilation, dilation=dilation).relu_()

    def winograd(kernel: Winograd) -> Callable[[], None]:
        return lambda: kernel(x, result, space)

    runs: dict[int | None, Callable[[], None]] = {None: direct}
    runs.update({tile: winograd(kernel) for tile, kernel in kernels.items()})
    return {name: statistics.median(each) for name, each in in_turn(runs, ROUNDS).items()}


if __name__ == "__main__":
    main()
