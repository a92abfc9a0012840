"""``fcn segment`` and the Hub page's loop on a directory of mixed sizes: whole commands, timed in turn."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models import segmentation

from benchmarks import material

# Typical photos: landscape and portrait, small and large.
SIZES = ((640, 480), (480, 640), (1024, 768), (800, 600), (500, 375), (1600, 1200), (720, 1280), (4000, 3000))


def main() -> None:
    """Print each round's seconds and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=["resnet50", "resnet101"])
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.backbone}, {options.photos} photos of {len(SIZES)} sizes; {material.machine()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_material(folder, options.backbone, options.photos)
        ratios = []
        for index in range(options.rounds):
            weights, photos = str(folder / "weights.pth"), str(folder / "photos")
            hub_out, fcn_out = folder / f"hub{index}", folder / f"fcn{index}"
            hub = seconds("benchmarks.hub_loop", options.backbone, weights, photos, str(hub_out))
            network = ("--backbone", options.backbone, "--weights", weights)
            fcn = seconds("fcn_cli", "segment", photos, "-q", "-o", str(fcn_out), *network)
            ratios.append(hub / fcn)
            equal = agreement(hub_out, fcn_out)
            print(
                f"round {index + 1}: hub loop {hub:.1f} s, fcn {fcn:.1f} s, ratio {ratios[-1]:.2f}; "
                f"masks agree in {equal:.4%} of the pixels",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


def make_material(folder: Path, backbone: str, photos: int) -> None:
    """Write the checkpoint and the photos."""
    build = getattr(segmentation, f"fcn_{backbone}")
    model = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    material.randomise(model)
    torch.save(model.state_dict(), folder / "weights.pth")
    for number in range(photos):
        width, height = SIZES[number % len(SIZES)]
        part = folder / f"part{number}"
        material.make_photos(part, 1, width, height)
        (folder / "photos").mkdir(exist_ok=True)
        next(part.iterdir()).rename(folder / "photos" / f"photo{number:03}.jpg")


def seconds(module: str, *arguments: str) -> float:
    """Run a Python module and return how long it took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)
    return time.perf_counter() - started


def agreement(dir_a: Path, dir_b: Path) -> float:
    """Return the fraction of equal pixels in two directories' masks; both must have the same files."""
    equal = total = 0
    names = {kind: sorted(path.name for path in (dir_a / kind).iterdir()) for kind in ("masks", "color")}
    assert names == {kind: sorted(path.name for path in (dir_b / kind).iterdir()) for kind in names}
    for name in names["masks"]:
        a, b = (np.array(Image.open(folder / "masks" / name)) for folder in (dir_a, dir_b))
        equal += int((a == b).sum())
        total += a.size
    return equal / total


if __name__ == "__main__":
    main()
