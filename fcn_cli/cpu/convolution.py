"""What a network's convolutions have in common on a CPU, and any of them by PyTorch's own operator.

Images are computed one by one, so that a result does not depend on the batch; one is a contiguous tensor of
shape (1, h, w, channels).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import Tensor

from ..models.batchnorm_folding import Folded
from .kernels.arguments import Clamp
from .workspace import Workspace

NO_CLAMP: Clamp = (None, None)
RELU: Clamp = (0.0, None)
RELU6: Clamp = (0.0, 6.0)


class Convolution(Protocol):
    """A convolution with bias and clamp; `kernel` names the kernel that computed the last image."""

    kernel: str

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result (1, h, w, channels out); it may be in the workspace, under `name`."""
        ...


class AddingConvolution(Convolution, Protocol):
    """A convolution whose result can be added to a shortcut."""

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Add the result to `residual` (of its shape) and clamp the sum; `residual` may be overwritten."""
        ...


class Layers(Protocol):
    """Makes the convolutions of a network: of our kernels or of PyTorch's, in one type.

    `dtype` is the type of activations. `fuses_clamps` says whether a clamp costs nothing where PyTorch
    computes the convolution.
    """

    dtype: torch.dtype
    fuses_clamps: bool

    def convolution(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the fastest implementation of a convolution."""
        ...

    def adding(self, folded: Folded, clamp: Clamp) -> AddingConvolution:
        """Return a 1x1 convolution without stride that adds to a shortcut."""
        ...

    def last(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the network's last layer, which computes (1, h, w, channels) in float32."""
        ...


class Direct:
    """Any convolution, by PyTorch's own kernel, in float32. The result is in `dtype`."""

    kernel = "direct"

    def __init__(self, folded: Folded, clamp: Clamp, dtype: torch.dtype = torch.float32) -> None:
        conv = folded.conv
        self._weight = folded.weight().float().contiguous(memory_format=torch.channels_last)
        self._bias = folded.bias.float()
        self._stride, self._padding = conv.stride, conv.padding
        self._dilation, self._groups = conv.dilation, conv.groups
        self._clamp = clamp
        self._dtype = dtype

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:  # noqa: ARG002
        """Return the result in new memory."""
        out = F.conv2d(
            as_batch(x).float(),
            self._weight,
            self._bias,
            self._stride,
            self._padding,
            self._dilation,
            self._groups,
        )
        return clamp_(as_image(out), self._clamp).to(self._dtype)


def as_batch(x: Tensor) -> Tensor:
    """Return a view of an image as a batch of shape (1, channels, h, w), channels-last."""
    # This order gives strides that PyTorch recognises as channels-last; otherwise it copies the image.
    return x.permute(0, 3, 1, 2)


def as_image(batch: Tensor) -> Tensor:
    """Return the image of a batch of one, contiguous, of shape (1, h, w, channels)."""
    return batch.permute(0, 2, 3, 1).contiguous()


def clamp_(x: Tensor, clamp: Clamp) -> Tensor:
    """Clamp in place."""
    low, high = clamp
    if low == 0 and high is None:
        return x.relu_()
    return x if low is None and high is None else x.clamp_(low, high)
