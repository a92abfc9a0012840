"""`fcn bench`: its figures hang together, and are of what they say."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from fcn_cli.common import resources
from fcn_cli.cpu.kernels import simd_targets
from fcn_cli.evaluation import bench
from fcn_cli.inference.execution import ExecutionConfig

from ..conftest import Fcn


@pytest.mark.slow
def test_the_figures_of_a_resnet(fcn: Fcn) -> None:
    got: dict[str, Any] = json.loads(
        fcn("bench", "--size", "64x48", "--rounds", "2", "--kernels", "fast", "--json").stdout
    )
    assert list(got["contenders"]) == ["torchvision", "torchvision, no auxiliary head", "fcn"]
    assert (got["width"], got["height"], got["batch_size"], got["rounds"]) == (64, 48, 1, 2)
    assert got["kernels"] == "fast"
    for one in got["contenders"].values():
        assert len(one["seconds_per_image"]) == 2
        seconds = statistics.median(one["seconds_per_image"])
        assert one["images_per_second"] == pytest.approx(1 / seconds)
        hub = got["contenders"]["torchvision"]["images_per_second"]
        assert one["ratio_to_torchvision"] == pytest.approx(1 / seconds / hub)


@pytest.mark.long
def test_where_our_kernels_are_unmeasured_both_are_timed(fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simd_targets, "simd_target", lambda: simd_targets.BASELINE)
    how = ("bench", "--backbone", "efficientnet_lite0", "--size", "48x32", "--rounds", "1")
    shown = fcn(*how).stdout
    assert "torch kernels" in shown
    said = re.search(r"(its own|PyTorch's) are ([\d.]+) times as fast here; please report", shown)
    assert said
    rates = re.findall(r"^fcn(, its own kernels)? +fp32 +([\d.]+)", shown, re.MULTILINE)
    (_, theirs), (_, ours) = rates
    assert (said[1] == "its own") == (float(ours) > float(theirs))
    assert float(said[2]) >= 1
    assert "please report" not in fcn(*how, "--kernels", "torch").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_helpers_step_back_and_the_network_does_not() -> None:
    seen: list[int] = []

    def helper() -> None:
        resources.lower_thread_priority()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=helper)
    thread.start()
    thread.join()
    assert seen[0] > before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        pytest.param("fp16", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_everyone_computes_in_one_precision(precision: str, dtype: torch.dtype) -> None:
    """As on a GPU: by torch's kernels. What a CPU is asked for here, a GPU does as well."""
    how = ExecutionConfig(torch.device("cpu"), precision, "torch", 2, 1)
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, _: object, out: Any) -> None:
        if isinstance(module, nn.Conv2d):
            seen.add(out.dtype)

    hook = register_module_forward_hook(note)
    try:
        figures = bench.measure("resnet50", 48, 32, how, 1).as_json()
    finally:
        hook.remove()
    assert seen == {dtype}
    assert (
        {one["precision"] for one in figures["contenders"].values()} == {figures["precision"]} == {precision}
    )


@pytest.mark.long
def test_a_bench_that_does_not_fit_says_so(fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ("--backbone", "efficientnet_lite0", "--size", "48x32", "--rounds", "1", "-b", "2")
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    assert "not enough memory for a network input of 48x32" in fcn("bench", *how, code=2).stderr

    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    assert "not enough memory for batches of 2 images of 48x32" in fcn("bench", *how, code=2).stderr
