"""The time and memory of `fcn compare` on thousands of masks, relative to decoding them only."""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import material
from fcn_cli.cli.display import ProgressBar
from fcn_cli.common import resources
from fcn_cli.common.label_map import read_label_map
from fcn_cli.evaluation.bench import in_turn
from fcn_cli.evaluation.comparison import compare

WIDTH, HEIGHT = 500, 375


def main() -> None:
    """Print the median times, measured in turn, their ratio and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(material.machine())
    with tempfile.TemporaryDirectory() as temporary:
        dir_a, dir_b = folders = Path(temporary, "a"), Path(temporary, "b")
        for seed, folder in enumerate(folders):
            make(folder, options.masks, seed)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = in_turn(
            {
                "decoding alone": lambda: decode(folders),
                "compare": lambda: compare(dir_a, dir_b, ProgressBar(quiet=True)),
            },
            options.rounds,
        )
    for name, each in seconds.items():
        print(f"{name}: {statistics.median(each):.2f} s for {options.masks} pairs")
    ratios = [a / b for a, b in zip(seconds["decoding alone"], seconds["compare"], strict=True)]
    print(f"decoding / compare: {statistics.median(ratios):.2f} (median of {options.rounds} rounds in turn)")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"peak memory: {grown / 1024:.0f} MB more than before")


def make(folder: Path, count: int, seed: int) -> None:
    """Write masks of a few random circles; the masks of different seeds differ in some pixels."""
    folder.mkdir()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        random = np.random.default_rng(number)
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for _ in range(4):
            centre_x, centre_y, radius = random.integers(0, (WIDTH, HEIGHT, 120))
            labels[np.hypot(x - centre_x - 5 * seed, y - centre_y) < radius] = random.integers(1, 21)
        Image.fromarray(labels).save(folder / f"{number}.png")


def decode(folders: Iterable[Path]) -> None:
    """Read all masks with as many threads as the comparison uses."""
    with ThreadPoolExecutor(resources.cpu_count()) as threads:
        for folder in folders:
            for _ in threads.map(read_label_map, sorted(folder.iterdir())):
                pass


if __name__ == "__main__":
    main()
