"""What the tests of single kernels share: every instruction set, one after the other."""

from __future__ import annotations

import pytest

from fcn_cli.cpu.kernels import simd_targets
from fcn_cli.cpu.kernels.simd_targets import AVX512_BF16, SIMD_TARGETS, SimdTarget

FLOAT32_TARGETS = [target for target in SIMD_TARGETS if target is not AVX512_BF16]
"""AVX512_BF16 differs from AVX512 in bfloat16 only, where the latter computes the same in float32."""


@pytest.fixture(params=FLOAT32_TARGETS, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    """Build kernels for every target.

    A target that this processor has is compiled for its own instructions only; one that the processor lacks
    is lowered to what there is.
    """
    chosen: SimdTarget = request.param
    monkeypatch.setattr(simd_targets, "simd_target", lambda: chosen)
    return chosen


@pytest.fixture(params=SIMD_TARGETS, ids=lambda target: target.name)
def bf16_target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    """Build kernels for bfloat16 for every target: with its instructions where the processor has them."""
    chosen: SimdTarget = request.param
    if chosen.multiplies_bf16 and not chosen.runs_here():
        pytest.skip("this processor has no AVX512_BF16; the other targets have the same kernels without it")
    monkeypatch.setattr(simd_targets, "simd_target", lambda: chosen)
    return chosen
