"""What tiles cost and bring: memory and time of large photos, and a contact sheet. Linux only.

`python -m benchmarks.tiles` does everything; the names of parts (``photos``, ``tiff``, ``sheet``) do these.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import material
from benchmarks.memory import process_tree
from fcn_cli.models import registry

SIZES = ((4000, 3000), (12000, 9000))
TIFF_SIZE = (20000, 20000)
CELL, CELLS = 520, 6


def main() -> None:
    """Print memory, time per megapixel, and the contact sheet's IoU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["photos", "tiff", "sheet"])
    parser.add_argument("--backbone", default="mobilenet_v2", choices=list(registry.BACKBONES))
    parser.add_argument("--tile", type=int, default=520)
    parser.add_argument("--sizes", nargs="*", default=[f"{width}x{height}" for width, height in SIZES])
    parser.add_argument("--limit", type=float, default=7200, help="seconds after which a run is stopped")
    options = parser.parse_args()
    print(material.machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = ["--backbone", options.backbone]
        if options.backbone != "mobilenet_v2":
            model = registry.find(options.backbone).build(21)
            material.randomise(model)
            torch.save(model.state_dict(), folder / "weights.pth")
            network += ["--weights", str(folder / "weights.pth")]
            del model
        tile = ["--tile", str(options.tile)]
        if "photos" in options.parts:
            for size in options.sizes:
                width, height = map(int, size.split("x"))
                path = folder / f"{size}.jpg"
                mosaic(width, height).save(path, quality=90)
                measure(path, width * height, [*network, *tile], options.limit)
        if "tiff" in options.parts:
            path = folder / "photo.tif"
            mosaic(*TIFF_SIZE).save(path, compression="tiff_adobe_deflate")
            pixels = TIFF_SIZE[0] * TIFF_SIZE[1]
            limits = ["--max-image-pixels", "500000000", "--decode-timeout", "600"]
            measure(path, pixels, [*network, *limits], options.limit)
            measure(path, pixels, [*network, *limits, *tile], options.limit)
        if "sheet" in options.parts:
            contact_sheet(folder, network)


def mosaic(width: int, height: int) -> Image.Image:
    """Return a photo of any size: the samples side by side, each a little different."""
    samples = [Image.open(path).convert("RGB") for path in sorted(material.SAMPLES.glob("*.[jp][pn]g"))]
    photo = Image.new("RGB", (width, height))
    step = 480
    for number in range(-(-width // step) * -(-height // step)):
        row, column = divmod(number, -(-width // step))
        sample = samples[(number + row) % len(samples)]
        shift = 3 * number % 20
        cut = sample.crop((shift, shift, sample.width - 10, sample.height - 10)).resize((step, step))
        photo.paste(cut, (column * step, row * step))
    return photo


def measure(path: Path, pixels: int, arguments: list[str], limit: float) -> None:
    """Print the time and the peak of anonymous memory of one run, or of its first `limit` seconds.

    CPU time is that of the whole process tree: it says what a megapixel costs on a busy machine too.
    """
    output = path.parent / f"out_{path.stem}_{len(arguments)}"
    started, cpu_before = time.monotonic(), children_cpu_seconds()
    command = [sys.executable, "-m", "fcn_cli", "segment", str(path), "-q", "-o", str(output), *arguments]
    running = subprocess.Popen(command)
    peak = 0
    while running.poll() is None:
        peak = max(peak, sum(anonymous(pid) for pid in process_tree(running.pid)))
        if time.monotonic() - started > limit:
            running.kill()
        # The system adds up all of a process's pages for an answer: not too often.
        time.sleep(0.2)
    seconds, megapixels = time.monotonic() - started, pixels / 1e6
    shown = " ".join(word for word in arguments if "/" not in word)
    if seconds > limit:
        print(f"{path.name} {shown}: peak {peak / 1e9:.2f} GB in the first {limit:g} s", flush=True)
        return
    assert running.returncode == 0
    cpu_seconds = children_cpu_seconds() - cpu_before
    print(
        f"{path.name} {shown}: peak {peak / 1e9:.2f} GB, {seconds:.1f} s, "
        f"per megapixel {seconds / megapixels:.3f} s, {cpu_seconds / megapixels:.3f} s of CPU",
        flush=True,
    )


def children_cpu_seconds() -> float:
    """Return the CPU time of all child processes that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def anonymous(pid: int) -> int:
    """Return a process's share of anonymous memory in bytes; what several have is divided among them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def cells() -> list[Image.Image]:
    """Return 36 photos of 520x520: the samples, cut and mirrored in different ways."""
    samples = [Image.open(path).convert("RGB") for path in sorted(material.SAMPLES.glob("*.[jp][pn]g"))]
    photos = []
    for number in range(CELLS * CELLS):
        sample = samples[(number + number // CELLS) % len(samples)]
        side = min(sample.size) - 9 * (number % 7)
        left, top = (5 * number) % (sample.width - side + 1), (7 * number) % (sample.height - side + 1)
        cut = sample.crop((left, top, left + side, top + side)).resize((CELL, CELL), Image.Resampling.BICUBIC)
        photos.append(cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number // 4 % 2 else cut)
    return photos


def contact_sheet(folder: Path, network: list[str]) -> None:
    """Print the mean IoU of a contact sheet's masks with those of its photos one by one."""
    (folder / "cells").mkdir()
    sheet = Image.new("RGB", (CELL * CELLS, CELL * CELLS))
    for number, photo in enumerate(cells()):
        photo.save(folder / f"cells/{number:02}.png")
        sheet.paste(photo, (number % CELLS * CELL, number // CELLS * CELL))
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


def _masks(folder: Path, photos: str, arguments: list[str]) -> dict[str, np.ndarray]:
    output = folder / f"masks_{len(list(folder.iterdir()))}"
    command = [sys.executable, "-m", "fcn_cli", "segment", str(folder / photos), "-q", "-o", str(output)]
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
