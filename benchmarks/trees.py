"""Two checkouts of this project timed in turn, to see whether a change to the kernels costs speed.

Each checkout gets a process of its own, which stays alive; the rounds alternate between them. The median of
the rounds' ratios is what counts: both runs of a round meet the same neighbours on the machine. Where these
are too many, `--threads 1` measures processor time instead, which does not count the time of waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import material

# What a process times. It uses names that old checkouts have, too.
WORKER = """
import sys, time, torch
from benchmarks.material import randomise
from fcn_cli.cpu.kernels import matmul
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.cpu.winograd import Winograd
from fcn_cli.cpu.workspace import Workspace
from fcn_cli.inference.upsampling import label_map
from fcn_cli.models import registry

backbone, height, width, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
clock = time.process_time if threads == 1 else time.perf_counter
torch.manual_seed(0)
space, clamp = Workspace(), (0.0, None)

def network():
    model = registry.find(backbone).build(21).eval()
    randomise(model)
    fast, batch = CpuNetwork(model), torch.randn(1, 3, height, width)
    return lambda: fast(batch)

def product(channels, out):
    pixels = torch.randn(height // 8 * (width // 8), channels)
    panels, bias = matmul.in_panels(torch.randn(channels, out)), torch.zeros(matmul.padded(out))
    result = torch.empty(len(pixels), out)
    return lambda: matmul.pointwise(pixels, panels, bias, result, clamp, space, add=False)

def winograd(channels, dilation, tile):
    weight = torch.randn(channels, channels, 3, 3, dtype=torch.float64)
    layer = Winograd(weight, torch.zeros(channels, dtype=torch.float64), dilation, tile, clamp)
    x, out = torch.randn(height // 8, width // 8, channels), torch.empty(height // 8, width // 8, channels)
    return lambda: layer(x, out, space)

def labels():
    logits = torch.randn(21, height // 8, width // 8)
    return lambda: label_map(logits, height, width)

runs = {
    "network": (network(), 1),
    "1x1, 1024 to 256": (product(1024, 256), 20),
    "1x1, 256 to 1024": (product(256, 1024), 20),
    "F(6x6, 3x3), 256, dilation 2": (winograd(256, 2, 6), 20),
    "F(4x4, 3x3), 256, dilation 2": (winograd(256, 2, 4), 20),
    "F(6x6, 3x3), 512, dilation 4": (winograd(512, 4, 6), 10),
    "labels": (labels(), 50),
}
with torch.inference_mode():
    for run, repeats in runs.values():
        run()
    for _ in sys.stdin:
        seconds = []
        for run, repeats in runs.values():
            started = clock()
            for _ in range(repeats):
                run()
            seconds.append((clock() - started) / repeats)
        print(*seconds, sep=",", flush=True)
    print(*runs, sep=";", flush=True)
"""


def main() -> None:
    """Print the median seconds of both checkouts and the median ratio, for a network and its kernels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path, help="a checkout of this project")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", default="693x520", metavar="WxH")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    print(material.machine())
    width, height = options.size.split("x")
    arguments = (options.backbone, height, width, str(options.threads))
    workers = [start(tree, *arguments) for tree in (options.old, options.new)]
    rounds: list[list[list[float]]] = []
    for number in range(options.rounds + 1):
        # Who comes second finds a warmer machine: take turns in that, too.
        order = [0, 1] if number % 2 else [1, 0]
        results = {index: measure(workers[index]) for index in order}
        rounds.append([results[0], results[1]])
    names, _ = (finish(worker) for worker in workers)
    for index, name in enumerate(names):
        old, new = ([each[tree][index] for each in rounds[1:]] for tree in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
        medians = ", ".join(f"{statistics.median(each) * 1e3:9.3f} ms" for each in (old, new))
        print(f"{name:30} old, new {medians}; new / old {ratio:.3f}")


def start(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that imports the project from a checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree.resolve())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(worker: subprocess.Popen[str]) -> list[float]:
    """Have a process run everything once; return the seconds."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return [float(seconds) for seconds in worker.stdout.readline().split(",")]


def finish(worker: subprocess.Popen[str]) -> list[str]:
    """End a process and return the names of what it timed."""
    names, _ = worker.communicate()
    return names.strip().split(";")


if __name__ == "__main__":
    main()
