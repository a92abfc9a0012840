"""The errors of our kernels' logits and of PyTorch's, relative to the same model in float64."""

from __future__ import annotations

import argparse
import copy

import torch

from benchmarks import material
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.models import registry


def main() -> None:
    """Print the largest error divided by the largest logit, for every network and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", nargs="+", default=list(registry.BACKBONES))
    parser.add_argument("--size", nargs="+", default=["520x520", "693x520"], metavar="WxH")
    options = parser.parse_args()
    print(material.machine())
    for name in options.backbone:
        model = registry.find(name).build(len(VOC_CLASSES)).eval()
        material.randomise(model)
        for size in options.size:
            width, height = map(int, size.split("x"))
            batch = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
            with torch.inference_mode():
                exact = copy.deepcopy(model).double()(batch.double())
                for contender, logit in (
                    ("fcn", CpuNetwork(model)(batch)),
                    ("PyTorch", model(batch)),
                ):
                    error = float((logit - exact).abs().max() / exact.abs().max())
                    differing = int((logit.argmax(1) != exact.argmax(1)).sum())
                    print(f"{name} {size} {contender}: {error:.1e}, {differing} argmax differ", flush=True)


if __name__ == "__main__":
    main()
