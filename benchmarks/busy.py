"""``fcn segment`` under different wait policies of OpenMP, on an idle and on a busy machine, in turn.

``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` say what OpenMP's threads do while they wait: spin, or sleep. A
machine is busy when as many other processes compute as there are CPUs. Each pair is a run with OpenMP's own
policy and one with each other policy; a run's rate is the one that it prints, without the start-up. The
interval holds the median of the ratios with 95 % probability (by the order of the pairs).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import material
from fcn_cli.common.resources import cpu_count
from fcn_cli.models import registry

# `FCN` is what the command chooses by itself; "OpenMP" is what it did before.
POLICIES: dict[str, dict[str, str]] = {
    "OpenMP": {"GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "fcn": {},
}


def main() -> None:
    """Print each pair's rates, and for each policy the median ratio to OpenMP's own, with its interval."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", default="500x375", metavar="WxH")
    parser.add_argument("--resize", default="200")
    parser.add_argument("--backbone", default="resnet50", choices=list(registry.BACKBONES))
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--threads", help="of the network; without it, as the command chooses")
    parser.add_argument("--situations", nargs="+", default=["idle", "busy"], choices=["idle", "busy"])
    parser.add_argument("--policies", nargs="+", default=["passive"], choices=list(POLICIES)[1:])
    options = parser.parse_args()
    print(f"{material.machine()}; {options.backbone}, --resize {options.resize}, {options.kernels} kernels")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        material.make_images(folder / "photos", options.images, *map(int, options.size.split("x")))
        model = registry.find(options.backbone).build(21)
        material.randomise(model)
        torch.save(model.state_dict(), folder / "weights.pth")
        del model
        for situation in options.situations:
            load = cpu_count() if situation == "busy" else 0
            rates: dict[str, list[float]] = {policy: [] for policy in ("OpenMP", *options.policies)}
            for pair in range(options.pairs):
                # Whoever comes first meets another machine: take turns in that, too.
                order = list(rates) if pair % 2 else list(reversed(rates))
                for policy in order:
                    with others(load):
                        rates[policy].append(rate(folder, POLICIES[policy], options))
                shown = ", ".join(f"{policy} {each[-1]:.2f}" for policy, each in rates.items())
                print(f"{situation}, pair {pair + 1}: {shown} images/s", flush=True)
            for policy in options.policies:
                ratios = sorted(b / a for a, b in zip(rates["OpenMP"], rates[policy], strict=True))
                low, high = interval(ratios)
                medians = [statistics.median(rates[each]) for each in ("OpenMP", policy)]
                print(
                    f"{situation}, {policy}: {medians[0]:.2f} -> {medians[1]:.2f} images/s, median ratio "
                    f"{statistics.median(ratios):.3f} (95 %: {low:.3f} to {high:.3f})",
                    flush=True,
                )


@contextlib.contextmanager
def others(count: int) -> Iterator[None]:
    """Let so many processes compute in the context."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def rate(folder: Path, policy: dict[str, str], options: argparse.Namespace) -> float:
    """Return the images/s of a run into a new output directory."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    line = [sys.executable, "-m", "fcn_cli", "segment", str(folder / "photos"), "-q"]
    line += ["--backbone", options.backbone, "--weights", str(folder / "weights.pth")]
    line += ["--resize", options.resize, "--kernels", options.kernels]
    if options.threads is not None:
        line += ["--threads", options.threads]
    with tempfile.TemporaryDirectory(dir=folder) as output:
        subprocess.run([*line, "-o", f"{output}/out"], env={**environment, **policy}, check=True)
        summary = json.loads(Path(output, "out", "summary.json").read_text())
    found: float = summary["run"]["images_per_second"]
    return found


def interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the two ratios between which the median lies with at least 95 % probability."""
    count = len(ordered)
    chance, rank = 0.0, 0
    while True:
        chance += math.comb(count, rank) / 2**count
        if 2 * chance > 0.05 or rank >= count // 2:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[count - 1 - rank]


if __name__ == "__main__":
    main()
