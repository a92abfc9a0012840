"""The speed on a CUDA device, in under ten minutes: the engine, the whole command, the Hub page's loop.

The engine's rate is from decoded pixels to label maps in host memory, through the pipeline that the command
uses, in batches of 1 to 32. The command and the loop are whole commands on the same images, one after the
other. Without a device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks import folder, material
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.inference.engine import Batch, Engine
from fcn_cli.inference.execution import resolve_execution
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.inference.pipeline import run_batches
from fcn_cli.models import registry
from fcn_cli.models.weights import LoadedModel

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
WIDTH, HEIGHT = 693, 520
_SECONDS = 4.0
_HUB_IMAGES = 100


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=["resnet50", "resnet101"])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("nothing measured: this machine has no CUDA device that PyTorch can use")
        return
    print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {material.machine()}")
    for precision in options.precision:
        for size in BATCH_SIZES:
            print(engine_line(options.backbone, precision, size), flush=True)
    with tempfile.TemporaryDirectory() as name:
        whole_commands(Path(name), options.backbone, options.images)


def engine_line(backbone: str, precision: str, batch_size: int) -> str:
    """Return the engine's rate in batches of one size, in words."""
    architecture = registry.find(backbone)
    model = architecture.build(21).eval()
    material.randomise(model)
    plan = resolve_execution(InferenceOptions("cuda", precision, batch_size=batch_size))
    engine = Engine(LoadedModel(architecture, model, VOC_CLASSES), plan)
    pixels = [_image(index) for index in range(batch_size)]
    rate(engine, pixels, _SECONDS / 4)
    rates = [rate(engine, pixels, _SECONDS / 3) for _ in range(3)]
    line = (
        f"{backbone} {WIDTH}x{HEIGHT}, {plan.precision}, batch {batch_size}: {statistics.median(rates):.1f}"
    )
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return f"{line} images/s (from {min(rates):.1f} to {max(rates):.1f}); {peak:.2f} GiB"


def rate(engine: Engine, pixels: list[NDArray[np.uint8]], seconds: float) -> float:
    """Return the images/s of the pipeline on the same batch, again and again."""
    sizes = [(WIDTH, HEIGHT)] * len(pixels)
    until = time.perf_counter() + seconds

    def batches() -> Generator[Batch[int]]:
        while time.perf_counter() < until:
            yield Batch(range(len(pixels)), pixels, sizes)

    started = time.perf_counter()
    count = sum(len(done) for done in run_batches(engine, batches()))
    return count / (time.perf_counter() - started)


def _image(index: int) -> NDArray[np.uint8]:
    names = sorted(material.SAMPLES.glob("*.[jp][pn]g"))
    with Image.open(names[index % len(names)]) as image:
        return np.array(image.convert("RGB").resize((WIDTH, HEIGHT)))


def whole_commands(place: Path, backbone: str, images: int) -> None:
    """Print the rates of the command and of the Hub page's loop, start-up included and without it."""
    folder.make_material(place, backbone, images)
    network = ("--backbone", backbone, "--weights", str(place / "weights.pth"))
    few = place / "few"
    few.mkdir()
    for path in sorted((place / "photos").iterdir())[: min(_HUB_IMAGES, images)]:
        (few / path.name).symlink_to(path)
    for attempt in range(2):
        out = place / f"fcn{attempt}"
        seconds = run(
            "fcn_cli", "segment", str(place / "photos"), "--device", "cuda", "-o", str(out), *network
        )
        print(
            f"fcn segment, {images} images, run {attempt + 1}: {images / seconds:.1f} images/s with start-up"
        )
    arguments = (backbone, str(place / "weights.pth"), str(few), str(place / "hub"), "cuda")
    count = len(list(few.iterdir()))
    print(f"Hub page's loop, {count} images: {count / run('benchmarks.hub_loop', *arguments):.1f} images/s")
    fcn = run("fcn_cli", "segment", str(few), "--device", "cuda", "-q", "-o", str(place / "same"), *network)
    equal = folder.agreement(place / "hub", place / "same")
    print(f"fcn segment, the same: {count / fcn:.1f} images/s; masks agree in {equal:.4%} of the pixels")


def run(module: str, *arguments: str) -> float:
    """Run a Python module, show what it says at the end, and return its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, stderr=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - started
    if lines := done.stderr.strip().splitlines():
        print(f"  {lines[-1]}")
    return seconds


if __name__ == "__main__":
    main()
