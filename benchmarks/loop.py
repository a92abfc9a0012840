"""The speed of ``fcn segment``, from files to files, relative to the engine alone.

Both run the same forward passes, in turn, in one process. The bare loop passes decoded pixels to the engine
and discards the label maps; ``fcn segment`` also decodes and writes. Its rate is the one that it prints,
without the start-up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import material
from fcn_cli.cli import display
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.inference.engine import Engine
from fcn_cli.inference.execution import resolve_execution
from fcn_cli.inputs import decoder, resizing
from fcn_cli.inputs.discovery import InputRequest
from fcn_cli.models import registry
from fcn_cli.models.request import ModelRequest
from fcn_cli.models.weights import LoadedModel
from fcn_cli.outputs.request import OutputRequest
from fcn_cli.runs import segment
from fcn_cli.runs.request import PredictionRequest, SegmentRequest


def main() -> None:
    """Print each round's rates and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=list(registry.BACKBONES))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        material.make_images(folder / "photos", options.images, 500, 400)
        model = registry.find(options.backbone).build(21).eval()
        material.randomise(model)
        torch.save(model.state_dict(), folder / "weights.pth")
        network = LoadedModel(registry.find(options.backbone), model, VOC_CLASSES)
        engine = Engine(network, resolve_execution())
        images = [ready(path) for path in sorted((folder / "photos").iterdir())]
        print(f"{options.backbone}, {options.images} images of about 500x400; {material.machine()}")
        bare(engine, images[:2])
        ratios = []
        for index in range(options.rounds):
            bare_rate = bare(engine, images)
            fcn_rate = fcn(folder, options.backbone, index)
            ratios.append(fcn_rate / bare_rate)
            print(f"round {index + 1}: bare {bare_rate:.3f} images/s, fcn {fcn_rate:.3f}, {ratios[-1]:.3f}")
        print(f"median ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


Ready = tuple[NDArray[np.uint8], tuple[int, int]]


def ready(path: Path) -> Ready:
    """Return the network's input for an image, and the size of its label map."""
    image = decoder.decode_here(path).image
    return resizing.network_input(image, 520)[0], image.size


def bare(engine: Engine, images: list[Ready]) -> float:
    """Return the images/s of the engine alone."""
    started = time.perf_counter()
    for pixels, size in images:
        engine.predict([pixels], [size])
    return len(images) / (time.perf_counter() - started)


def fcn(folder: Path, backbone: str, index: int) -> float:
    """Return the images/s of a whole run into a new output directory."""
    request = SegmentRequest(
        InputRequest([str(folder / "photos")]),
        OutputRequest(str(folder / f"out{index}")),
        PredictionRequest(ModelRequest(backbone, str(folder / "weights.pth"))),
    )
    summary = segment.segment(request, display.Display(quiet=True))
    assert summary.exit_code == 0
    assert summary.images_per_second is not None
    return summary.images_per_second


if __name__ == "__main__":
    main()
