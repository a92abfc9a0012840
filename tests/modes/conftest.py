"""The ways to do one job: each test here runs once for each of them, and knows nothing of how they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ..conftest import Fcn, command, exact_names, run_line, tree

if TYPE_CHECKING:
    from ..cluster.running import RayCluster
    from ..s3_server import S3Server

SHARDS = 3
MODES = ["plain", "shards", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ray", "bucket"))]


class Mode(Protocol):
    """One way to run ``fcn segment``."""

    def segment(self, *arguments: str | Path, output: str = "out") -> int:
        """Run the job, all parts of it; return the exit code, of several the greatest."""

    def files(self, output: str = "out") -> dict[str, bytes]:
        """Return all files of an output directory, by name."""

    def remove(self, name: str, output: str = "out") -> None:
        """Delete a file of an output directory."""


class _Local:
    def __init__(self, fcn: Fcn, folder: Path) -> None:
        self.fcn = fcn
        self.folder = folder

    def files(self, output: str = "out") -> dict[str, bytes]:
        return tree(self.folder / output)

    def remove(self, name: str, output: str = "out") -> None:
        (self.folder / output / name).unlink()


class Plain(_Local):
    """One process."""

    def segment(self, *arguments: str | Path, output: str = "out") -> int:
        return self.fcn("segment", *arguments, "-o", output, code=None).code


class Shards(_Local):
    """Three shards, one after the other; the last one merges."""

    def segment(self, *arguments: str | Path, output: str = "out") -> int:
        shares = [f"{index}/{SHARDS}" for index in range(1, SHARDS + 1)]
        return max(
            self.fcn("segment", *arguments, "-o", output, "--shard", share, code=None).code
            for share in shares
        )


class OnRay(_Local):
    """Two actors of a running cluster."""

    def __init__(self, fcn: Fcn, folder: Path, cluster: RayCluster) -> None:
        super().__init__(fcn, folder)
        self.cluster = cluster

    def segment(self, *arguments: str | Path, output: str = "out") -> int:
        line = self.cluster.segment(*arguments, "-o", output)
        return run_line(line, code=None, cwd=self.folder, env=self.cluster.environment).code


class Bucket:
    """One process that writes into a bucket."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder = folder
        self.server = server

    def segment(self, *arguments: str | Path, output: str = "out") -> int:
        line = command("segment", *arguments, "-o", f"s3://results/{output}")
        return run_line(line, code=None, cwd=self.folder).code

    def files(self, output: str = "out") -> dict[str, bytes]:
        found = self.server.objects("results", f"{output}/")
        return {key.removeprefix(f"{output}/"): data for key, data in found.items()}

    def remove(self, name: str, output: str = "out") -> None:
        self.server.client.delete_object(Bucket="results", Key=f"{output}/{name}")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, fcn: Fcn, tmp_path: Path) -> Mode:
    """Return each way to run a job, in turn."""
    if request.param == "ray":
        return OnRay(fcn, tmp_path, request.getfixturevalue("ray_cluster"))
    if request.param == "bucket":
        return Bucket(tmp_path, request.getfixturevalue("s3"))
    return Shards(fcn, tmp_path) if request.param == "shards" else Plain(fcn, tmp_path)


def pictures(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files that are made of images."""
    return {name: data for name, data in files.items() if name.endswith((".png", ".jpg"))}


def records(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return the last record of each image, without what differs between two runs of one way."""
    lines = map(exact_names, map(json.loads, files["manifest.jsonl"].splitlines()))
    return {
        record["image"]: {key: value for key, value in record.items() if key not in {"finished", "seconds"}}
        for record in lines
    }
