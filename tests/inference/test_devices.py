"""Devices: what they cannot do is refused, what does not fit goes in smaller batches, what is lost is named.

Most of it is about GPUs, on machines without one: PyTorch's answers about them, and the errors that it raises
on them, are put in by the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fcn_cli import DeviceLost, RequestError, Segmenter
from fcn_cli.common import resources
from fcn_cli.cpu.kernels import amx, simd_targets
from fcn_cli.cpu.kernels.simd_targets import AVX2, AVX512, AVX512_BF16, BASELINE, SimdTarget
from fcn_cli.inference import device_errors, execution
from fcn_cli.inference.engine import BatchLimits
from fcn_cli.inference.execution import ExecutionConfig, resolve_execution
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.models.registry import BACKBONES

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, journal_of, tree

CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make PyTorch speak of one GPU of some compute capability; nothing can be computed on it."""

    def put_in(major: int, minor: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla Test")

    return put_in


# ---- what is computed where


@pytest.mark.parametrize(
    ("capability", "precision", "fallback"),
    [
        ((6, 1), "fp32", None),
        ((7, 0), "fp16", "fp32"),
        ((7, 5), "fp16", "fp32"),
        ((8, 0), "bf16", None),
        ((8, 6), "bf16", None),
        ((12, 0), "bf16", None),
    ],
)
def test_what_auto_precision_is_on_a_gpu(
    capability: tuple[int, int],
    precision: str,
    fallback: str | None,
    gpu: Callable[[int, int], None],
) -> None:
    gpu(*capability)
    how = resolve_execution(InferenceOptions("auto"))
    assert (how.device.type, how.precision, how.fallback) == ("cuda", precision, fallback)
    assert how.kernels == "torch"
    for asked in ("fp32", "fp16"):
        exact = resolve_execution(InferenceOptions("cuda:0", asked))
        # What was asked for by name is not replaced.
        assert (exact.precision, exact.fallback) == (asked, None)


def test_bfloat16_is_refused_on_a_gpu_without_it(
    gpu: Callable[[int, int], None], fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])
    gpu(7, 5)
    arguments = ("segment", "made", *SMALL, "--device", "cuda", "--precision", "bf16", "-o", "out")
    refused = fcn(*arguments, code=2)
    for text in ("--precision bf16", "Tesla Test", "compute capability 7.5", "8.0", "fp16"):
        assert text in refused.stderr
    assert len([line for line in refused.stderr.splitlines() if "preview" not in line]) == 1
    assert not (tmp_path / "out").exists()
    gpu(8, 0)
    assert resolve_execution(InferenceOptions("cuda", "bf16")).precision == "bf16"


@pytest.mark.parametrize(
    ("has_amx", "target", "requested", "kernels"),
    [
        ("permitted", AVX512_BF16, "auto", "fast"),
        ("permitted", AVX512_BF16, "fast", "fast"),
        ("permitted", AVX512_BF16, "torch", "torch"),
        (False, AVX512_BF16, "auto", "fast"),
        (False, AVX512_BF16, "fast", "fast"),
        (False, AVX512_BF16, "torch", "torch"),
        (True, AVX512_BF16, "auto", "torch"),
        (True, AVX512_BF16, "fast", "torch"),
        (False, AVX512, "torch", "torch"),
        (False, AVX512, "auto", None),
        (False, AVX2, "fast", None),
        (False, BASELINE, "auto", None),
    ],
)
def test_bfloat16_on_a_cpu_needs_its_instructions(
    has_amx: bool | str,
    target: SimdTarget,
    requested: str,
    kernels: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(has_amx))
    # The operating system may keep it from this process: then only PyTorch knows what to do.
    monkeypatch.setattr(amx, "available", lambda: has_amx == "permitted")
    monkeypatch.setattr(simd_targets, "simd_target", lambda: target)
    options = InferenceOptions("cpu", "bf16", requested)
    if kernels is None:
        with pytest.raises(RequestError, match=r"AMX or AVX512_BF16.*--kernels torch"):
            resolve_execution(options)
    else:
        chosen = resolve_execution(options)
        assert (chosen.precision, chosen.kernels) == ("bf16", kernels)
    assert resolve_execution(InferenceOptions("cpu")).precision == "fp32"


@pytest.mark.parametrize(
    ("processor", "has_amx", "is_slower"),
    [("cooperlake", False, True), ("sapphirerapids", True, False), ("znver4", False, False)],
)
def test_bfloat16_is_slower_on_intels_processors_without_amx(
    processor: str, has_amx: bool, is_slower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(amx, "available", lambda: has_amx)
    monkeypatch.setattr(simd_targets, "host_processor", lambda: processor)
    monkeypatch.setattr(simd_targets, "simd_target", lambda: AVX512_BF16)
    for precision in ("fp32", "bf16"):
        chosen = resolve_execution(InferenceOptions("cpu", precision))
        assert bool(execution.note(chosen)) == (is_slower and precision == "bf16")


@pytest.mark.long
def test_a_run_says_that_its_precision_is_slower(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(["a.png"])
    monkeypatch.setattr(execution, "note", lambda chosen: f"{chosen.precision} is slower here")
    for out in ("out", "one.png"):
        assert "fp32 is slower here" in fcn("segment", "made/a.png", *SMALL, "-o", out).stderr


@pytest.mark.parametrize(
    ("target", "auto"), [(AVX512_BF16, "fast"), (AVX512, "fast"), (AVX2, "fast"), (BASELINE, "torch")]
)
def test_kernels_are_ours_in_float32_where_they_were_measured_to_win(
    target: SimdTarget, auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simd_targets, "simd_target", lambda: target)
    for requested, chosen in (("auto", auto), ("fast", "fast"), ("torch", "torch")):
        assert resolve_execution(InferenceOptions("cpu", kernels=requested)).kernels == chosen


@pytest.mark.parametrize("name", ["tpu", "cpu:1", "cuda:-1", "cuda:x", "cuda:", "mps", ""])
def test_names_that_are_no_device(name: str) -> None:
    with pytest.raises(RequestError, match="not one of auto, cpu, cuda, cuda:N"):
        resolve_execution(InferenceOptions(name))


LOADED = """
import sys
{code}
print("LOADED", sorted(name for name in sys.modules if name.startswith(
    ("llvmlite", "fcn_cli.cpu.kernels.compiler")
)))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        # What a GPU takes.
        (
            "import fcn_cli.inference.engine, fcn_cli.segmenter, fcn_cli.evaluation.bench, "
            "fcn_cli.runs.segment, "
            "fcn_cli.evaluation.accuracy",
            False,
        ),
        ("{segment} --kernels torch --write masks,confidence'.split())", False),
        pytest.param("{segment} --precision bf16 --kernels torch'.split())", False, marks=pytest.mark.slow),
        pytest.param(
            "from fcn_cli import Segmenter; "
            "Segmenter('efficientnet_lite0', resize=64, kernels='torch')('{image}')",
            False,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "{run}('bench --backbone efficientnet_lite0 --size 32x32 --rounds 1 --kernels torch'.split())",
            False,
            marks=pytest.mark.slow,
        ),
        ("{segment}'.split())", True),
    ],
)
def test_llvmlite_is_imported_for_our_kernels_only(code: str, loaded: bool, tmp_path: Path) -> None:
    run = "from fcn_cli.__main__ import run; code = run"
    segment = f"{run}('segment {SAMPLES / 'chelsea.png'} {' '.join(SMALL)} -j 0 -o out"
    source = LOADED.format(code=code.format(run=run, segment=segment, image=SAMPLES / "chelsea.png"))
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "bug" not in done.stderr
    if "segment" in code and "segmenter" not in code:
        assert len(list((tmp_path / "out").glob("*/chelsea.png"))) >= 1
    assert ("'llvmlite'" in done.stdout.split("LOADED")[1]) == loaded


def test_the_workers_are_forked_before_anything_of_cuda(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has begun with CUDA must not fork."""
    calls: list[str] = []
    fork, available = os.fork, torch.cuda.is_available

    def noted_fork() -> int:
        calls.append("fork")
        return fork()

    def noted_available() -> bool:
        calls.append("cuda")
        return available()

    monkeypatch.setattr(os, "fork", noted_fork)
    monkeypatch.setattr(torch.cuda, "is_available", noted_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    made = make_images(["a.png", "b.png"])
    assert "CUDA device" in fcn("segment", made, *SMALL, "--device", "cuda", "-j", "2", code=2).stderr
    assert calls == ["fork", "fork", "cuda"]


# ---- memory

OUT_OF_MEMORY = [
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 "
        "GiB is free."
    ),
    torch.AcceleratorError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call."
    ),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 10000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried to "
        "allocate 10000000000 bytes."
    ),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError(
        "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in https://docs.nvidia.com/."
    ),
    torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`."),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
]
# These come from a lost device, or from a device that is well.
OF_LIBRARIES = [
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
]
NEITHER = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"),
    RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    ValueError("CUDA error: out of memory"),
]


def text(error: BaseException) -> str:
    return str(error).split("\n")[0][:60] or type(error).__name__


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_pytorchs_errors_mean(is_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library reports means a lost device only where the device does not answer either."""

    def synchronize(device: torch.device) -> None:
        assert device == CUDA
        if is_lost:
            raise LOST[1]

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    for error in (*OUT_OF_MEMORY, *LOST, *OF_LIBRARIES, *NEITHER):
        assert device_errors.is_out_of_memory(error) == (error in OUT_OF_MEMORY), error
        mean_it = [*LOST, *OF_LIBRARIES, NEITHER[1]] if is_lost else LOST
        assert device_errors.is_lost_device(error, CUDA) == (error in mean_it), error


Forward = Callable[[Tensor], None]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Forward], None]:
    """Have something called before every forward pass of the preview, with its batch."""

    def put_in(watch: Forward) -> None:
        preview = BACKBONES["efficientnet_lite0"]

        def build(classes: int) -> nn.Module:
            model = preview.build(classes)
            model.get_submodule("backbone").register_forward_pre_hook(lambda _, inputs: watch(*inputs))
            return model

        monkeypatch.setitem(BACKBONES, "efficientnet_lite0", replace(preview, build=build))

    return put_in


@pytest.mark.parametrize("error", OUT_OF_MEMORY[:5:2], ids=text)
def test_an_image_that_does_not_fit_changes_nothing_for_the_others(
    error: Exception,
    watched: Callable[[Forward], None],
    fcn: Fcn,
    make_images: MakeImages,
    tmp_path: Path,
) -> None:
    """Two are too large for the memory alone, four go in halves; after them the batches are full again."""
    batches: list[tuple[int, ...]] = []

    def watch(batch: Tensor) -> None:
        count, _, height, width = batch.shape
        batches.append((width, count))
        if count * height * width > 4 * 60 * 48:
            raise error

    watched(watch)
    for names, size in (
        (["a1.png", "a2.png"], (240, 192)),
        (["b1.png", "b2.png", "b3.png", "b4.png"], (72, 60)),
        (["c1.png", "c2.png", "c3.png", "c4.png"], (60, 48)),
    ):
        for name in names:
            path = make_images([name], size=(size[0], size[1])) / name
            assert Image.open(path).size == size
    common = ("segment", "made", *SMALL[:2], "--resize", "none", "--kernels", "torch", "-b", "4", "-j", "0")
    done = fcn(*common, "-o", "out", code=1)
    assert "10 images: 8 done, 2 failed" in done.stderr
    assert "a1.png: not enough memory for a network input of 240x192" in done.stderr
    assert "bug" not in done.stderr
    assert batches == [
        *[(72, 4), (72, 2), (72, 2)],
        (60, 4),
        # The rest, when no more images come.
        *[(240, 2), (240, 1), (240, 1)],
    ]
    kinds = [one["error"]["kind"] for one in journal_of(tmp_path / "out").values() if one["error"]]
    assert kinds == ["OutOfMemory"] * 2


@pytest.mark.parametrize("error", LOST[::2], ids=text)
def test_a_lost_device_ends_the_run_and_is_named(
    error: Exception,
    watched: Callable[[Forward], None],
    fcn: Fcn,
    make_images: MakeImages,
    tmp_path: Path,
) -> None:
    make_images([f"{index}.png" for index in range(6)])
    passes = 0

    def watch(_: Tensor) -> None:
        nonlocal passes
        passes += 1
        if passes == 4:
            raise error

    watched(watch)
    common = ("segment", "made", *SMALL, "--kernels", "torch", "-j", "0", "-o", "out")
    done = fcn(*common, code=5)
    assert "device cpu failed" in done.stderr
    assert str(error).split("\n")[0] in done.stderr
    assert "bug" not in done.stderr
    # What came before is kept, and the next run does the rest.
    records = journal_of(tmp_path / "out")
    assert sorted(records) == ["0.png", "1.png", "2.png"]
    assert {one["status"] for one in records.values()} == {"ok"}
    before = tree(tmp_path / "out/masks")
    assert len(before) == 3
    again = fcn(*common)
    assert "3 done, 3 done before, 0 failed" in again.stderr
    assert before.items() <= tree(tmp_path / "out/masks").items()


def test_a_lost_device_reaches_python_and_is_a_devicelost(
    watched: Callable[[Forward], None],
) -> None:
    def watch(_: Tensor) -> None:
        raise LOST[0]

    watched(watch)
    ours = Segmenter("efficientnet_lite0", resize=64, kernels="torch")
    with pytest.raises(DeviceLost, match=r"device cpu failed.*device-side assert"):
        ours(SAMPLES / "chelsea.png")
    with pytest.raises(DeviceLost, match="device cpu failed"):
        list(ours.batch([SAMPLES / "chelsea.png"], on_error="return"))


@pytest.mark.parametrize("error", NEITHER[:2], ids=text)
def test_what_is_neither_is_a_bug(
    error: Exception, watched: Callable[[Forward], None], fcn: Fcn, make_images: MakeImages
) -> None:
    def watch(_: Tensor) -> None:
        raise error

    watched(watch)
    done = fcn("segment", make_images(["a.png"]), *SMALL, "--kernels", "torch", code=70)
    assert "this is a bug in fcn" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OUT_OF_MEMORY[0], "too little free memory for the network itself"),
        (LOST[1], "unspecified launch failure"),
    ],
    ids=text,
)
def test_a_device_that_cannot_take_the_network_is_named(
    error: Exception,
    said: str,
    fcn: Fcn,
    make_images: MakeImages,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def to(*_: object, **__: object) -> nn.Module:
        raise error

    monkeypatch.setattr(nn.Module, "to", to)
    done = fcn("segment", make_images(["a.png"]), *SMALL, code=5)
    assert f"device cpu {'has' if 'memory' in said else 'failed'}" in done.stderr
    assert said in done.stderr


# ---- batches bounded by pixels

BYTES_PER_PIXEL = 700


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The figures that CUDA gives of its memory."""
    figures = {"free": 8 << 30, "reserved": 0, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (figures["free"], 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: figures["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: figures["allocated"])
    return figures


def limits(precision: str = "fp32", batch_size: int = 16) -> BatchLimits:
    return BatchLimits(ExecutionConfig(CUDA, precision, "torch", batch_size, 1), BYTES_PER_PIXEL)


def test_a_batch_on_a_gpu_is_bounded_by_its_pixels(free: dict[str, int]) -> None:
    ours = limits()
    assert ours.images((520, 693, 3)) == 16
    for side in (1000, 1500, 2500):
        count = ours.images((side, side, 3))
        room = free["free"] - (1 << 30)
        assert count * side * side * BYTES_PER_PIXEL <= room < (count + 1) * side * side * BYTES_PER_PIXEL
    # Half as wide numbers, twice as many.
    assert limits("bf16").images((2000, 2000, 3)) == 5 == 2 * ours.images((2000, 2000, 3)) + 1
    # One is always tried: a GPU refuses without harm. What comes after it is bounded as before.
    assert ours.images((40000, 40000, 3)) == 1
    assert ours.images((520, 693, 3)) == 16


def test_memory_that_pytorch_keeps_counts_as_free(free: dict[str, int]) -> None:
    free.update(free=1 << 30, reserved=8 << 30, allocated=1 << 30)
    kept = limits().images((1000, 1000, 3))
    free.update(free=8 << 30, reserved=1 << 30, allocated=1 << 30)
    assert kept == limits().images((1000, 1000, 3)) > 5


def test_a_shape_that_did_not_fit_goes_in_smaller_batches_and_no_other(free: dict[str, int]) -> None:
    ours = limits()
    ours.did_not_fit((520, 693, 3), 16)
    assert ours.images((520, 693, 3)) == 8
    assert ours.images((520, 694, 3)) == 16
    assert ours.images((693, 520, 3)) == 16
    free["free"] = (1 << 30) + 3 * 520 * 693 * BYTES_PER_PIXEL
    assert ours.images((520, 693, 3)) == 3


def test_a_cpu_is_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 10 * 100 * 100 * BYTES_PER_PIXEL)
    plain = BatchLimits(ExecutionConfig(torch.device("cpu"), "fp32", "torch", 16, 1), BYTES_PER_PIXEL)
    assert plain.images((100, 100, 3)) == 10
    assert plain.images((400, 400, 3)) == 0
    # Our kernels take images one by one.
    ours = BatchLimits(ExecutionConfig(torch.device("cpu"), "fp32", "fast", 16, 1), BYTES_PER_PIXEL)
    assert ours.images((220, 220, 3)) == 16
    assert ours.images((300, 300, 3)) == 16
    assert ours.images((400, 400, 3)) == 0
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    assert plain.images((100000, 100000, 3)) == 16


# ---- with a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_too_large_for_the_gpu_goes_in_parts() -> None:
    free_bytes = torch.cuda.mem_get_info()[0]
    side = int((free_bytes / (3 * BYTES_PER_PIXEL)) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    ours = Segmenter("efficientnet_lite0", resize=None, device="cuda", precision="fp32", batch_size=4)
    results: list[Any] = ours._engine.predict([pixels] * 4, [(500, 500)] * 4)
    assert all((one.labels != results[0].labels).mean() < 0.001 for one in results)
    assert len(results) == 4
