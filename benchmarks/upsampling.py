"""The time of upsampling and argmax relative to the forward pass, at 693x520 and at 12 megapixels."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from benchmarks import material
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.evaluation.bench import in_turn
from fcn_cli.inference.labels import Upsampler
from fcn_cli.models import registry

ROUNDS = 7


def main() -> None:
    """Print medians and fractions for a resnet50 with seeded random weights."""
    model = registry.find("resnet50").build(21).eval()
    material.randomise(model)
    print(material.machine())
    with torch.inference_mode():
        network = CpuNetwork(model)
        batch = torch.randn(1, 3, 520, 693, generator=torch.Generator().manual_seed(0))
        logits = network(batch)[0]
        runs: dict[str, Callable[[], object]] = {
            "forward 693x520": lambda: network(batch),
            "label map 693x520": lambda: Upsampler().to_size(logits, 520, 693),
            "label map 4000x3000": lambda: Upsampler().to_size(logits, 3000, 4000),
        }
        medians = {name: statistics.median(each) for name, each in in_turn(runs, ROUNDS).items()}
    forward = medians["forward 693x520"]
    for name, value in medians.items():
        print(f"{name}: {value * 1e3:.1f} ms, {value / forward:.1%} of the forward pass")


if __name__ == "__main__":
    main()
