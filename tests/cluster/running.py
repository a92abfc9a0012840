"""Ray clusters on this machine; what goes wrong in their actors is planted in the images."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import SMALL, command, start_and_wait_for_records

ROOT = Path(__file__).parent.parent.parent
KILLER = (61, 203)
"""The size of images that kill the process in which the network meets them."""
LOST = "lost"
"""How the names of images begin whose records get lost in an actor."""

TELLS = "tells"
"""How the names of images begin beside which an actor writes what OpenMP finds in its environment."""

# The driver and the decoding workers live: the network meets images in the actors only.
PLANTED = f"""
import importlib.util, os, signal, sys

def kill(module):
    real = module.Engine.launch
    def launch(self, batch, *stacked):
        if {KILLER!r} in batch.sizes:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, batch, *stacked)
    module.Engine.launch = launch

def lose(module):
    real = module._Records.finished
    def finished(self, outcome):
        record = outcome.record
        if record.image.startswith({TELLS!r}):
            with open(record.path + ".txt", "w") as told:
                told.write(os.environ.get("OMP_WAIT_POLICY", "none"))
        if not record.image.startswith({LOST!r}):
            real(self, outcome)
    module._Records.finished = finished

class Finder:
    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        real_exec = spec.loader.exec_module
        def exec_module(module):
            real_exec(module)
            self.change(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path[:0] = [Finder("fcn_cli.inference.engine", kill), Finder("fcn_cli.cluster.worker", lose)]
"""


@dataclass
class RayCluster:
    """A running cluster; `environment` has its token."""

    address: str
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def segment(self, *arguments: str | Path) -> list[str]:
        return command("segment", *arguments, "--ray", self.address, "--threads", "1")

    def start(self, folder: Path, records: int, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a run over ``made`` into ``out``; return once its journal has so many records."""
        line = self.segment("made", *SMALL, "-o", "out", *arguments)
        return start_and_wait_for_records(folder, records, line=line, env=self.environment)

    def kill_node(self, number: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "gone\n"


@contextlib.contextmanager
def running_cluster(folder: Path, *cpus: int) -> Iterator[RayCluster]:
    """Start a cluster with a node for each number of CPUs; the first is the head."""
    pytest.importorskip("ray.cluster_utils", reason="needs Ray")
    (folder / "sitecustomize.py").write_text(PLANTED)
    (folder / "token").write_text(secrets.token_hex(32))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.nodes", *map(str, cpus)],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, (folder / "log").read_text()
        yield RayCluster(address, environment, process)
    finally:
        process.kill()
        process.communicate()
