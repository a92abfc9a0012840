"""Convolutions in bfloat16 by our kernels for AMX; those of other shapes by oneDNN.

Between our kernels, features are in their layout (`kernels.amx.take_features`); for oneDNN, which
takes pixels one after the other, they are rearranged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..models.batchnorm_folding import Folded
from ..models.networks import Bottleneck
from .convolution import AddingConvolution, Convolution, Layers
from .kernels import amx
from .kernels.amx import BLOCK, DEPTH
from .kernels.arguments import Clamp
from .layers import CompiledLayers
from .onednn_layers import OnednnLayers
from .workspace import Workspace


def fastest_layers(model: nn.Module) -> Layers:
    """Return what makes the fastest convolutions in bfloat16 for a network on this machine."""
    if not amx.available():
        return CompiledLayers(torch.bfloat16)
    if any(isinstance(module, Bottleneck) for module in model.modules()):
        return AmxLayers()
    # In other networks, features would have to be rearranged too often.
    return OnednnLayers()


class AmxLayers:
    """Makes convolutions in bfloat16 where `kernels.amx.available`."""

    dtype = torch.bfloat16
    fuses_clamps = True

    def __init__(self) -> None:
        self._others = OnednnLayers()

    def convolution(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the fastest implementation of a convolution."""
        conv = folded.conv
        dilation = conv.dilation[0]
        if conv.groups == 1 and amx.fits(conv.in_channels, conv.out_channels):
            same_size = conv.padding == conv.dilation == (dilation, dilation) and dilation <= amx.BORDER
            pointwise = conv.kernel_size == (1, 1) and conv.padding == (0, 0)
            if pointwise or (conv.kernel_size == (3, 3) and conv.stride == (1, 1) and same_size):
                return AmxConvolution(folded, clamp)
        return PixelConvolution(self._others.convolution(folded, clamp))

    def adding(self, folded: Folded, clamp: Clamp) -> AddingConvolution:
        """Return a 1x1 convolution without stride that adds to a shortcut."""
        if amx.fits(folded.conv.in_channels, folded.conv.out_channels):
            return AmxConvolution(folded, clamp)
        return AddingPixelConvolution(self._others.adding(folded, clamp))

    def last(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the network's last layer."""
        conv = folded.conv
        if conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and conv.in_channels % DEPTH == 0:
            return AmxLogits(folded, clamp)
        return PixelConvolution(self._others.last(folded, clamp))


class AmxConvolution:
    """A 1x1 convolution with any stride, or a 3x3 one without."""

    kernel = "amx"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        filters = amx.Filters(amx.in_panels(folded.weight()), folded.bias.float())
        self._convolve = amx.Convolution(filters, clamp, folded.conv.dilation[0])
        self._stride, self._channels = folded.conv.stride, folded.conv.out_channels

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        down, right = self._stride
        if (down, right) != (1, 1):
            x = x[:, ::down, ::right]
        x = as_features(x, space)
        out = amx.take_features(space, name, x.shape[1], x.shape[2], self._channels)
        self._convolve(x, out, space)
        return out

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Add the result to `residual`, in place if it is in our layout, and clamp the sum."""
        features = as_features(residual, space, "residual")
        self._convolve(as_features(x, space), features, space, add=True)
        return features


class AmxLogits:
    """A 1x1 convolution with weights and result in float32: a product for each of a weight's three parts."""

    kernel = "amx"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        self._channels = folded.conv.out_channels
        further = -self._channels % BLOCK
        self._padded_channels = self._channels + further
        weight = F.pad(folded.weight(), (0, 0, 0, 0, 0, 0, 0, further))
        bias = F.pad(folded.bias.float(), (0, further))
        self._convolve = amx.Convolution(amx.Filters(amx.in_three_panels(weight), bias), clamp)

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result (1, h, w, channels)."""
        x = as_features(x, space)
        _, height, width, _ = x.shape
        out = amx.take_features(
            space, f"{name} in float32", height, width, self._padded_channels, torch.float32
        )
        self._convolve(x, out, space)
        return as_pixels(out)[..., : self._channels]


class PixelConvolution:
    """A convolution of another implementation, which takes pixels one after the other."""

    def __init__(self, convolution: Convolution) -> None:
        self._convolution = convolution
        self.kernel = convolution.kernel

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result (1, h, w, channels)."""
        return self._convolution(as_pixels(x), space, name)


class AddingPixelConvolution(PixelConvolution):
    """The same, which adds to a shortcut."""

    def __init__(self, convolution: AddingConvolution) -> None:
        super().__init__(convolution)
        self._adding = convolution

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Return the clamped sum of the result and `residual`, (1, h, w, channels)."""
        return self._adding.add_to(as_pixels(residual), as_pixels(x), space)


def as_features(x: Tensor, space: Workspace, name: str = "converted") -> Tensor:
    """Return an image (1, h, w, channels), or planes of features, in the layout of our kernels."""
    if amx.are_features(x):
        return x
    # An image of 32 channels is a plane.
    _, height, width, last = x.shape
    planes = x.reshape(height, width, -1, DEPTH).permute(2, 0, 1, 3) if len(x) == 1 else x
    result = amx.take_features(space, name, height, width, len(x) * last)
    return result.copy_(planes)


def as_pixels(x: Tensor) -> Tensor:
    """Return features as an image (1, h, w, channels)."""
    return x.permute(1, 2, 0, 3).flatten(2)[None] if amx.are_features(x) else x
