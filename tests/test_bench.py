"""`fcn bench`: its figures hang together, and are of what they say."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50

from fcn_cli import machine

from .conftest import Fcn


def gflop_by_hand(model: nn.Module, height: int, width: int) -> float:
    """Two operations for every product in every convolution."""
    total = 0

    def count(conv: nn.Module, _inputs: object, out: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        total_here = 2 * conv.weight[0].numel() * out.numel()
        nonlocal total
        total += total_here

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, height, width))
    return total / 1e9


def test_the_figures_of_a_resnet(fcn: Fcn) -> None:
    got: dict[str, Any] = json.loads(fcn("bench", "--size", "64x48", "--rounds", "2", "--json").stdout)
    assert list(got["contenders"]) == ["torchvision", "torchvision, no auxiliary head", "fcn"]
    with_head = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True).eval()
    without = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=False).eval()
    assert got["gflop_per_image"] == pytest.approx(gflop_by_hand(without, 48, 64), rel=1e-6)
    assert got["gflop_per_image_with_auxiliary_head"] == pytest.approx(
        gflop_by_hand(with_head, 48, 64), rel=1e-6
    )
    assert (got["width"], got["height"], got["batch_size"], got["rounds"]) == (64, 48, 1, 2)
    assert got["kernels"] == "fast"
    for one in got["contenders"].values():
        assert len(one["seconds_per_image"]) == 2
        seconds = statistics.median(one["seconds_per_image"])
        assert one["images_per_second"] == pytest.approx(1 / seconds)
        limit = got["gemm_gflop_per_second"] / got["gflop_per_image"]
        assert one["ratio_to_direct_limit"] == pytest.approx(1 / seconds / limit)
        hub = got["contenders"]["torchvision"]["images_per_second"]
        assert one["ratio_to_torchvision"] == pytest.approx(1 / seconds / hub)


def test_the_table(fcn: Fcn) -> None:
    how = ("--backbone", "mobilenet_v2", "--size", "48x32", "--rounds", "1", "-b", "2", "--kernels", "torch")
    shown = fcn("bench", *how)
    for part in ("mobilenet_v2, 48x32, batches of 2", "torch kernels", "images/s", "fcn", "GFLOP/s"):
        assert part in shown.stdout
    assert "auxiliary head  " not in shown.stdout


def test_a_size_that_is_none(fcn: Fcn) -> None:
    for size in ("520", "0x5", "axb", "1x2x3"):
        assert "693x520" in fcn("bench", "--size", size, code=2).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_helpers_step_back_and_the_network_does_not() -> None:
    seen: list[int] = []

    def helper() -> None:
        machine.step_back()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=helper)
    thread.start()
    thread.join()
    assert seen[0] > before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
