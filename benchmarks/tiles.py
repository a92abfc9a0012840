"""What tiles cost and bring: memory and time of large images, and a contact sheet. Linux only.

`python -m benchmarks.tiles` does everything; the names of parts (``images``, ``tiff``, ``sheet``) do these.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import against, material
from benchmarks.against import Figure
from benchmarks.memory import process_tree, pss
from fcn_cli.models import registry

SIZES = ((4000, 3000), (12000, 9000))
TIFF_SIZE = (20000, 20000)
CELL, CELLS = 520, 6


def main() -> None:
    """Print memory, time per megapixel, and the contact sheet's IoU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["images", "tiff", "sheet"])
    parser.add_argument("--backbone", default="efficientnet_lite0", choices=list(registry.BACKBONES))
    parser.add_argument("--tile", type=int, default=520)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--sizes", nargs="*", default=[f"{width}x{height}" for width, height in SIZES])
    parser.add_argument("--limit", type=float, default=7200, help="seconds after which a run is stopped")
    against.add_options(parser, rounds=1)
    against.main(parser, figures, show)


def show(options: argparse.Namespace, folder: Path) -> None:
    """Measure once; print the figures and the contact sheet's IoU."""
    print(material.machine(), flush=True)
    for figure in figures(options, folder):
        print(figure, flush=True)
    if "sheet" in options.parts:
        contact_sheet(folder, network_of(options, folder))


def network_of(options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the options that choose the network; random weights are made where they are missing."""
    network = ["--backbone", options.backbone]
    if options.backbone != "efficientnet_lite0":
        weights = folder / "weights.pth"
        if not weights.exists():
            model = registry.find(options.backbone).build(21)
            material.randomise(model)
            torch.save(model.state_dict(), weights)
        network += ["--weights", str(weights)]
    return [*network, "--precision", options.precision]


def figures(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Measure each image once."""
    network = network_of(options, folder)
    tile = ["--tile", str(options.tile)]
    if "images" in options.parts:
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            path = folder / f"{size}.jpg"
            if not path.exists():
                mosaic(width, height).save(path, quality=90)
            yield from measure(path, width * height, [*network, *tile], options.limit)
    if "tiff" in options.parts:
        path = folder / "photo.tif"
        if not path.exists():
            mosaic(*TIFF_SIZE).save(path, compression="tiff_adobe_deflate")
        pixels = TIFF_SIZE[0] * TIFF_SIZE[1]
        limits = ["--max-image-pixels", "500000000", "--decode-timeout", "600"]
        yield from measure(path, pixels, [*network, *limits], options.limit)
        yield from measure(path, pixels, [*network, *limits, *tile], options.limit)
    if "geotiff" in options.parts:
        path = folder / "mosaic.tif"
        if not path.exists():
            write_geotiff(path, mosaic(*TIFF_SIZE))
        pixels = TIFF_SIZE[0] * TIFF_SIZE[1]
        limits = ["--max-image-pixels", str(pixels), "--decode-timeout", "600", "--write", "masks,geotiff"]
        yield from measure(path, pixels, [*network, *limits, *tile], options.limit)


def write_geotiff(path: Path, image: Image.Image) -> None:
    """Write an image as GDAL writes an orthophoto: in tiles, with a black frame of no data."""
    import rasterio
    from rasterio.windows import Window

    width, height = image.size
    step, edge = 1 << 10, 700
    kind = {"driver": "GTiff", "dtype": "uint8", "count": 3, "width": width, "height": height, "nodata": 0}
    how = {"tiled": True, "compress": "deflate", "zlevel": 1, "photometric": "RGB", "crs": "EPSG:25833"}
    where = rasterio.Affine(0.2, 0, 389000, 0, -0.2, 5819000)
    with rasterio.open(path, "w", **kind, **how, transform=where) as file:
        for top in range(step, height - step, step):
            rows = image.crop((edge, top, width - edge, top + step))
            pixels = np.asarray(rows).clip(1).transpose(2, 0, 1)
            file.write(pixels, window=Window(edge, top, rows.width, step))


def mosaic(width: int, height: int) -> Image.Image:
    """Return an image of any size: the samples side by side, each a little different."""
    samples = [Image.open(path).convert("RGB") for path in sorted(material.SAMPLES.glob("*.[jp][pn]g"))]
    image = Image.new("RGB", (width, height))
    step = 480
    for number in range(-(-width // step) * -(-height // step)):
        row, column = divmod(number, -(-width // step))
        sample = samples[(number + row) % len(samples)]
        shift = 3 * number % 20
        cut = sample.crop((shift, shift, sample.width - 10, sample.height - 10)).resize((step, step))
        image.paste(cut, (column * step, row * step))
    return image


def measure(path: Path, pixels: int, arguments: list[str], limit: float) -> Iterator[Figure]:
    """Yield the peak memory and the time of one run, or its peak in the first `limit` seconds.

    Memory is the proportional set size of the process tree: shared pages count once. Pages of files, among
    them the pixels of large images, the system can write back when somebody else needs the memory. CPU time
    is that of the whole tree: it says what a megapixel costs on a busy machine too.
    """
    shown = " ".join([path.name, *(word for word in arguments if "/" not in word)])
    started, cpu_before = time.monotonic(), children_cpu_seconds()
    with tempfile.TemporaryDirectory(dir=path.parent) as output:
        command = [sys.executable, "-m", "fcn_cli", "segment", str(path), "-q", "-o", f"{output}/out"]
        running = subprocess.Popen([*command, *arguments])
        peak = own = 0
        while running.poll() is None:
            processes = process_tree(running.pid)
            peak = max(peak, sum(pss(pid) for pid in processes))
            own = max(own, sum(pss(pid, "Pss_Anon", "Pss_Shmem") for pid in processes))
            if time.monotonic() - started > limit:
                running.kill()
            # The system adds up all of a process's pages for an answer: not too often.
            time.sleep(0.2)
    seconds, megapixels = time.monotonic() - started, pixels / 1e6
    unit = "GB" if seconds <= limit else f"GB in the first {limit:g} s"
    yield Figure(f"{shown}, peak", peak / 1e9, unit)
    yield Figure(f"{shown}, peak without pages of files", own / 1e9, unit)
    if seconds > limit:
        return
    if running.returncode != 0:
        raise RuntimeError(f"{shown}: exit {running.returncode}")
    yield Figure(f"{shown}, per megapixel", seconds / megapixels, "s")
    yield Figure(f"{shown}, per megapixel of CPU", (children_cpu_seconds() - cpu_before) / megapixels, "s")


def children_cpu_seconds() -> float:
    """Return the CPU time of all child processes that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cells() -> list[Image.Image]:
    """Return 36 images of 520x520: the samples, cut and mirrored in different ways."""
    samples = [Image.open(path).convert("RGB") for path in sorted(material.SAMPLES.glob("*.[jp][pn]g"))]
    images = []
    for number in range(CELLS * CELLS):
        sample = samples[(number + number // CELLS) % len(samples)]
        side = min(sample.size) - 9 * (number % 7)
        left, top = (5 * number) % (sample.width - side + 1), (7 * number) % (sample.height - side + 1)
        cut = sample.crop((left, top, left + side, top + side)).resize((CELL, CELL), Image.Resampling.BICUBIC)
        images.append(cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number // 4 % 2 else cut)
    return images


def contact_sheet(folder: Path, network: list[str]) -> None:
    """Print the mean IoU of a contact sheet's masks with those of its images one by one."""
    (folder / "cells").mkdir()
    sheet = Image.new("RGB", (CELL * CELLS, CELL * CELLS))
    for number, image in enumerate(cells()):
        image.save(folder / f"cells/{number:02}.png")
        sheet.paste(image, (number % CELLS * CELL, number // CELLS * CELL))
    sheet.save(folder / "sheet.png")
    single = _masks(folder, "cells", network)
    truth = np.block(
        [[single[f"{row * CELLS + column:02}"] for column in range(CELLS)] for row in range(CELLS)]
    )
    for options in ([], ["--tile", "520", "--overlap", "128"]):
        mask = _masks(folder, "sheet.png", [*network, *options])["sheet"]
        Image.fromarray(mask).save(folder / "mask.png")
        print(
            f"contact sheet {' '.join(options) or 'plain'}: mean IoU {mean_iou(mask, truth):.3f}", flush=True
        )


def _masks(folder: Path, images: str, arguments: list[str]) -> dict[str, np.ndarray]:
    output = folder / f"masks_{len(list(folder.iterdir()))}"
    command = [sys.executable, "-m", "fcn_cli", "segment", str(folder / images), "-q", "-o", str(output)]
    subprocess.run([*command, *arguments], check=True)
    return {path.stem: np.asarray(Image.open(path)) for path in (output / "masks").iterdir()}


def mean_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean IoU over the classes in either label map."""
    return float(
        np.mean(
            [
                np.count_nonzero((a == index) & (b == index)) / np.count_nonzero((a == index) | (b == index))
                for index in np.union1d(np.unique(a), np.unique(b))
            ]
        )
    )


if __name__ == "__main__":
    main()
