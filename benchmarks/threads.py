"""What many threads cost: the CPU time of an image, and the bytes of weights that its products read.

Threads share the CPUs that there are. On two, 64 threads cannot be faster, but what they cost more than two
shows: what each one reads again, and what they wait for.

    python -m benchmarks.threads --threads 2,8,64
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch

from benchmarks import material
from fcn_cli.cpu.kernels.compiler import Kernel
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.models import registry

_PASSIVE = "OMP_WAIT_POLICY"
_FLOAT_BYTES = 4


class Run(NamedTuple):
    """An image: its seconds of CPU and of the clock, and a hash of its logits."""

    cpu: float
    wall: float
    logits: str


Measured = dict[int, list[Run]]
"""The runs of each count of threads, a run a round."""


def main() -> None:
    """Print a table of thread counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", default="693x520")
    parser.add_argument("--threads", default="2,4,8,16,32,64")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if _PASSIVE not in os.environ:
        # As `fcn` does: threads that spin would cost CPU time for as long as others have the CPUs.
        environment = {**os.environ, _PASSIVE: "PASSIVE"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.threads", *sys.argv[1:]], environment)
    counts = [int(count) for count in options.threads.split(",")]
    width, height = map(int, options.size.split("x"))
    model = registry.find(options.backbone).build(21).eval()
    material.randomise(model)
    network = CpuNetwork(model)
    batch = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        print(material.machine())
        print(f"{options.backbone}, {options.size}, float32; medians of {options.rounds} rounds in turn")
        _print_table(
            counts, _panel_bytes(network, batch, counts), _measure(network, batch, counts, options.rounds)
        )


def _panel_bytes(network: CpuNetwork, batch: torch.Tensor, counts: list[int]) -> dict[int, int]:
    """Return the bytes of panels that the products of one image read, counted from their tasks."""
    read = dict.fromkeys(counts, 0)
    plain = Kernel.task

    def counted(kernel: Kernel, items: int, **values: int | float) -> Callable[[], None]:
        if "panels" in values:
            columns = values["columns"]
            groups = math.ceil(columns / values.get("columns_per_item", columns))
            read[count] += int(items / groups * columns * values["depth"] * _FLOAT_BYTES)
        return plain(kernel, items, **values)

    with mock.patch.object(Kernel, "task", counted):
        for count in counts:
            torch.set_num_threads(count)
            network(batch)
    return read


def _measure(network: CpuNetwork, batch: torch.Tensor, counts: list[int], rounds: int) -> Measured:
    measured: Measured = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            torch.set_num_threads(count)
            # Threads start, and those of another number end.
            network(batch)
            before, started = _cpu_seconds(), time.perf_counter()
            logits = network(batch)
            times = _cpu_seconds() - before, time.perf_counter() - started
            data = np.ascontiguousarray(logits.numpy()).tobytes()
            measured[count].append(Run(*times, hashlib.sha256(data).hexdigest()))
    return measured


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _print_table(counts: list[int], read: dict[int, int], measured: Measured) -> None:
    first = counts[0]
    base = statistics.median(run.cpu for run in measured[first])
    print(f"| threads | CPU s | of {first} threads' | wall s | panels read, GB | logits |")
    print("|---|---|---|---|---|---|")
    for count in counts:
        cpu = statistics.median(run.cpu for run in measured[count])
        wall = statistics.median(run.wall for run in measured[count])
        same = {run.logits for run in measured[count]} == {measured[first][0].logits}
        print(
            f"| {count} | {cpu:.2f} | {cpu / base:.3f} | {wall:.2f} | {read[count] / 1e9:.2f} | "
            f"{'equal' if same else 'others'} |"
        )


if __name__ == "__main__":
    main()
