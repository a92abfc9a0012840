"""``fcn segment --ray`` on three nodes: one of them dies, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import SMALL, Fcn, MakeImages, journal_of, run_line, tree
from .running import RayCluster, running_cluster
from .test_ray import NAMES, how, pictures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running_cluster(tmp_path_factory.mktemp("nodes"), 1, 1, 1) as running:
        yield running


def test_a_node_that_dies_loses_nothing(
    three_nodes: RayCluster, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """Its actor gets another place when one is free, and its block goes on where it was."""
    names = [*NAMES, *(f"q{number:03}.png" for number in range(64))]
    make_images(names)
    running = three_nodes.start(tmp_path, 20)
    journal = tmp_path / "out/manifest.jsonl"
    three_nodes.kill_node(1)
    assert journal.read_bytes().count(b"\n") < len(names)
    _, errors = running.communicate(timeout=150)
    assert running.returncode == 0, errors
    assert {image for image, record in journal_of(tmp_path / "out").items() if record["status"] == "ok"} == {
        *names
    }
    assert journal.read_bytes().count(b"\n") == len(names)
    assert (how(tmp_path / "out")["ray"]["nodes"], how(tmp_path / "out")["ray"]["actors"]) == (3, 3)
    fcn("segment", "made", *SMALL, "-o", "plain", "--threads", "1")
    assert pictures(tmp_path / "out") == pictures(tmp_path / "plain")


def test_an_output_directory_that_nodes_do_not_share_is_refused(
    three_nodes: RayCluster, make_images: MakeImages, tmp_path: Path
) -> None:
    """An actor that does not find what the driver wrote there is in another directory of that name."""
    make_images(NAMES[:2])
    environment = dict(three_nodes.environment)
    hidden = tmp_path / "site"
    hidden.mkdir()
    # The driver alone has another idea of where the directory is, as on a machine with a mount of its own.
    (hidden / "sitecustomize.py").write_text(
        "import fcn_cli.cluster.shared_output as shared\n"
        "shared.SharedOutput.__reduce__ = lambda self: "
        "(shared.SharedOutput, (self.directory + '-elsewhere', self.nonce))\n"
    )
    environment["PYTHONPATH"] = f"{hidden}:{environment['PYTHONPATH']}"
    done = run_line(three_nodes.segment("made", *SMALL, "-o", "out"), code=2, cwd=tmp_path, env=environment)
    assert "is not the same directory on all nodes" in done.stderr
    assert not [name for name in tree(tmp_path / "out") if name.endswith(".png")]
    assert json.loads((tmp_path / "out/run.json").read_text())["exit_code"] == 2
