"""Convolutions in bfloat16 by our kernels for AMX; those of other shapes by oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.batchnorm_folding import Folded
from .convolution import AddingConvolution, Convolution
from .kernels import amx
from .kernels.arguments import Clamp
from .onednn_layers import OnednnLayers
from .workspace import Workspace


class AmxLayers:
    """Makes convolutions in bfloat16 where `kernels.amx.available`."""

    dtype = torch.bfloat16
    # oneDNN may choose another algorithm for another batch.
    images_at_once = 1
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
        return AmxConvolution(folded, clamp)

    def last(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the network's last layer."""
        return PixelConvolution(self._others.last(folded, clamp))


class AmxConvolution:
    """A 1x1 convolution with any stride, or a 3x3 one without."""

    kernel = "amx"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        self._panels = amx.in_panels(folded.weight())
        self._bias = folded.bias.float()
        self._stride, self._dilation = folded.conv.stride, folded.conv.dilation[0]
        self._clamp = clamp

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        down, right = self._stride
        if (down, right) != (1, 1):
            x = x[:, ::down, ::right]
        x = as_features(x, space)
        out = amx.take_features(space, name, x.shape[1], x.shape[2], len(self._bias))
        self._convolve(x, out, space, add=False)
        return out

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Add the result to `residual` (of its shape), and clamp the sum, in place."""
        self._convolve(as_features(x, space), residual, space, add=True)
        return residual

    def _convolve(self, x: Tensor, out: Tensor, space: Workspace, *, add: bool) -> None:
        amx.convolution(
            x, self._panels, self._bias, out, self._clamp, space, dilation=self._dilation, add=add
        )


class PixelConvolution:
    """A convolution of another implementation, which takes pixels one after the other."""

    def __init__(self, convolution: Convolution) -> None:
        self._convolution = convolution
        self.kernel = convolution.kernel

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result (1, h, w, channels)."""
        return self._convolution(as_pixels(x), space, name)


def as_features(x: Tensor, space: Workspace) -> Tensor:
    """Return pixels, or features without their border, in the layout of the kernels."""
    if amx.are_features(x):
        return x
    images, height, width, channels = x.shape
    # Of 32 channels, both are the same.
    planes = x.unflatten(3, (-1, amx.DEPTH))[0].permute(2, 0, 1, 3) if images == 1 else x
    result = amx.take_features(space, "converted", height, width, len(planes) * amx.DEPTH)
    return result.copy_(planes)


def as_pixels(x: Tensor) -> Tensor:
    """Return features as an image (1, h, w, channels)."""
    return x.permute(1, 2, 0, 3).flatten(2)[None] if amx.are_features(x) else x
