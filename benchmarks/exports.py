"""The time and memory of exports of many records: memory must not grow with them. Linux only.

All records have one mask and one image, by hard links: what an export holds on to is by record, not by pixel.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import material
from benchmarks.memory import process_tree, pss
from fcn_cli.common.class_names import VOC_CLASSES

_FORMATS = ("coco", "coco --polygons", "labelstudio", "masks", "binary", "voc", "yolo", "cutout")
_IN_A_DIRECTORY = 1000


def main() -> None:
    """Print the seconds and the peak of each format, for each number of records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--size", type=int, nargs=2, default=(160, 120), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--formats", nargs="*", default=list(_FORMATS))
    options = parser.parse_args()
    print(material.machine(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for count in options.records:
            output = Path(temporary, f"out{count}")
            make_output(output, count, *options.size)
            for name in options.formats:
                seconds, peak = export(output, name.split(), Path(temporary, "exported"))
                print(f"{name:16} {count:8} records: {seconds:7.1f} s, peak {peak / 1e6:4.0f} MB", flush=True)
            shutil.rmtree(output)


def make_output(output: Path, count: int, width: int, height: int) -> None:
    """Write an output directory with so many records."""
    labels = material.circles(1, width, height)
    (output / "masks").mkdir(parents=True)
    (output / "images").mkdir()
    Image.fromarray(labels).save(output / "mask.png")
    Image.fromarray(np.stack([labels * 12, 255 - labels, labels], axis=2)).save(output / "image.jpg")
    names = {
        str(index): {"name": name, "color": [index, 0, 0]}
        for index, name in [*enumerate(VOC_CLASSES), (255, "void")]
    }
    (output / "classes.json").write_text(json.dumps(names))
    settings = {"fcn_settings": 2, "fingerprint": "0" * 16, "labels": {}, "names": {}}
    (output / "settings.json").write_text(json.dumps(settings))
    values, counts = np.unique(labels, return_counts=True)
    status = os.stat(output / "image.jpg")
    record = {
        "status": "ok",
        "width": width,
        "height": height,
        "classes": {str(value): int(count) for value, count in zip(values, counts, strict=True)},
        "output_bytes": [(output / "mask.png").stat().st_size],
        "looks": {},
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "device": "cpu",
        "precision": "fp32",
        "mean_confidence": None,
        "finished": "2026-11-24T03:00:00Z",
        "seconds": 0.1,
        "notes": [],
        "error": None,
        "fingerprint": "0" * 16,
    }
    with (output / "manifest.jsonl").open("w") as journal:
        for number in range(count):
            part, name = f"{number // _IN_A_DIRECTORY:04}", f"{number % _IN_A_DIRECTORY:03}"
            if name == "000":
                # A file has at most some 65,000 names.
                for folder, file in (("masks", "mask.png"), ("images", "image.jpg")):
                    (output / folder / part).mkdir()
                    shutil.copy2(output / file, output / folder / part / ("first" + file[-4:]))
            mask, image = output / f"masks/{part}/{name}.png", output / f"images/{part}/{name}.jpg"
            os.link(output / f"masks/{part}/first.png", mask)
            os.link(output / f"images/{part}/first.jpg", image)
            own = {"image": f"{part}/{name}.jpg", "source": str(image), "path": str(image)}
            journal.write(json.dumps({**record, **own, "outputs": [f"masks/{part}/{name}.png"]}) + "\n")


def export(output: Path, arguments: list[str], destination: Path) -> tuple[float, int]:
    """Run `fcn export`; return its seconds, and the most memory of its processes in bytes, by samples."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "fcn_cli", "export", str(output), "-q", "-o", str(destination)]
    running = subprocess.Popen([*command, "--format", *arguments])
    while running.poll() is None:
        peak = max(peak, sum(pss(pid) for pid in process_tree(running.pid)))
        time.sleep(0.1)
    if running.returncode != 0:
        raise RuntimeError(f"{arguments}: exit {running.returncode}")
    seconds = time.perf_counter() - started
    shutil.rmtree(destination) if destination.is_dir() else destination.unlink()
    return seconds, peak


if __name__ == "__main__":
    main()
