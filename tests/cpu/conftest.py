"""What the tests of single kernels share: every instruction set, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from fcn_cli.cpu.kernels import arguments, simd_targets
from fcn_cli.cpu.kernels.compiler import Kernel
from fcn_cli.cpu.kernels.simd_targets import AVX512_BF16, NEON, SIMD_TARGETS, SimdTarget

from . import arm

FLOAT32_TARGETS = [target for target in SIMD_TARGETS if target is not AVX512_BF16]
"""AVX512_BF16 differs from AVX512 in bfloat16 only, where the latter computes the same in float32."""


@pytest.fixture(scope="session")
def arm_processor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[arm.Processor]:
    """Return an ARM processor in emulation."""
    processor = arm.Processor(tmp_path_factory.mktemp("arm"))
    yield processor
    processor.close()


def _on_arm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have kernels run on ARM: this machine, or one in emulation."""
    if NEON.runs_here():
        return
    if reason := arm.missing():
        pytest.skip(reason)
    processor: arm.Processor = request.getfixturevalue("arm_processor")
    monkeypatch.setattr(arguments, "data_pointer", processor.data_pointer)
    monkeypatch.setattr(
        Kernel, "task", lambda kernel, items, **values: processor.task(kernel, items, **values)
    )


def use(target: SimdTarget, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    """Build kernels for a target.

    One that this processor has is compiled for its own instructions only; one that it lacks is lowered to
    what there is. NEON is not: it runs on ARM.
    """
    monkeypatch.setattr(simd_targets, "simd_target", lambda: target)
    if target is NEON:
        _on_arm(request, monkeypatch)
    return target


@pytest.fixture(params=FLOAT32_TARGETS, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    """Build kernels for every target."""
    return use(request.param, request, monkeypatch)


@pytest.fixture(params=SIMD_TARGETS, ids=lambda target: target.name)
def bf16_target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    """Build kernels for bfloat16 for every target: with its instructions where the processor has them."""
    if request.param.multiplies_bf16 and not request.param.runs_here():
        pytest.skip("this processor has no AVX512_BF16; the other targets have the same kernels without it")
    return use(request.param, request, monkeypatch)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
