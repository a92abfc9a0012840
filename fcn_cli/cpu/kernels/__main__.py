"""Print a kernel as LLVM's intermediate representation or as assembly: `python -m fcn_cli.cpu.kernels -h`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..toom_cook import POINTS, Transforms
from . import amx, argmax, matmul, simd_targets, tile_transforms
from .compiler import Kernel
from .simd_targets import SIMD_TARGETS, SimdTarget

_KERNELS: dict[str, Callable[[SimdTarget, argparse.Namespace], Kernel]] = {
    "pointwise": lambda target, options: matmul.pointwise_kernel(
        target, add=options.add, whole=not options.partial, deep=options.deep, bf16=options.bf16
    ),
    "batched_product": lambda target, options: matmul.batched_kernel(target, deep=options.deep),
    "transform_input": lambda target, options: tile_transforms.input_kernel(
        target, options.tile, Transforms.of(options.tile).input, bf16=options.bf16
    ),
    "transform_output": lambda target, options: tile_transforms.output_kernel(
        target, options.tile, Transforms.of(options.tile).output, bf16=options.bf16
    ),
    "argmax": lambda target, _options: argmax.argmax_kernel(target),
    "amx_convolution": lambda target, options: amx.convolution_kernel(
        target, steps=options.steps, add=options.add, groups=1, chunked=False
    ),
}


def main() -> None:
    """Print one kernel."""
    targets = {target.name: target for target in SIMD_TARGETS}
    parser = argparse.ArgumentParser(prog="python -m fcn_cli.cpu.kernels", description=__doc__)
    parser.add_argument("kernel", choices=_KERNELS)
    parser.add_argument("--format", choices=["ir", "assembly"], default="assembly")
    parser.add_argument(
        "--target",
        type=str.upper,
        choices=targets,
        default=simd_targets.simd_target().name,
        help="the instruction set, default %(default)s: this machine's best one",
    )
    parser.add_argument("--tile", type=int, choices=POINTS, default=max(POINTS), help="m of a transform")
    parser.add_argument("--deep", action="store_true", help="a product with blocked summation")
    parser.add_argument("--add", action="store_true", help="pointwise, amx_convolution: add to the result")
    parser.add_argument("--partial", action="store_true", help="pointwise: the last panel is not full")
    parser.add_argument("--bf16", action="store_true", help="pointwise or a transform: of bfloat16")
    parser.add_argument(
        "--steps",
        type=int,
        choices=amx.ALL_STEPS,
        default=1,
        help="amx_convolution: products of a position",
    )
    options = parser.parse_args()
    target = targets[options.target]
    if options.kernel == "amx_convolution" and not target.multiplies_bf16:
        parser.error(f"argument --target: for amx_convolution choose from {simd_targets.AVX512_BF16.name}")
    kernel = _KERNELS[options.kernel](target, options)
    try:
        sys.stdout.write(kernel.ir if options.format == "ir" else kernel.assembly())
    except RuntimeError as error:
        parser.error(f"LLVM does not compile for {target.name} here: {error}")


if __name__ == "__main__":
    main()
