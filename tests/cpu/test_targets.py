"""Which target is chosen, and that those with FMA give the same bits: lanes are never parts of a sum."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import Tensor

from fcn_cli.cpu.kernels import matmul, simd_targets
from fcn_cli.cpu.kernels.simd_targets import AVX2, AVX512, BASELINE, NEON, SimdTarget
from fcn_cli.cpu.winograd import Winograd
from fcn_cli.cpu.workspace import Workspace
from fcn_cli.inference.labels import Upsampler

from .conftest import use


@pytest.mark.parametrize(
    ("machine", "features", "best"),
    [
        ("x86_64", {"avx512f": True, "avx2": True, "fma": True}, AVX512),
        ("AMD64", {"avx512f": False, "avx2": True, "fma": True}, AVX2),
        ("x86_64", {"avx512f": False, "avx2": True, "fma": False}, BASELINE),
        ("aarch64", {"neon": True}, NEON),
        ("arm64", {}, NEON),
        ("riscv64", {}, BASELINE),
    ],
)
def test_the_best_target_that_the_processor_has(
    machine: str, features: dict[str, bool], best: SimdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(simd_targets, "host_features", lambda: features)
    simd_targets.host_target.cache_clear()
    try:
        assert simd_targets.simd_target() is best
    finally:
        monkeypatch.undo()
        simd_targets.host_target.cache_clear()


@pytest.mark.skipif(not AVX512.runs_here(), reason="needs AVX-512")
@pytest.mark.parametrize("other", [AVX2, NEON], ids=lambda target: target.name)
def test_targets_with_a_fused_multiply_add_give_the_same_bits(
    other: SimdTarget, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results(target: SimdTarget) -> list[Tensor]:
        use(target, request, monkeypatch)
        torch.manual_seed(0)
        product = torch.empty(77, 80)
        panels, bias = matmul.in_panels(torch.randn(528, 80)), matmul.filled(torch.randn(80))
        matmul.pointwise(torch.randn(77, 528), panels, bias, product, (0.0, 6.0), Workspace(), add=False)
        convolved = []
        for tile in (4, 6):
            weight, bias = torch.randn(48, 272, 3, 3).double(), torch.randn(48).double()
            convolved.append(torch.empty(20, 31, 48))
            Winograd(weight, bias, 2, tile, (0.0, None))(torch.randn(20, 31, 272), convolved[-1], Workspace())
        return [product, *convolved, Upsampler().to_size(torch.randn(21, 9, 8), 67, 61).labels]

    for first, second in zip(results(AVX512), results(other), strict=True):
        assert torch.equal(first, second)
