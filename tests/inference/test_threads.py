"""How many threads compute, and what they do while they wait."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fcn_cli.inference.engine import Engine
from fcn_cli.inference.execution import resolve_execution
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.models import registry

from ..conftest import SMALL, preview_network, run_line, run_process

# Says what OpenMP finds when torch has loaded it.
ASK = """
import os, sys
from fcn_cli.cli import console
real = console.close_log
def close_log():
    print({name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}, file=sys.stderr)
    real()
console.close_log = close_log
from fcn_cli.__main__ import main
main()
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": None}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": None}),
        ({"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "77"}),
    ],
)
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    given: dict[str, str], found: dict[str, str | None]
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    done = run_line([sys.executable, "-c", ASK, "--version"], code=0, env={**environment, **given})
    assert str(found) in done.stderr


@pytest.mark.long
def test_info_says_what_waiting_threads_do() -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    assert "waiting threads: OMP_WAIT_POLICY=PASSIVE" in run_process("info", env=environment).stdout
    given = {**environment, "GOMP_SPINCOUNT": "77"}
    assert "waiting threads: GOMP_SPINCOUNT=77" in run_process("info", env=given).stdout


@pytest.mark.parametrize(("shape", "threads"), [((48, 64), 1), ((200, 267), 2)])
def test_one_thread_computes_small_images(shape: tuple[int, int], threads: int) -> None:
    execution = resolve_execution(InferenceOptions("cpu", "fp32", threads=2, batch_size=3))
    engine = Engine(preview_network(), execution)
    used: list[int] = []
    real = engine._normalised
    engine._normalised = lambda images: (used.append(torch.get_num_threads()), real(images))[1]  # type: ignore[method-assign, func-returns-value]
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    whole = engine.predict([*pixels], [shape[::-1]] * 3)
    alone = [engine.predict([one], [shape[::-1]])[0] for one in pixels]
    # A batch of them is computed as each of them alone.
    assert set(used) == {threads}
    for one, other in zip(whole, alone, strict=True):
        assert np.array_equal(one.labels, other.labels)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", list(registry.BACKBONES))
def test_the_registry_knows_the_work_of_each_network(name: str) -> None:
    architecture = registry.find(name)
    with torch.device("meta"):
        model, image = architecture.build(21).eval(), torch.empty(1, 3, 1024, 1024)
    with FlopCounterMode(display=False) as counter:
        model(image)
    measured = counter.get_total_flops() / 1e9 / (1024 * 1024 / 1e6)
    assert architecture.gflop_per_megapixel == pytest.approx(measured, rel=0.01)


@pytest.mark.long
def test_small_images_give_the_same_masks_by_any_number_of_threads(tmp_path: Path, images: Path) -> None:
    for threads in ("1", "2"):
        run_process("segment", images, *SMALL, "--threads", threads, "-o", tmp_path / threads)
    for path in (tmp_path / "1/masks").iterdir():
        assert path.read_bytes() == (tmp_path / "2/masks" / path.name).read_bytes()
