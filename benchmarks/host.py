"""The most that ``fcn segment`` can do when its network costs nothing, against decoding and encoding alone.

The whole command runs, from files to files, with a stand-in for the network that returns ready label maps.
What is left is decoding, transfers between processes, encoding, fsync and records. The bare sum is what
nobody can save: as many processes as there are CPUs decode the same images for the network, and encode the
same label maps as the same two PNGs, in memory. Both are timed in turn; a run's rate is the one that it
prints, without the start-up, and the bare processes' is from when all are ready. With `--against` another
checkout takes the place of the bare processes.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import against, material
from benchmarks.against import Figure
from fcn_cli.cli import display
from fcn_cli.common import resources
from fcn_cli.common.label_map import Segmentation
from fcn_cli.inference.engine import Batch, Engine, Size
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.inputs import decoder
from fcn_cli.inputs.decode_options import DEFAULT_MAX_PIXELS, DecodeOptions
from fcn_cli.inputs.decoder import DecodeSettings, decode_source
from fcn_cli.inputs.discovery import InputRequest, Source, discover
from fcn_cli.models.request import ModelRequest
from fcn_cli.outputs.looks import LookRequest
from fcn_cli.outputs.request import OutputRequest
from fcn_cli.outputs.writers import WRITERS, Original, encode
from fcn_cli.runs import segment
from fcn_cli.runs.request import PredictionRequest, SegmentRequest

SIZES = {(500, 375): 1600, (1600, 1200): 120, (4000, 3000): 40}
"""The width and height of the images, and how many there are of each."""

TYPES = ("masks", "color")
SHORT_SIDE = 520
BATCH_SIZE = 16
"""As a GPU has it."""


def main() -> None:
    """Print each round's rates, and for each size the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=resources.cpu_count())
    parser.add_argument(
        "--own", action="store_true", help="encode and keep memory as fcn does, not as Pillow does by itself"
    )
    parser.add_argument("--size", choices=[f"{width}x{height}" for width, height in SIZES], default=None)
    against.add_options(parser)
    against.main(parser, figures, show)


def figures(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Measure a run once for each size."""
    for size, images in material_of(options, folder):
        yield Figure(f"{size}, fcn", command(images), "images/s")


def show(options: argparse.Namespace, folder: Path) -> None:
    """Measure the bare processes and a run in turn, and print them."""
    print(f"{material.machine()}, {options.processes} processes")
    for size, images in material_of(options, folder):
        ratios = []
        for index in range(options.rounds):
            bare_rate = bare(images, options.processes, own=options.own)
            command_rate = command(images)
            ratios.append(command_rate / bare_rate)
            print(
                f"{size}, round {index + 1}: bare {bare_rate:.2f} images/s, "
                f"fcn {command_rate:.2f}, {ratios[-1]:.3f}",
                flush=True,
            )
        least, most = min(ratios), max(ratios)
        print(f"{size}: median {statistics.median(ratios):.3f} (from {least:.3f} to {most:.3f})")


def material_of(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each size and the folder of its images, made where it is missing."""
    for (width, height), count in SIZES.items():
        size = f"{width}x{height}"
        if options.size not in {None, size}:
            continue
        if not (folder / size).exists():
            material.make_images(folder / size, count, width, height)
        for path in (folder / size).iterdir():
            with Image.open(path) as image:
                # Made once, for both.
                labels_of(*image.size)
        yield size, folder / size


@cache
def labels_of(width: int, height: int) -> NDArray[np.uint8]:
    """Return a label map with a few round regions, as a network makes them."""
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    for index, (left, top, size) in enumerate([(0.3, 0.6, 0.2), (0.7, 0.5, 0.3), (0.5, 0.3, 0.15)], 1):
        wave = 1 + 0.1 * np.sin(12 * np.arctan2(y - top * height, x - left * width))
        labels[np.hypot(x - left * width, y - top * height) < size * height * wave] = 5 * index
    return labels


def bare(images: Path, processes: int, *, own: bool) -> float:
    """Return the images/s of decoding and encoding in processes of their own."""
    sources = discover(InputRequest([str(images)])).sources
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(processes + 1)
    shares = [sources[number::processes] for number in range(processes)]
    workers = [context.Process(target=decode_and_encode, args=(share, ready, own)) for share in shares]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return len(sources) / (time.perf_counter() - started)


def decode_and_encode(sources: Sequence[Source], ready: Barrier, own: bool) -> None:
    """Decode images and encode label maps of their sizes, by Pillow alone or by a run's own ways."""
    prepare = decoder.prepare_worker if own else decoder.prepare_process
    prepare(DEFAULT_MAX_PIXELS)
    settings = DecodeSettings(DecodeOptions(SHORT_SIDE))
    look = LookRequest().resolve(None)
    writers = [WRITERS[kind](look) for kind in TYPES]
    # Label maps need none.
    no_image = Original("", DecodeOptions(SHORT_SIDE))
    ready.wait()
    for source in sources:
        image = decode_source(source, settings)
        segmentation = Segmentation(labels_of(image.width, image.height))
        for writer in writers:
            if own:
                encode(writer, segmentation, no_image, io.BytesIO())
            else:
                writer.image(segmentation, no_image).save(io.BytesIO(), **writer.file_format)


class FreeEngine:
    """Stands in for what the engine computes: label maps that are ready."""

    @staticmethod
    def launch(engine: Engine, batch: Batch[object], stacked: object) -> Sequence[Size]:  # noqa: ARG004 - as `Engine.launch`
        """Take the batch, and compute nothing."""
        return batch.sizes

    @staticmethod
    def collect(engine: Engine, launched: Sequence[Size]) -> list[Segmentation]:  # noqa: ARG004 - as `Engine.collect`
        """Return a label map of each size."""
        return [Segmentation(labels_of(*size), None, "fp32") for size in launched]


def command(images: Path) -> float:
    """Return the images/s of a whole run into a new output directory beside its images."""
    with tempfile.TemporaryDirectory(dir=images.parent) as output:
        request = SegmentRequest(
            InputRequest([str(images)]),
            OutputRequest(f"{output}/out", types=TYPES),
            PredictionRequest(
                ModelRequest("efficientnet_lite0"), inference=InferenceOptions("cpu", batch_size=BATCH_SIZE)
            ),
        )
        with (
            mock.patch.object(Engine, "launch", FreeEngine.launch),
            mock.patch.object(Engine, "collect", FreeEngine.collect),
        ):
            summary = segment.segment(request, display.Display(quiet=True))
    assert summary.exit_code == 0, summary.stopped
    assert summary.images_per_second is not None
    return summary.images_per_second


if __name__ == "__main__":
    main()
