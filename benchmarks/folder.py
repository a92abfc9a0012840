"""``fcn segment`` and the Hub page's loop on a directory of mixed sizes: whole commands, timed in turn.

With `--against` another checkout takes the place of the loop.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models import segmentation

from benchmarks import against, material
from benchmarks.against import Figure

# Typical images: landscape and portrait, small and large.
SIZES = ((640, 480), (480, 640), (1024, 768), (800, 600), (500, 375), (1600, 1200), (720, 1280), (4000, 3000))


def main() -> None:
    """Print each round's seconds and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=["resnet50", "resnet101"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    against.add_options(parser)
    against.main(parser, figures, show)


def figures(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Measure the command once."""
    make_material(folder, options.backbone, options.images)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        yield Figure("fcn segment", fcn_seconds(options, folder, Path(output) / "out"), "s")


def show(options: argparse.Namespace, folder: Path) -> None:
    """Measure the loop and the command in turn, and print them."""
    print(f"{options.backbone}, {options.images} images of {len(SIZES)} sizes; {material.machine()}")
    make_material(folder, options.backbone, options.images)
    ratios = []
    for index in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=folder) as output:
            hub_out, fcn_out = Path(output) / "hub", Path(output) / "fcn"
            arguments = options.backbone, str(folder / "weights.pth"), str(folder / "photos"), str(hub_out)
            hub = seconds("benchmarks.hub_loop", *arguments)
            fcn = fcn_seconds(options, folder, fcn_out)
            equal = agreement(hub_out, fcn_out)
        ratios.append(hub / fcn)
        print(
            f"round {index + 1}: hub loop {hub:.1f} s, fcn {fcn:.1f} s, ratio {ratios[-1]:.2f}; "
            f"masks agree in {equal:.4%} of the pixels",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


def fcn_seconds(options: argparse.Namespace, folder: Path, output: Path) -> float:
    """Return how long the command takes into a new output directory."""
    network = ("--backbone", options.backbone, "--weights", str(folder / "weights.pth"))
    chosen = (*network, "--precision", options.precision)
    return seconds("fcn_cli", "segment", str(folder / "photos"), "-q", "-o", str(output), *chosen)


def make_material(folder: Path, backbone: str, images: int) -> None:
    """Write the checkpoint and the images, where they are missing."""
    if (folder / "weights.pth").exists():
        return
    for number in range(images):
        width, height = SIZES[number % len(SIZES)]
        part = folder / f"part{number}"
        material.make_images(part, 1, width, height)
        (folder / "photos").mkdir(exist_ok=True)
        next(part.iterdir()).rename(folder / "photos" / f"photo{number:03}.jpg")
        part.rmdir()
    build = getattr(segmentation, f"fcn_{backbone}")
    model = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    material.randomise(model)
    torch.save(model.state_dict(), folder / "weights.pth")


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
