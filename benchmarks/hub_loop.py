"""The PyTorch Hub page's example in a loop over a directory; it writes the same two files per image.

It is deliberately as simple as users write it. Its input size is the default of ``fcn segment``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torchvision import transforms
from torchvision.models import segmentation


def main() -> None:
    """Segment; the arguments are backbone, checkpoint, directory of images, output, perhaps a device."""
    backbone, checkpoint, images, output, *device = sys.argv[1:]
    model = getattr(segmentation, f"fcn_{backbone}")(weights=None, weights_backbone=None, aux_loss=True)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    model.eval()
    if device:
        model.to(device[0])
    preprocess = transforms.Compose(
        [
            transforms.Resize(520),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    palette = torch.tensor([2**25 - 1, 2**15 - 1, 2**21 - 1])
    colors = (torch.as_tensor(list(range(21)))[:, None] * palette % 255).byte().numpy()
    for kind in ("masks", "color"):
        (Path(output) / kind).mkdir(parents=True)
    for path in sorted(Path(images).iterdir()):
        image = Image.open(path).convert("RGB")
        batch = preprocess(image).unsqueeze(0)
        if device:
            batch = batch.to(device[0])
        with torch.no_grad():
            logits = model(batch)["out"]
            logits = F.interpolate(logits, (image.height, image.width), mode="bilinear", align_corners=False)
        mask = Image.fromarray(logits[0].argmax(0).byte().cpu().numpy())
        mask.save(Path(output) / "masks" / f"{path.stem}.png")
        mask.putpalette(colors.tobytes())
        mask.save(Path(output) / "color" / f"{path.stem}.png")


if __name__ == "__main__":
    main()
