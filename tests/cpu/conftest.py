"""What the tests of single kernels share: every instruction set, one after the other."""

from __future__ import annotations

import pytest

from fcn_cli.cpu.kernels import simd_targets
from fcn_cli.cpu.kernels.simd_targets import SIMD_TARGETS, SimdTarget


@pytest.fixture(params=SIMD_TARGETS, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    """Build kernels for every target.

    A target that this processor has is compiled for its own instructions only; one that the processor lacks
    is lowered to what there is.
    """
    chosen: SimdTarget = request.param
    monkeypatch.setattr(simd_targets, "simd_target", lambda: chosen)
    return chosen
