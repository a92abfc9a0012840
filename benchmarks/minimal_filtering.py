"""The error of F(m x m, 3 x 3) in float32, for several tile sizes and interpolation points.

Features and filters are normally distributed. Errors are differences from the convolution in float64,
relative to the standard deviation of its result.
"""

from __future__ import annotations

import argparse
from fractions import Fraction

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks import material
from fcn_cli.cpu import toom_cook
from fcn_cli.cpu.winograd import Winograd
from fcn_cli.cpu.workspace import Workspace

# Finite points; infinity is always one more.
CANDIDATES: dict[int, tuple[str, ...]] = {
    2: ("0 1 -1",),
    4: ("0 1 -1 1/2 -2", "0 1 -1 2 -2", "0 1 -1 1/2 -1/2"),
    6: ("0 1 -1 2 -2 1/2 -1/2", "0 1 -1 2 -2 3 -3", "0 1 -1 1/2 -1/2 1/4 -1/4", "0 1 -1 1/2 -1/2 3/2 -3/2"),
    8: ("0 1 -1 2 -2 1/2 -1/2 4 -1/4", "0 1 -1 2 -2 1/2 -1/2 4 -4"),
}


def main() -> None:
    """Print the largest and the root mean square error for every candidate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--size", default="48x48", metavar="WxH", help="a multiple of all tile sizes")
    options = parser.parse_args()
    print(material.machine())
    width, height = map(int, options.size.split("x"))
    random = torch.Generator().manual_seed(0)
    x = torch.randn(height, width, options.channels, generator=random)
    weight = torch.randn(options.channels, options.channels, 3, 3, generator=random).double()
    exact = F.conv2d(x.double().permute(2, 0, 1)[None], weight, padding=1)[0].permute(1, 2, 0)
    direct = F.conv2d(x.permute(2, 0, 1)[None], weight.float(), padding=1)[0].permute(1, 2, 0)
    print(f"{'direct convolution by PyTorch':45} {errors(direct, exact)}")
    for tile, candidates in CANDIDATES.items():
        for points in candidates:
            toom_cook.POINTS[tile] = tuple(map(Fraction, points.split()))
            layer = Winograd(weight, torch.zeros(options.channels).double(), 1, tile, (None, None))
            out = torch.empty_like(direct, memory_format=torch.contiguous_format)
            layer(x, out, Workspace())
            print(f"{f'F({tile}x{tile}, 3x3), points {points} oo':45} {errors(out, exact)}", flush=True)


def errors(result: Tensor, exact: Tensor) -> str:
    """Return the largest error and the root mean square."""
    relative = (result - exact) / exact.std()
    return f"largest {relative.abs().max():.1e}, rms {relative.square().mean().sqrt():.1e}"


if __name__ == "__main__":
    main()
