"""Convolutions of one image on a CPU, in float32 and channels-last, each by the kernel its shape suits best.

An image is a tensor of shape (h, w, channels), contiguous. Images of a batch go one by one: so the result
for one does not depend on its neighbours, not even in the last bit, and memory does not grow with the batch.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import Tensor

from ..models.batchnorm_folding import Folded
from . import cost_model
from .kernels import matmul
from .kernels.compiler import Clamp
from .winograd import Winograd
from .workspace import Workspace

NO_LIMITS: Clamp = (None, None)
RELU: Clamp = (0.0, None)
RELU6: Clamp = (0.0, 6.0)


class Convolution(Protocol):
    """A convolution with bias and clamp; `kernel` names how it computed the last image."""

    kernel: str

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result for one image; it may lie in the workspace, under `name`."""
        ...


def convolution(folded: Folded, limits: Clamp) -> Convolution:
    """Return the form of a convolution that computes fastest."""
    conv = folded.conv
    plain = conv.groups == 1 and conv.stride == (1, 1) and matmul.fits(conv.in_channels, conv.out_channels)
    if plain and conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        return Conv1x1(folded, limits)
    same = conv.padding == conv.dilation and conv.dilation[0] == conv.dilation[1]
    if plain and conv.kernel_size == (3, 3) and same:
        return Conv3x3(folded, limits)
    return Direct(folded, limits)


class Conv1x1:
    """A 1x1 convolution: a matrix product over all pixels."""

    kernel = "pointwise"

    def __init__(self, folded: Folded, limits: Clamp) -> None:
        self._panels = matmul.in_panels(folded.weight()[:, :, 0, 0].t())
        self._out = folded.conv.out_channels
        self._bias = matmul.filled(folded.bias.float())
        self._limits = limits

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        out = space.take(name, x.shape[0], x.shape[1], self._out)
        self._multiply(x, out, space, add=False)
        return out

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> None:
        """Add the result to `residual`, of the result's shape, before the clamp."""
        self._multiply(x, residual, space, add=True)

    def _multiply(self, x: Tensor, out: Tensor, space: Workspace, *, add: bool) -> None:
        pixels, result = x.view(-1, x.shape[2]), out.view(-1, out.shape[2])
        matmul.pointwise(pixels, self._panels, self._bias, result, self._limits, space, add=add)


class Direct:
    """Any convolution, by the library's own kernel."""

    def __init__(self, folded: Folded, limits: Clamp) -> None:
        conv = folded.conv
        self._weight = folded.weight().float().contiguous(memory_format=torch.channels_last)
        self._bias = folded.bias.float()
        self._stride, self._padding = conv.stride, conv.padding
        self._dilation, self._groups = conv.dilation, conv.groups
        self._limits = limits

    kernel = "direct"

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:  # noqa: ARG002
        """Return the result in memory of its own."""
        out = F.conv2d(
            as_batch(x),
            self._weight,
            self._bias,
            self._stride,
            self._padding,
            self._dilation,
            self._groups,
        )
        return clamp_(as_image(out), self._limits)


class Conv3x3:
    """A 3x3 convolution with stride 1: by Winograd where that is faster, else directly.

    Which of them is decided by shapes alone. Filters are transformed when a shape first asks for them.
    """

    def __init__(self, folded: Folded, limits: Clamp) -> None:
        self._folded = folded
        self._limits = limits
        self._dilation = folded.conv.dilation[0]
        self._in, self._out = folded.conv.in_channels, folded.conv.out_channels
        self._direct: Direct | None = None
        self._winograd: dict[int, Winograd] = {}
        self.kernel = ""

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result, in the workspace or not."""
        tile = cost_model.choose_tile(x.shape[0], x.shape[1], self._dilation, self._in, self._out)
        self.kernel = f"winograd F({tile}x{tile}, 3x3)" if tile else "direct"
        if tile is None:
            self._direct = self._direct or Direct(self._folded, self._limits)
            return self._direct(x, space, name)
        if tile not in self._winograd:
            self._winograd[tile] = Winograd(
                self._folded.weight(), self._folded.bias, self._dilation, tile, self._limits
            )
        out = space.take(name, x.shape[0], x.shape[1], self._out)
        self._winograd[tile](x, out, space)
        return out


def as_batch(x: Tensor) -> Tensor:
    """Return an image as PyTorch's operators know it: shape (1, channels, h, w), channels-last."""
    # In this order, for the strides: else the image is not recognised as channels-last, and is copied.
    return x.unsqueeze(0).permute(0, 3, 1, 2)


def as_image(batch: Tensor) -> Tensor:
    """Return the one image of a batch as (h, w, channels), contiguous."""
    return batch[0].permute(1, 2, 0).contiguous()


def clamp_(x: Tensor, limits: Clamp) -> Tensor:
    """Clamp in place, if there is anything to clamp to."""
    low, high = limits
    if low == 0 and high is None:
        return x.relu_()
    return x if low is None and high is None else x.clamp_(low, high)
