"""The fused kernel for labels: its results in Triton's interpreter, and that it compiles for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fcn_cli.inference.interpolation import Taps
from fcn_cli.inference.labels import PredictionOptions, Upsampled, Upsampler

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA on Linux only")

# The oracles are PyTorch's interpolation, argmax and softmax over all classes at once, and our chunks.
INTERPRETED = """
import torch, torch.nn.functional as F
from fcn_cli.inference.interpolation import taps
from fcn_cli.inference.triton_labels import label_map_kernel
from fcn_cli.inference.labels import PredictionOptions, Upsampler

torch.manual_seed(0)
for classes, h, w, height, width in [(6, 3, 4, 3, 270), (1, 2, 2, 2, 5), (9, 3, 3, 2, 2)]:
    logits = torch.randn(classes, h, w) * 3
    logits[-1] = logits[0]  # equal ones: the lower class wins
    large = F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)[0]
    large[-1] = large[0]  # PyTorch rounds them differently in vectors and at their ends
    probability = large.softmax(0).amax(0)
    best = large.topk(min(2, classes), 0).values
    clear = (best[0] - best[-1] > 1e-4) | (best[0] == best[-1])
    channels_last = logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    by_class = PredictionOptions(True, 0.2, {0: 0.5})
    at_least = PredictionOptions(True, 0.3), PredictionOptions(False, 0.3)
    for options in (PredictionOptions(), *at_least, by_class):
        x, y = taps(w, width), taps(h, height)
        got = label_map_kernel(channels_last, x, y, options)
        expected = large.argmax(0)
        needed = torch.full((classes,), options.minimum)
        for index, minimum in options.minimum_of.items():
            needed[index] = minimum
        needed = needed[expected]
        expected[probability < needed] = 255
        clear &= (probability - needed).abs() > 1e-5
        assert torch.equal(got.labels[clear].long(), expected[clear]), (classes, options)
        assert clear.float().mean() > 0.9
        assert (got.confidence is None) != options.confidence
        if options.confidence:
            assert (got.confidence - probability * 255).abs().max() < 0.51
        reference = Upsampler(options, compiled=False).upsample(logits, x, y)
        assert torch.equal(got.labels[clear], reference.labels[clear]), (classes, options)
        if options.confidence:
            assert (got.confidence.int() - reference.confidence.int()).abs().max() <= 1
    given = label_map_kernel(logits.softmax(0), x, y, PredictionOptions(True), probabilities=True)
    mixed = F.interpolate(logits.softmax(0)[None], (height, width), mode="bilinear")[0]
    assert (given.confidence - mixed.amax(0) * 255).abs().max() < 0.51
print("right")
"""


@pytest.mark.slow
@pytest.mark.long
def test_the_kernel_is_right_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "right\n", done.stderr


@pytest.mark.long
def test_the_kernel_compiles_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes more than the compiler does. No GPU is needed to compile for one."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fcn_cli.inference import triton_labels

    types = dict.fromkeys(("logits", "x_weight", "y_weight", "minimums"), "*fp32")
    types |= dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), "*i64")
    types |= dict.fromkeys(("labels", "confidence"), "*u8")
    types |= dict.fromkeys(("classes", "width", "class_stride", "row_stride", "column_stride"), "i32")
    constants: dict[str, Any] = {"block": 256, "are_probabilities": False}
    for capability, everything in ((75, False), (90, True)):
        constants |= {"has_confidence": everything, "has_minimum": everything}
        source = ASTSource(triton_labels._labels, types | dict.fromkeys(constants, "constexpr"), constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert f".target sm_{capability}" in compiled.asm["ptx"]


def test_the_kernel_is_used_where_there_is_one() -> None:
    calls: list[tuple[int, int]] = []

    def kernel(
        logits: torch.Tensor, x: Taps, y: Taps, options: PredictionOptions, probabilities: bool
    ) -> Upsampled:
        calls.append((len(x.low), len(y.low)))
        return Upsampler(options, compiled=False, probabilities=probabilities).upsample(logits, x, y)

    logits, options = torch.randn(5, 4, 6), PredictionOptions(True, 0.4)
    got = Upsampler(options, kernel=kernel).to_size(logits, 31, 47)
    expected = Upsampler(options, compiled=False).to_size(logits, 31, 47)
    assert calls == [(47, 31)]
    assert torch.equal(got.labels, expected.labels)
    assert got.confidence is not None
    assert torch.equal(got.confidence, expected.confidence)  # type: ignore[arg-type]
