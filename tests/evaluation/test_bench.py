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
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torchvision.models.segmentation import fcn_resnet50

from fcn_cli.common import resources
from fcn_cli.evaluation import matrix_product, speed
from fcn_cli.inference.execution import ExecutionConfig

from ..conftest import Fcn


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


@pytest.mark.slow
def test_the_figures_of_a_resnet(fcn: Fcn) -> None:
    got: dict[str, Any] = json.loads(
        fcn("bench", "--size", "64x48", "--rounds", "2", "--kernels", "fast", "--json").stdout
    )
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


@pytest.mark.long
def test_the_table(fcn: Fcn) -> None:
    how = ("--backbone", "mobilenet_v2", "--size", "48x32", "--rounds", "1", "-b", "2", "--kernels", "torch")
    shown = fcn("bench", *how)
    for part in (
        "mobilenet_v2, 48x32, batches of 2",
        "torch kernels",
        "precision",
        "fp32",
        "images/s",
        "fcn",
        "GFLOP/s",
    ):
        assert part in shown.stdout
    assert "auxiliary head  " not in shown.stdout


def test_a_size_that_is_none(fcn: Fcn) -> None:
    for size in ("520", "0x5", "axb", "1x2x3"):
        assert "693x520" in fcn("bench", "--size", size, code=2).stderr


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


class Moves(TorchFunctionMode):
    """Notes which tensors go to a device and come back, and in which type matrices are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.to: list[torch.Size] = []
        self.back: list[torch.Size] = []
        self.products: set[torch.dtype] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is Tensor.to and isinstance(args[1], torch.device):
            self.to.append(args[0].shape)
        elif function is Tensor.cpu:
            self.back.append(args[0].shape)
        elif function is torch.mm:
            self.products.add(args[0].dtype)
        return function(*args, **kwargs or {})


@pytest.mark.long
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        pytest.param("fp16", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_everyone_computes_in_one_precision_from_the_host_to_the_host(
    precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: by torch's kernels. What a CPU is asked for here, a GPU does as well."""
    how = ExecutionConfig(torch.device("cpu"), precision, "torch", 2, 1)
    types: dict[str, set[torch.dtype]] = {}
    moves = Moves()
    real = speed.in_turn

    def in_turn(runs: Any, rounds: int, between: Any) -> Any:
        def watched(name: str, run: Any) -> Any:
            def watch() -> None:
                before = len(moves.to), len(moves.back)
                hook = register_module_forward_hook(
                    lambda module, _, out: (
                        types.setdefault(name, set()).add(out.dtype)
                        if isinstance(module, nn.Conv2d)
                        else None
                    )
                )
                run()
                hook.remove()
                if name != speed.FCN:
                    # The engine does both itself, for its device; torchvision's users as on the Hub page.
                    assert moves.to[before[0] :] == [torch.Size([2, 3, 32, 48])]
                    assert moves.back[before[1] :] == [torch.Size([2, 32, 48])]

            return watch

        with moves:
            return real({name: watched(name, run) for name, run in runs.items()}, rounds, between)

    monkeypatch.setattr(speed, "in_turn", in_turn)
    monkeypatch.setattr(matrix_product, "_SIDE", 64)
    measured = speed.measure("resnet50", 48, 32, how, 1)
    # On a CPU, what computes fcn's bfloat16 is no module of torch's.
    modules = (speed.HUB, speed.PLAIN, *([] if precision == "bf16" else [speed.FCN]))
    assert types == {name: {dtype} for name in modules}
    # The limit too.
    assert moves.products == {dtype}
    figures = measured.as_json()
    assert figures["precision"] == precision
    assert {one["precision"] for one in figures["contenders"].values()} == {precision}


@pytest.mark.long
def test_a_bench_that_does_not_fit_says_so(fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ("--backbone", "mobilenet_v2", "--size", "48x32", "--rounds", "1", "-b", "2")
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    assert "not enough memory for an input of 48x32" in fcn("bench", *how, code=2).stderr

    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    assert "not enough memory for batches of 2 images of 48x32" in fcn("bench", *how, code=2).stderr
