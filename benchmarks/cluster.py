"""A folder by a plain run and by ``--ray local``, in turn: whole commands, images/s, and whether masks agree.

`images/s` is what the command itself says, from the first image on; `start` is the rest of its time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import material

WAYS = {
    "plain, 2 threads": ("--threads", "2"),
    "Ray, 1 actor with 2 threads": ("--threads", "2", "--ray", "local"),
    "Ray, 2 actors with 1 thread": ("--threads", "1", "--ray", "local"),
}


def run(images: Path, output: Path, backbone: str, options: tuple[str, ...]) -> tuple[float, float, float]:
    """Run a command; return images/s, seconds from the first image on, seconds of the whole command."""
    line = [sys.executable, "-m", "fcn_cli", "segment", str(images), "--backbone", backbone, "-q", *options]
    began = time.perf_counter()
    subprocess.run([*line, "-o", str(output)], check=True)
    whole = time.perf_counter() - began
    summary = json.loads((output / "summary.json").read_text())["run"]
    return summary["images_per_second"], summary["seconds"], whole


def main() -> None:
    """Print a line for each way; the ratios are of the same round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    arguments = parser.parse_args()
    print(material.machine())
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "photos")
        material.make_images(images, arguments.images, *arguments.size)
        found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
        masks: dict[str, list[bytes]] = {}
        for round_ in range(arguments.rounds):
            for way, options in WAYS.items():
                output = Path(folder, f"{way} {round_}")
                found[way].append(run(images, output, arguments.backbone, options))
                masks[way] = [path.read_bytes() for path in sorted(output.glob("masks/*.png"))]
                print(f"round {round_}: {way}: {found[way][-1][0]:.2f} images/s", flush=True)
    plain = next(iter(WAYS))
    for way, rounds in found.items():
        rate = statistics.median(each[0] for each in rounds)
        start = statistics.median(each[2] - each[1] for each in rounds)
        ratio = statistics.median(own[0] / other[0] for own, other in zip(rounds, found[plain], strict=True))
        same = sum(own == other for own, other in zip(masks[way], masks[plain], strict=True))
        print(
            f"{way}: {rate:.2f} images/s ({ratio:.2f} of plain), start and end {start:.1f} s, "
            f"{same} of {arguments.images} masks as in a plain run"
        )


if __name__ == "__main__":
    main()
