"""Two checkouts of this project measured in turn: ``python -m benchmarks.NAME --against CHECKOUT``.

Each round runs each checkout's own copy of the benchmark in a process of its own, so that a change may move
what a benchmark imports. The median of the rounds' ratios is what counts: both runs of a round meet the same
neighbours on the machine. A benchmark yields figures; run by itself it prints them, or what it says of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fcn_cli.common.resources import describe

ROOT = Path(__file__).parent.parent


class Figure(NamedTuple):
    """A measured value: its name, which both checkouts share, the value and its unit."""

    name: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name:44} {self.value:10.3f} {self.unit}"


Figures = Callable[[argparse.Namespace, Path], Iterator[Figure]]
"""Measures once with some options; the folder is for material, which later rounds find there."""


def add_options(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """Add the options that all benchmarks with figures share."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measure this one too, in turn")
    parser.add_argument("--folder", type=Path, help="for the material; kept, and used again if it is there")
    parser.add_argument("--figures", action="store_true", help="measure once; print lines of JSON")


def main(
    parser: argparse.ArgumentParser, figures: Figures, show: Callable[[argparse.Namespace, Path], None] | None
) -> None:
    """Run a benchmark as its options say; `show` measures and prints when it runs by itself."""
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if options.against is not None:
            _compare(options, folder)
        elif show is not None and not options.figures:
            show(options, folder)
        else:
            for figure in figures(options, folder):
                print(json.dumps(figure) if options.figures else figure, flush=True)


def _compare(options: argparse.Namespace, folder: Path) -> None:
    own = argparse.ArgumentParser(add_help=False)
    add_options(own)
    _, arguments = own.parse_known_args()
    module = f"benchmarks.{Path(sys.argv[0]).stem}"
    trees = {"before": options.against.resolve(), "now": ROOT.resolve()}
    rounds: list[dict[str, dict[str, Figure]]] = []
    # Without torch: a process's peak memory begins with that of its parent.
    print(describe(), flush=True)
    for number in range(options.rounds):
        # Whoever comes second finds a warmer machine: take turns in that, too.
        order = list(trees) if number % 2 else list(reversed(trees))
        rounds.append({name: _run(module, trees[name], arguments, folder / name) for name in order})
        for name, now in rounds[-1]["now"].items():
            before = rounds[-1]["before"].get(name)
            if before is not None:
                print(
                    f"round {number + 1}: {name}: {before.value:.3f}, {now.value:.3f} {now.unit}", flush=True
                )
    for name, figure in rounds[0]["now"].items():
        if name not in rounds[0]["before"]:
            print(f"{name}: only now")
            continue
        pairs = [(each["before"][name].value, each["now"][name].value) for each in rounds]
        ratios = [now / before for before, now in pairs]
        before, now = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(
            f"{name:44} before {before:.3f}, now {now:.3f} {figure.unit}; now / before "
            f"{statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
        )


def _run(module: str, tree: Path, arguments: list[str], folder: Path) -> dict[str, Figure]:
    """Run a checkout's own copy of a benchmark once; return its figures by name."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--figures", "--folder", str(folder)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures = [Figure(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]
    return {figure.name: figure for figure in figures}
