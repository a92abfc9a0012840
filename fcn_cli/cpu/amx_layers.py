"""Convolutions in bfloat16 by our kernels for AMX; those of other shapes by oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.batchnorm_folding import Folded
from .convolution import AddingConvolution, Convolution
from .kernels import amx
from .kernels.amx import BLOCK
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
        if conv.groups == 1 and amx.fits(conv.in_channels, conv.out_channels):
            same_size = conv.padding == conv.dilation and conv.dilation[0] == conv.dilation[1]
            if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
                return AmxConv1x1(folded, clamp)
            if conv.kernel_size == (3, 3) and conv.stride == (1, 1) and same_size:
                return AmxConv3x3(folded, clamp)
        return self._others.convolution(folded, clamp)

    def adding(self, folded: Folded, clamp: Clamp) -> AddingConvolution:
        """Return a 1x1 convolution without stride that adds to a shortcut."""
        if amx.fits(folded.conv.in_channels, folded.conv.out_channels):
            return AmxConv1x1(folded, clamp)
        return self._others.adding(folded, clamp)


class AmxConv1x1:
    """A 1x1 convolution."""

    kernel = "amx"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        self._panels = amx.in_panels(folded.weight())
        self._bias = folded.bias.float()
        self._stride = folded.conv.stride
        self._clamp = clamp

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        down, right = self._stride
        x = x[:, ::down, ::right].contiguous()
        out = space.take(name, *x.shape[:3], len(self._bias), dtype=torch.bfloat16)
        self._multiply(x, out, space, add=False)
        return out

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Add the result to `residual` (of its shape), and clamp the sum, in place."""
        self._multiply(x, residual, space, add=True)
        return residual

    def _multiply(self, x: Tensor, out: Tensor, space: Workspace, *, add: bool) -> None:
        pixels, result = x.flatten(0, 2), out.view(1, -1, out.shape[3])
        if len(pixels) < BLOCK:
            pixels = torch.cat([pixels, pixels.new_zeros(BLOCK - len(pixels), pixels.shape[1])])
        amx.convolution(pixels, self._panels, self._bias, result, self._clamp, space, add=add)


class AmxConv3x3:
    """A 3x3 convolution with stride 1."""

    kernel = "amx"

    def __init__(self, folded: Folded, clamp: Clamp) -> None:
        self._panels = amx.in_panels(folded.weight())
        self._bias = folded.bias.float()
        self._dilation = folded.conv.dilation[0]
        self._clamp = clamp

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        out = space.take(name, *x.shape[:3], len(self._bias), dtype=torch.bfloat16)
        for image, result in zip(x, out, strict=True):
            positions = amx.padded(image, self._dilation, space)
            amx.convolution(
                positions, self._panels, self._bias, result, self._clamp, space, dilation=self._dilation
            )
        return out
