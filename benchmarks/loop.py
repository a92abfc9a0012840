"""How much of a bare loop's speed ``fcn segment`` keeps.

Both sides run the same forward passes, in turn, in one process: the bare loop on tensors that are ready,
`fcn` from files to files. Its rate is counted from the end of the start-up, as it prints it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import material
from fcn_cli import backbones, display, images, run
from fcn_cli.job import Job


def main() -> None:
    """Print each round's rates and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=list(backbones.BACKBONES))
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        material.make_photos(folder / "photos", options.photos, 500, 400)
        model = backbones.find(options.backbone).build(21).eval()
        material.randomise(model)
        torch.save(model.state_dict(), folder / "weights.pth")
        tensors = [ready(path) for path in sorted((folder / "photos").iterdir())]
        print(f"{options.backbone}, {options.photos} photos of about 500x400; {material.machine()}")
        bare(model, tensors[:2])
        ratios = []
        for index in range(options.rounds):
            bare_rate = bare(model, tensors)
            fcn_rate = fcn(folder, options.backbone, index)
            ratios.append(fcn_rate / bare_rate)
            print(f"round {index + 1}: bare {bare_rate:.3f} images/s, fcn {fcn_rate:.3f}, {ratios[-1]:.3f}")
        print(f"median ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


def ready(path: Path) -> torch.Tensor:
    """Return the network's input for a photo, as the engine makes it."""
    pixels, _ = images.network_input(images.decode(path).image, 520)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (batch - mean[:, None, None]) / std[:, None, None]


def bare(model: torch.nn.Module, tensors: list[torch.Tensor]) -> float:
    """Return the images/s of nothing but forward passes, without the auxiliary head or upsampling."""
    backbone, classifier = model.get_submodule("backbone"), model.get_submodule("classifier")
    started = time.perf_counter()
    with torch.inference_mode():
        for tensor in tensors:
            classifier(backbone(tensor)["out"])
    return len(tensors) / (time.perf_counter() - started)


def fcn(folder: Path, backbone: str, index: int) -> float:
    """Return the images/s of a whole run into a fresh output directory."""
    job = Job(
        inputs=[str(folder / "photos")],
        output=str(folder / f"out{index}"),
        backbone=backbone,
        weights_file=str(folder / "weights.pth"),
    )
    summary = run.segment(job, display.Display(quiet=True))
    assert summary.exit_code == 0
    assert summary.images_per_second is not None
    return summary.images_per_second


if __name__ == "__main__":
    main()
