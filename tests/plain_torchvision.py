"""Plain torchvision's networks, to hold ours against."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import segmentation

from benchmarks.material import randomise

from .conftest import SAMPLES


def plain_network(backbone: str) -> torch.nn.Module:
    """Return torchvision's own network, auxiliary head and all."""
    build = getattr(segmentation, f"fcn_{backbone}")
    model: torch.nn.Module = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    return model.eval()


def stand_in(backbone: str) -> torch.nn.Module:
    """Return torchvision's own network with seeded random weights that see many classes in an image."""
    model = plain_network(backbone)
    randomise(model)
    # Random logits are smooth and one class wins: even the classes out on a real image.
    image = transforms.ToTensor()(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[None]
    with torch.inference_mode():
        logits = model(image)["out"]
    final = model.get_submodule("classifier.4")
    with torch.no_grad():
        final.weight /= logits.std((0, 2, 3))[:, None, None, None]
        final.bias -= logits.mean((0, 2, 3))
        final.bias /= logits.std((0, 2, 3))
    return model
