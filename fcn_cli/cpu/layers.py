"""Convolutions on a CPU, in float32 and channels-last, each by the kernel that suits its shape best.

An image is a contiguous tensor of shape (h, w, channels). The images of a batch are computed one by one: so
the result of one does not depend on the others, not even in the last bit, and memory does not grow with the
batch.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import Tensor

from ..models.batchnorm_folding import Folded
from . import cost_model
from .kernels import matmul
from .kernels.arguments import Clamp
from .winograd import Winograd
from .workspace import Workspace

NO_CLAMP: Clamp = (None, None)
RELU: Clamp = (0.0, None)
RELU6: Clamp = (0.0, 6.0)


class Convolution(Protocol):
    """A convolution with bias and clamp; `kernel` names the kernel that computed the last image."""

    kernel: str

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result (h, w, channels out) for one image; it may be in the workspace, under `name`."""
        ...


def convolution(folded: Folded, clamp: Clamp) -> Convolution:
    """Return the fastest implementation of a convolution."""
    conv = folded.conv
    supported = (
        conv.groups == 1 and conv.stride == (1, 1) and matmul.fits(conv.in_channels, conv.out_channels)
    )
    if supported and conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        return Conv1x1(folded, clamp)
    same_size = conv.padding == conv.dilation and conv.dilation[0] == conv.dilation[1]
    if supported and conv.kernel_size == (3, 3) and same_size:
        return Conv3x3(folded, clamp)
    return Direct(folded, clamp)


class Conv1x1:
    """A 1x1 convolution: a matrix product over all pixels."""

    kernel = "pointwise"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        self._panels = matmul.in_panels(folded.weight()[:, :, 0, 0].t())
        self._out = folded.conv.out_channels
        self._bias = matmul.filled(folded.bias.float())
        self._clamp = clamp

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        out = space.take(name, x.shape[0], x.shape[1], self._out)
        self._multiply(x, out, space, add=False)
        return out

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> None:
        """Add the result to `residual` (of its shape), and clamp the sum."""
        self._multiply(x, residual, space, add=True)

    def _multiply(self, x: Tensor, out: Tensor, space: Workspace, *, add: bool) -> None:
        pixels, result = x.view(-1, x.shape[2]), out.view(-1, out.shape[2])
        matmul.pointwise(pixels, self._panels, self._bias, result, self._clamp, space, add=add)


class Direct:
    """Any convolution, by PyTorch's own kernel."""

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        conv = folded.conv
        self._weight = folded.weight().float().contiguous(memory_format=torch.channels_last)
        self._bias = folded.bias.float()
        self._stride, self._padding = conv.stride, conv.padding
        self._dilation, self._groups = conv.dilation, conv.groups
        self._clamp = clamp

    kernel = "direct"

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:  # noqa: ARG002
        """Return the result in new memory."""
        out = F.conv2d(
            as_batch(x),
            self._weight,
            self._bias,
            self._stride,
            self._padding,
            self._dilation,
            self._groups,
        )
        return clamp_(as_image(out), self._clamp)


class Conv3x3:
    """A 3x3 convolution with stride 1: by Winograd where that is faster, else directly.

    The choice depends on shapes only. Filters are transformed when they are first needed.
    """

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        self._folded = folded
        self._clamp = clamp
        self._dilation = folded.conv.dilation[0]
        self._in, self._out = folded.conv.in_channels, folded.conv.out_channels
        self._direct: Direct | None = None
        self._winograd: dict[int, Winograd] = {}
        self.kernel = ""

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result; it may be in the workspace."""
        tile = cost_model.choose_tile(x.shape[0], x.shape[1], self._dilation, self._in, self._out)
        self.kernel = f"winograd F({tile}x{tile}, 3x3)" if tile else "direct"
        if tile is None:
            self._direct = self._direct or Direct(self._folded, self._clamp)
            return self._direct(x, space, name)
        if tile not in self._winograd:
            self._winograd[tile] = Winograd(
                self._folded.weight(), self._folded.bias, self._dilation, tile, self._clamp
            )
        out = space.take(name, x.shape[0], x.shape[1], self._out)
        self._winograd[tile](x, out, space)
        return out


def as_batch(x: Tensor) -> Tensor:
    """Return a view of an image as a batch of shape (1, channels, h, w), channels-last."""
    # This order gives strides that PyTorch recognises as channels-last; otherwise it copies the image.
    return x.unsqueeze(0).permute(0, 3, 1, 2)


def as_image(batch: Tensor) -> Tensor:
    """Return the only image of a batch, contiguous, of shape (h, w, channels)."""
    return batch[0].permute(1, 2, 0).contiguous()


def clamp_(x: Tensor, clamp: Clamp) -> Tensor:
    """Clamp in place."""
    low, high = clamp
    if low == 0 and high is None:
        return x.relu_()
    return x if low is None and high is None else x.clamp_(low, high)
