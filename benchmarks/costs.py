"""Fit the constants of `fcn_cli.kernel_costs`: what a Winograd convolution costs beside a direct one."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks import material
from fcn_cli import kernel_costs
from fcn_cli.bench import in_turn
from fcn_cli.winograd import POINTS, TAPS, Grid, Winograd
from fcn_cli.workspace import Workspace

ROUNDS = 9
# Channels in and out, height, width, dilation: the ResNets' and the preview's layers at several sizes.
SHAPES = [
    (channels, out, height, width, dilation)
    for height, width in ((17, 22), (33, 44), (65, 87), (130, 174))
    for channels, out, dilation in (
        (64, 64, 1),
        (128, 128, 1),
        (256, 256, 2),
        (512, 512, 4),
        (320, 80, 1),
        (2048, 512, 1),
    )
    if height < 130 or channels < 512
]


def main() -> None:
    """Print the fit, and how often its choice is the fastest one measured."""
    print(material.machine())
    present = kernel_costs.present()
    rows, targets, lines = [], [], []
    with torch.inference_mode():
        for shape in SHAPES:
            times = measure(*shape)
            direct = times[None]
            channels, out, height, width, dilation = shape
            product = channels * out
            unit = direct / (height * width * TAPS**2 * product)
            for tile, seconds in times.items():
                if tile is None:
                    continue
                size = (tile + TAPS - 1) ** 2
                elements = Grid(height, width, dilation, tile).tiles * size
                # Relative errors count: each row is divided by the direct convolution's time.
                weight = unit / direct
                costs = [elements * channels, elements * out, size * product]
                rows.append([cost * weight for cost in costs])
                targets.append(seconds / direct - elements * product * weight)
            chosen = kernel_costs.choose_tile(height, width, dilation, channels, out, present)
            lines.append((shape, times, chosen, times[chosen] / min(times.values())))
    fit, *_ = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)
    for shape, times, chosen, loss in lines:
        shown = ", ".join(f"{name or 'direct'} {seconds * 1e3:.2f} ms" for name, seconds in times.items())
        print(f"{shape}: {shown}; chosen {chosen or 'direct'}, {loss:.2f} of the fastest")
    print(f"fitted: transform_in {fit[0]:.1f}, transform_out {fit[1]:.1f}, filter {fit[2]:.1f}")
    print(f"mean loss of {present}: {statistics.mean(line[3] for line in lines):.3f}")


def measure(channels: int, out: int, height: int, width: int, dilation: int) -> dict[int | None, float]:
    """Return median seconds, timed in turn: None for a direct convolution, else by Winograd's tile size."""
    x = torch.randn(height, width, channels).relu_()
    weight, bias = torch.randn(out, channels, 3, 3), torch.zeros(out)
    batch = x.unsqueeze(0).permute(0, 3, 1, 2)
    last = weight.contiguous(memory_format=torch.channels_last)
    space, result = Workspace(), torch.empty(height, width, out)
    kernels = {tile: Winograd(weight.double(), bias.double(), dilation, tile, (0.0, None)) for tile in POINTS}

    def direct() -> None:
        F.conv2d(batch, last, bias, padding=dilation, dilation=dilation).relu_()

    def winograd(kernel: Winograd) -> Callable[[], None]:
        return lambda: kernel(x, result, space)

    runs: dict[int | None, Callable[[], None]] = {None: direct}
    runs.update({tile: winograd(kernel) for tile, kernel in kernels.items()})
    return {name: statistics.median(each) for name, each in in_turn(runs, ROUNDS).items()}


if __name__ == "__main__":
    main()
