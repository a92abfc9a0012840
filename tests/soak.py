"""A long run over very many small images of very many sizes: memory, files, threads and rate stay flat.

`python -m tests.soak --help`; it is ``make soak``. The machine's own drift is taken out of the rate by a
fixed computation that is timed all along.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.memory import process_tree

from .conftest import SAMPLES, command

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Sample:
    """A look at the run: images done, time, memory of the tree (bytes), open files and threads of its main
    process, and how long the reference computation took (seconds)."""

    done: int
    at: float
    memory: int
    files: int
    threads: int
    reference: float


def make_images(folder: Path, count: int, sizes: int) -> None:
    """Cut small images of so many sizes, in no order."""
    folder.mkdir()
    with Image.open(SAMPLES / "astronaut.png") as opened:
        whole = opened.convert("RGB").resize((256, 256))
    shapes = [(20 + 2 * (number % 45), 20 + number // 45) for number in range(sizes)]
    random = np.random.default_rng(0)
    for number in range(count):
        width, height = shapes[random.integers(sizes)]
        left, top = (int(value) for value in random.integers(0, 100, 2))
        image = whole.crop((left, top, left + width, top + height))
        image.save(folder / f"{number:06}.jpg", quality=80)


def reference() -> float:
    """Time a fixed computation: some milliseconds of plain Python and of NumPy."""
    started = time.perf_counter()
    values = np.arange(200_000, dtype=np.float64)
    total = 0
    for number in range(20_000):
        total += number * number
    np.sort(np.sin(values))
    return time.perf_counter() - started


def own_memory(pid: int) -> int:
    """Return a process's memory without files, in bytes; what processes share is divided among them.

    Of libraries, a part would go to whatever else has loaded them, and come back when that ends.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) * 1024


def watch(line: list[str], folder: Path, journal: Path) -> list[Sample]:
    """Run, and look at it again and again."""
    running = subprocess.Popen(line, cwd=folder)
    samples = []
    position = done = 0
    while running.poll() is None:
        time.sleep(SAMPLE_SECONDS)
        if not journal.exists():
            continue
        with journal.open("rb") as stream:
            stream.seek(position)
            new = stream.read()
        position += len(new)
        done += new.count(b"\n")
        process = Path(f"/proc/{running.pid}")
        try:
            files, threads = len(os.listdir(process / "fd")), len(os.listdir(process / "task"))
        except OSError:
            break
        memory = sum(map(own_memory, process_tree(running.pid)))
        samples.append(Sample(done, time.monotonic(), memory, files, threads, reference()))
    assert running.wait() == 0
    return samples


def slope(samples: list[Sample]) -> float:
    """Return by how many bytes memory grows with an image, by least squares."""
    return float(np.polyfit([one.done for one in samples], [one.memory for one in samples], 1)[0])


def rate(samples: list[Sample]) -> float:
    """Return images by second, in units of the reference computation's speed then."""
    first, last = samples[0], samples[-1]
    return (last.done - first.done) / (last.at - first.at) * statistics.median(s.reference for s in samples)


def main() -> None:
    """Run, and fail where something grows or slows down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, default=2_000)
    parser.add_argument("--resize", default="32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "photos", options.count, options.sizes)
        line = command(
            "segment", "photos", "--backbone", "efficientnet_lite0", "--resize", options.resize, "-q"
        )
        samples = watch(line, folder, folder / "fcn_output/manifest.jsonl")
    quarters = [
        # A sample after the last image would see a process that is going.
        [one for one in samples if start * options.count / 4 <= one.done < (start + 1) * options.count / 4]
        for start in range(4)
    ]
    for number, quarter in enumerate(quarters, 1):
        print(
            f"quarter {number}: {statistics.median(one.memory for one in quarter) / 1e6:.0f} MB, "
            f"{max(one.files for one in quarter)} open files, {max(one.threads for one in quarter)} threads, "
            f"{(quarter[-1].done - quarter[0].done) / (quarter[-1].at - quarter[0].at):.1f} images/s, "
            f"reference {statistics.median(one.reference for one in quarter) * 1e3:.1f} ms"
        )
    later = [one for quarter in quarters[1:] for one in quarter]
    grows = slope(later)
    speed = rate(quarters[3]) / rate(quarters[1])
    print(f"{options.count} images of {options.sizes} sizes")
    print(f"memory after the first quarter: {grows:.0f} bytes more an image")
    print(f"rate of the last quarter over the second's, the machine's drift taken out: {speed:.3f}")
    files = {one.files for one in later}
    # Near the end, when the last records come, some have ended already.
    threads = [max(one.threads for one in quarter) for quarter in quarters]
    failures = [
        text
        for text, bad in (
            # Some of it must: the journal's index takes 810 bytes an image, and the workers' copies of the
            # list of images come to be their own, page by page.
            ("memory grows", grows > 2500),
            ("the rate falls", speed < 0.9),
            (f"open files grow: {sorted(files)}", max(files) > 2 * min(files) + 10),
            (f"threads grow: {threads}", threads[-1] > threads[0] + 2),
        )
        if bad
    ]
    for text in failures:
        print(f"FAILED: {text}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
