"""The error of F(m x m, 3 x 3) in float32 and bfloat16, for several tile sizes and interpolation points.

Features and filters are normally distributed. Errors are differences from the convolution in float64,
relative to the standard deviation of its result. In bfloat16, features are bfloat16 to begin with, and so is
the result: what differs is whether the factors of the products (filters, or transformed tiles and filters)
are rounded, too. Sums are exact there, because they are float32 in kernels.
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
    in_bfloat16(x, weight)


def in_bfloat16(x: Tensor, weight: Tensor) -> None:
    """Print the errors in bfloat16, for the first points of every tile size."""
    pixels = rounded(x.double()).permute(2, 0, 1)
    exact = F.conv2d(pixels[None], weight)[0]
    direct = F.conv2d(pixels[None], rounded(weight))[0]
    print(f"{'exact products, bf16 result':45} {errors(rounded(exact), exact)}")
    print(f"{'direct convolution in bf16':45} {errors(rounded(direct), exact)}")
    for tile, (points, *_) in CANDIDATES.items():
        toom_cook.POINTS[tile] = tuple(map(Fraction, points.split()))
        matrices = toom_cook.Transforms.of(tile)
        output, filters, inputs = (
            torch.tensor(matrix, dtype=torch.float64)
            for matrix in (matrices.output, matrices.filter, matrices.input)
        )
        tiles = pixels.unfold(1, tile + 2, tile).unfold(2, tile + 2, tile)
        left = rounded(torch.einsum("ua,cyxab,vb->cyxuv", inputs, tiles, inputs))
        right = rounded(torch.einsum("ua,ocab,vb->ocuv", filters, weight, filters))
        products = torch.einsum("ocuv,cyxuv->oyxuv", right, left)
        result = torch.einsum("au,oyxuv,bv->oyaxb", output, products, output).flatten(1, 2).flatten(2)
        part = exact[:, : result.shape[1], : result.shape[2]]
        print(f"{f'F({tile}x{tile}, 3x3) in bf16':45} {errors(rounded(result), part)}", flush=True)


def rounded(x: Tensor) -> Tensor:
    """Round to bfloat16."""
    return x.float().bfloat16().double()


def errors(result: Tensor, exact: Tensor) -> str:
    """Return the largest error and the root mean square."""
    relative = (result - exact) / exact.std()
    return f"largest {relative.abs().max():.1e}, rms {relative.square().mean().sqrt():.1e}"


if __name__ == "__main__":
    main()
