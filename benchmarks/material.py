"""The material of the benchmarks: images cut from the samples, networks with seeded random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fcn_cli.common.label_map import LabelMap
from fcn_cli.common.resources import describe

SAMPLES = Path(__file__).parent.parent / "sample_images"


def make_images(folder: Path, count: int, width: int, height: int) -> None:
    """Write JPEGs of about the given size, each a different cut and scale of a sample image."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.[jp][pn]g"))]
    for number in range(count):
        sample = samples[number % len(samples)]
        left, top = 3 * number % 40, 5 * number % 40
        cut = sample.crop((left, top, sample.width - 10, sample.height - 10))
        cut.resize((width + number % 5, height - number % 3)).save(
            folder / f"photo{number:05}.jpg", quality=90
        )


def circles(seed: int, width: int, height: int) -> LabelMap:
    """Return a label map of five circles of random classes."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    for _ in range(5):
        centre_x, centre_y = random.integers(0, (width, height))
        labels[(x - centre_x) ** 2 + (y - centre_y) ** 2 < random.integers(40, height // 2) ** 2] = (
            random.integers(1, 21)
        )
    return labels


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Set seeded random weights and BatchNorm statistics; without them all logits are nearly equal."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)


def machine() -> str:
    """Return a line that describes this machine."""
    return f"{describe()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
