"""What a network's convolutions have in common on a CPU, and any of them by PyTorch's own operator.

Images are a contiguous tensor of shape (images, h, w, channels), of one or two images. The result of one does
not depend on the other, not even in the last bit: PyTorch's operators, which do not promise that, compute
image by image.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """A convolution with bias and clamp; `kernel` names the kernel that computed the last images."""

    kernel: str

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result (images, h, w, channels out); it may be in the workspace, under `name`."""
        ...


class AddingConvolution(Convolution, Protocol):
    """A convolution whose result can be added to a shortcut."""

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Add the result to `residual` (of its shape) and clamp the sum; `residual` may be overwritten."""
        ...


class Layers(Protocol):
    """Makes the convolutions of a network: of our kernels or of PyTorch's, in one type.

    `dtype` is the type of activations. `images_at_once` is how many images the layers take together.
    `fuses_clamps` says whether a clamp costs nothing where PyTorch computes the convolution.
    """

    dtype: torch.dtype
    images_at_once: int
    fuses_clamps: bool

    def convolution(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the fastest implementation of a convolution."""
        ...

    def adding(self, folded: Folded, clamp: Clamp) -> AddingConvolution:
        """Return a 1x1 convolution without stride that adds to a shortcut."""
        ...

    def last(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the network's last layer, which computes (images, h, w, channels) in float32."""
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
        return image_by_image(x, self._convolve)

    def _convolve(self, image: Tensor) -> Tensor:
        out = F.conv2d(
            as_batch(image).float(),
            self._weight,
            self._bias,
            self._stride,
            self._padding,
            self._dilation,
            self._groups,
        )
        return clamp_(as_images(out), self._clamp).to(self._dtype)


def image_by_image(x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `compute` gives for each image alone, as one tensor (images, h, w, channels)."""
    if len(x) == 1:
        return compute(x)
    return torch.cat([compute(image) for image in torch.split(x, 1)])


def as_batch(x: Tensor) -> Tensor:
    """Return a view of images as a batch of shape (images, channels, h, w), channels-last."""
    # This order gives strides that PyTorch recognises as channels-last; otherwise it copies the images.
    return x.permute(0, 3, 1, 2)


def as_images(batch: Tensor) -> Tensor:
    """Return the images of a batch, contiguous, of shape (images, h, w, channels)."""
    return batch.permute(0, 2, 3, 1).contiguous()


def clamp_(x: Tensor, clamp: Clamp) -> Tensor:
    """Clamp in place."""
    low, high = clamp
    if low == 0 and high is None:
        return x.relu_()
    return x if low is None and high is None else x.clamp_(low, high)
