"""Convolutions on a CPU by our compiled kernels, each by the one that suits its shape best.

In bfloat16, activations are stored in 16 bits. 1x1 convolutions multiply bfloat16 and sum in float32; 3x3
convolutions widen their input and compute in float32, because there Winograd's method saves more than half
as wide numbers would, and rounding its tiles costs digits (`python -m benchmarks.minimal_filtering`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.batchnorm_folding import Folded
from .convolution import Convolution, Direct
from .kernels import matmul
from .kernels.arguments import Clamp
from .winograd import Winograd, choose_tile
from .workspace import Workspace


class CompiledLayers:
    """Makes convolutions of our kernels where they support the shape, else of PyTorch's.

    Parameters
    ----------
    dtype
        The type of activations: float32 or bfloat16.
    """

    fuses_clamps = False

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def convolution(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the fastest implementation of a convolution."""
        conv = folded.conv
        plain = conv.groups == 1 and conv.stride == (1, 1)
        if (
            plain
            and conv.kernel_size == (1, 1)
            and conv.padding == (0, 0)
            and matmul.fits(conv.in_channels, conv.out_channels, self.dtype)
        ):
            return Conv1x1(folded, clamp, self.dtype)
        same_size = conv.padding == conv.dilation and conv.dilation[0] == conv.dilation[1]
        if (
            plain
            and conv.kernel_size == (3, 3)
            and same_size
            and matmul.fits(conv.in_channels, conv.out_channels)
        ):
            return Conv3x3(folded, clamp, self.dtype)
        return Direct(folded, clamp, self.dtype)

    def adding(self, folded: Folded, clamp: Clamp) -> Conv1x1:
        """Return a 1x1 convolution without stride that adds to a shortcut."""
        return Conv1x1(folded, clamp, self.dtype)

    def last(self, folded: Folded, clamp: Clamp) -> Convolution:
        """Return the network's last layer, in float32."""
        return self.convolution(folded, clamp) if self.dtype == torch.float32 else Direct(folded, clamp)


class Conv1x1:
    """A 1x1 convolution: a matrix product over all pixels."""

    kernel = "pointwise"

    def __init__(self, folded: Folded, clamp: Clamp, dtype: torch.dtype) -> None:
        in_panels = matmul.in_bf16_panels if dtype == torch.bfloat16 else matmul.in_panels
        self._panels = in_panels(folded.weight()[:, :, 0, 0].t())
        self._out = folded.conv.out_channels
        self._bias = matmul.filled(folded.bias.float())
        self._clamp = clamp
        self._dtype = dtype

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result in the workspace."""
        out = space.take(name, *x.shape[:3], self._out, dtype=self._dtype)
        self._multiply(x, out, space, add=False)
        return out

    def add_to(self, residual: Tensor, x: Tensor, space: Workspace) -> Tensor:
        """Add the result to `residual` (of its shape), and clamp the sum, in place."""
        self._multiply(x, residual, space, add=True)
        return residual

    def _multiply(self, x: Tensor, out: Tensor, space: Workspace, *, add: bool) -> None:
        pixels, result = x.view(-1, x.shape[3]), out.view(-1, out.shape[3])
        matmul.pointwise(pixels, self._panels, self._bias, result, self._clamp, space, add=add)


class Conv3x3:
    """A 3x3 convolution with stride 1: by Winograd where that is faster, else directly.

    The choice depends on shapes only. Filters are transformed when they are first needed.
    """

    def __init__(self, folded: Folded, clamp: Clamp, dtype: torch.dtype) -> None:
        self._folded = folded
        self._clamp = clamp
        self._dtype = dtype
        self._dilation = folded.conv.dilation[0]
        self._in, self._out = folded.conv.in_channels, folded.conv.out_channels
        self._direct: Direct | None = None
        self._winograd: dict[int, Winograd] = {}
        self.kernel = ""

    def __call__(self, x: Tensor, space: Workspace, name: str) -> Tensor:
        """Return the result; it may be in the workspace."""
        tile = choose_tile(x.shape[1], x.shape[2], self._dilation, self._in, self._out)
        self.kernel = f"winograd F({tile}x{tile}, 3x3)" if tile else "direct"
        if tile is None:
            self._direct = self._direct or Direct(self._folded, self._clamp, self._dtype)
            return self._direct(x, space, name)
        if tile not in self._winograd:
            self._winograd[tile] = Winograd(
                self._folded.weight(), self._folded.bias, self._dilation, tile, self._clamp
            )
        out = space.take(name, *x.shape[:3], self._out, dtype=self._dtype)
        self._winograd[tile](x[0], out[0], space)
        return out
