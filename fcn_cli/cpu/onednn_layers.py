"""Convolutions in bfloat16 by oneDNN, as PyTorch has it: the fastest way on a CPU with AMX.

PyTorch's compiler fuses a convolution with what follows it by operators of its own. They are used here where
this version of PyTorch has them, with weights that oneDNN rearranges once; plain operators would rearrange
them for every image, and read and write every result once more for its ReLU.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import Tensor

from ..models.batchnorm_folding import Folded
from .convolution import Convolution, Direct, as_batch, as_image, clamp_
from .kernels.arguments import Clamp
from .workspace import Workspace


class OnednnLayers:
    """Makes convolutions in bfloat16, channels-last."""

    dtype = torch.bfloat16
    fuses_clamps = True

    def convolution(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return a convolution.

        With groups it has few products, and its weights stay float32: rounded, the nine of a channel would
        shift all of its pixels alike.
        """
        if folded.conv.groups > 1:
            return Direct(folded, clamp, self.dtype)
        return OnednnConvolution(folded, clamp)

    def adding(self, folded: Folded, clamp: Clamp) -> OnednnConvolution:
        """Return a convolution that adds to a shortcut."""
        return OnednnConvolution(folded, clamp)

    def last(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the network's last layer, in float32."""
        return Direct(folded, clamp)


class OnednnConvolution:
    """A convolution with bias and clamp; its sums are float32, its result is rounded once."""

    kernel = "onednn"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        conv = folded.conv
        self._geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._clamp = clamp
        self._bias = folded.bias.float()
        # Not every operator takes a float32 bias.
        self._narrow_bias = folded.bias.bfloat16()
        self._weight = folded.weight().bfloat16().contiguous(memory_format=torch.channels_last)
        self._operators = _fused_operators()
        if self._operators is not None:
            self._weight = self._operators._reorder_convolution_weight(self._weight, *self._geometry)

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:  # noqa: ARG002
        """Return the result in new memory."""
        batch = as_batch(x).bfloat16()
        if self._operators is None:
            return clamp_(as_image(self._convolve(batch)), self._clamp)
        out: Tensor = self._operators._convolution_pointwise(
            batch, self._weight, self._bias, *self._geometry, *self._fused_clamp()
        )
        return as_image(out)

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:  # noqa: ARG002
        """Add the result to `residual` (of its shape), and clamp the sum, in place."""
        if self._operators is None:
            residual += as_image(self._convolve(as_batch(x)))
            return clamp_(residual, self._clamp)
        self._operators._convolution_pointwise_.binary(
            as_batch(residual),
            as_batch(x),
            self._weight,
            self._narrow_bias,
            *self._geometry,
            "add",
            1.0,
            *self._fused_clamp(),
        )
        return residual

    def _convolve(self, batch: Tensor) -> Tensor:
        padding, stride, dilation, groups = self._geometry
        return F.conv2d(batch, self._weight, self._narrow_bias, stride, padding, dilation, groups)

    def _fused_clamp(self) -> tuple[str, list[float], str]:
        """Return oneDNN's name of the clamp, its limits, and its algorithm."""
        low, high = self._clamp
        if low is None and high is None:
            return "none", [], ""
        if low == 0 and high is None:
            return "relu", [], ""
        return "hardtanh", [_limit(low, -1), _limit(high, 1)], ""


def _limit(value: float | None, sign: int) -> float:
    return sign * torch.finfo(torch.float32).max if value is None else value


@functools.lru_cache(maxsize=1)
def _fused_operators() -> Any:
    """Return the namespace of PyTorch's fused operators, or None where it lacks what is used of them here.

    They have no documentation that promises anything, so they are tried on a pixel.
    """
    operators = torch.ops.mkldnn
    pixel, bias = torch.zeros(1, 32, 1, 1, dtype=torch.bfloat16), torch.zeros(32)
    geometry: tuple[object, ...] = ((0, 0), (1, 1), (1, 1), 1)
    clamp: tuple[object, ...] = ("relu", [], "")
    try:
        weight = operators._reorder_convolution_weight(pixel.expand(32, 32, 1, 1).contiguous(), *geometry)
        operators._convolution_pointwise(pixel, weight, bias, *geometry, *clamp)
        operators._convolution_pointwise_.binary(
            pixel.clone(), pixel, weight, bias.bfloat16(), *geometry, "add", 1.0, *clamp
        )
    except (AttributeError, RuntimeError, TypeError):
        return None
    return operators
