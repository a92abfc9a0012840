"""Float32 matrix products by the faster of the two libraries that PyTorch has for them on a CPU.

PyTorch gives products to MKL, which uses AVX-512 on Intel's processors only: on AMD's it computes at half
the rate of oneDNN, PyTorch's library for convolutions, which asks what the processor has, not who made it.
Which library leads is decided once, by what the processor is, never by a timing.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from . import machine
from .workspace import Workspace


@functools.lru_cache(maxsize=1)
def onednn_leads() -> bool:
    """Say whether oneDNN multiplies faster than MKL on this processor, and as exactly."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and not machine.is_intel() and is_exact()


def batched(left: Tensor, right: Tensor, out: Tensor, space: Workspace, *, add: bool = False) -> None:
    """Multiply matrices pair by pair into `out`, or with `add` onto it.

    Parameters
    ----------
    left, right
        float32, shapes (matrices, n, k) and (matrices, k, m), the last stride 1; `right` contiguous.
    out
        float32, shape (matrices, n, m), contiguous.
    space
        For a copy of `left`: oneDNN does best on whole matrices.
    """
    if not onednn_leads():
        _multiply(left, right, out, add=add)
        return
    whole = space.take("left", *left.shape)
    whole.copy_(left)
    with _by_onednn():
        _multiply(whole, right, out, add=add)


def single(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Multiply two float32 matrices into `out`, on the device they are on."""
    with _by_onednn() if left.device.type == "cpu" and onednn_leads() else contextlib.nullcontext():
        torch.mm(left, right, out=out)


def _multiply(left: Tensor, right: Tensor, out: Tensor, *, add: bool) -> None:
    if add:
        torch.baddbmm(out, left, right, out=out)
    else:
        torch.bmm(left, right, out=out)


@contextlib.contextmanager
def _by_onednn() -> Iterator[None]:
    # PyTorch hands float32 products to oneDNN only where they may be rounded to bfloat16. oneDNN makes use of
    # that with AMX only, which is Intel's; `is_exact` holds it to that.
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # its type stubs lack it
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def is_exact() -> bool:
    """Say whether oneDNN, asked for products as here, keeps all of float32's digits.

    The test is a number near 1 that bfloat16 and TF32 do not have.
    """
    size = 256
    value = 1 + 2.0**-20
    left, right = torch.full((2, size, size), value), torch.eye(size).expand(2, -1, -1).contiguous()
    out = torch.empty_like(left)
    with _by_onednn():
        torch.bmm(left, right, out=out)
        exact = bool((out == value).all())
        torch.mm(left[0], right[0], out=out[0])
    return exact and bool((out[0] == value).all())
