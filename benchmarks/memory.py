"""The memory of ``fcn segment``'s process tree, with shared pages counted once (PSS). Linux only.

It is measured on images of the default size, on one huge image, on many small images, and on many sizes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from benchmarks import material
from fcn_cli.models import registry


def main() -> None:
    """Print the peaks, and the memory over time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=list(registry.BACKBONES))
    parser.add_argument("--small", type=int, default=2000, help="how many small images")
    parser.add_argument("--write", default="masks,color")
    parser.add_argument("--sizes", type=int, default=500, help="how many images, each of another size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = registry.find(options.backbone).build(21)
        material.randomise(model)
        torch.save(model.state_dict(), folder / "weights.pth")
        del model
        network = ["--backbone", options.backbone, "--weights", str(folder / "weights.pth")]
        network += ["--write", options.write]
        material.make_images(folder / "default", 4, 693, 520)
        peak = max(use for _, use in watch(folder, "default", network))
        print(f"693x520, {options.backbone}, {options.write}: peak {peak / 1e9:.2f} GB", flush=True)
        (folder / "huge").mkdir()
        image = Image.open(material.SAMPLES / "astronaut.png").convert("RGB").resize((12000, 9000))
        image.save(folder / "huge/photo.jpg")
        del image
        peak = max(use for _, use in watch(folder, "huge", network))
        print(f"12000x9000 JPEG, {options.backbone}, {options.write}: peak {peak / 1e9:.2f} GB", flush=True)
        material.make_images(folder / "small", options.small, 160, 120)
        over_time(
            watch(folder, "small", ["--backbone", "efficientnet_lite0", "--resize", "96"]), options.small
        )
        for number in range(options.sizes):
            part = folder / "part"
            # In mixed order: memory that grows with the size would otherwise look like growth over time.
            size = number * 173 % options.sizes
            material.make_images(part, 1, 100 + size % 25 * 7, 100 + size // 25 * 7)
            (folder / "sizes").mkdir(exist_ok=True)
            next(part.iterdir()).rename(folder / "sizes" / f"photo{number:04}.jpg")
        over_time(watch(folder, "sizes", [*network, "--resize", "none"]), options.sizes)


def over_time(uses: list[tuple[int, int]], count: int) -> None:
    """Print the memory after several fractions of the images."""
    for share in (0.1, 0.25, 0.5, 0.75, 0.98):
        done = int(count * share)
        use = next(use for records, use in uses if records >= done)
        print(f"{count} images, after {done}: {use / 1e6:.0f} MB", flush=True)


def watch(folder: Path, images: str, arguments: list[str]) -> list[tuple[int, int]]:
    """Run `fcn segment`; sample (records so far, PSS of the process tree in bytes) until it ends."""
    output = folder / f"out_{images}"
    command = [
        sys.executable,
        "-m",
        "fcn_cli",
        "segment",
        str(folder / images),
        "-q",
        "-o",
        str(output),
        *arguments,
    ]
    running = subprocess.Popen(command)
    journal = output / "manifest.jsonl"
    uses = []
    while running.poll() is None:
        done = journal.read_bytes().count(b"\n") if journal.exists() else 0
        uses.append((done, sum(pss(pid) for pid in process_tree(running.pid))))
        time.sleep(0.05)
    assert running.returncode == 0
    return uses


def process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return [pid]
    return [pid, *(descendant for child in children for descendant in process_tree(child))]


def pss(pid: int, *kinds: str) -> int:
    """Return a process's proportional set size in bytes, or the sum of those that the system calls so."""
    try:
        lines = [line.partition(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(size.split()[0]) * 1024 for name, _, size in lines if name in (kinds or ("Pss",)))


if __name__ == "__main__":
    main()
