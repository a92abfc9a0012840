"""Convolutions with BatchNorm folded in, in the type that a GPU computes in, fused where that is right."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..models.batchnorm_folding import ActivatedConv, Folded
from . import device_errors

_CHECK_SIDE = 13
_CHECK_IMAGES = 2
# cuDNN's fused kernels were much slower than two steps for larger filters in channels-last order
# (https://github.com/pytorch/pytorch/issues/68506).
_LARGEST_FUSED_KERNEL = 3

Arguments = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Stride, padding, dilation and groups."""


class FoldedLayer:
    """A convolution, its bias, a shortcut where it is called with one, and an activation.

    The weights are converted once. With ReLU, PyTorch has operators of cuDNN that do it all in one pass. They
    are checked against the plain operators, in this layer's type and on its device, and used only where they
    are no less exact.

    Parameters
    ----------
    layer
        The convolution with its BatchNorm, and its activation.
    device, dtype
        Where and in which type to compute.
    has_shortcut
        Whether the layer is called with a shortcut.

    Raises
    ------
    TypeError
        The convolution does not pad with zeros, or the activation is unknown.
    """

    def __init__(
        self, layer: ActivatedConv, device: torch.device, dtype: torch.dtype, *, has_shortcut: bool = False
    ) -> None:
        conv = layer.conv.conv
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise TypeError(f"padding {conv.padding_mode} {conv.padding} is not supported")
        self._activate = _activation(layer.activation)
        weight = layer.conv.weight().to(device, dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = layer.conv.bias.to(device, dtype)
        self._arguments: Arguments = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self._dtype = dtype
        self.is_fused = False
        if layer.activation is nn.ReLU and max(conv.kernel_size) <= _LARGEST_FUSED_KERNEL:
            self.is_fused = self._is_fused_right(has_shortcut=has_shortcut)

    def __call__(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return the features, of the layer's type, for features of any type; `shortcut` is not changed."""
        x = x.to(self._dtype)
        return self._fused(x, shortcut) if self.is_fused else self._plain(x, shortcut)

    def _fused(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        if shortcut is None:
            return torch.cudnn_convolution_relu(x, self._weight, self._bias, *self._arguments)
        return torch.cudnn_convolution_add_relu(x, self._weight, shortcut, 1.0, self._bias, *self._arguments)

    def _plain(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        features = F.conv2d(x, self._weight, self._bias, *self._arguments)
        if shortcut is not None:
            features += shortcut
        return self._activate(features)

    def _is_fused_right(self, *, has_shortcut: bool) -> bool:
        """Compare both ways with the plain one in float32, on features of a small size."""
        device, channels = self._weight.device, self._weight.shape[1] * self._arguments[-1]
        generator = torch.Generator().manual_seed(0)

        def features(channels: int, *size: int) -> Tensor:
            values = torch.randn(_CHECK_IMAGES, channels, *size, generator=generator)
            return values.to(device, self._dtype).contiguous(memory_format=torch.channels_last)

        x = features(channels, _CHECK_SIDE, _CHECK_SIDE + 4)
        shortcut = None
        try:
            plain = self._plain(x, None)
            if has_shortcut:
                shortcut = features(plain.shape[1], *plain.shape[2:])
                plain = self._plain(x, shortcut)
            fused = self._fused(x, shortcut)
        except (RuntimeError, NotImplementedError) as error:
            if device_errors.is_lost_device(error, device) or device_errors.is_out_of_memory(error):
                raise
            return False
        exact = self._exact(x, shortcut)
        if fused.shape != plain.shape or fused.dtype != plain.dtype:
            return False
        scale = torch.finfo(self._dtype).eps * float(exact.abs().max())
        allowed = 2 * float((plain.float() - exact).abs().max()) + scale
        # A NaN compares as False.
        return float((fused.float() - exact).abs().max()) <= allowed

    def _exact(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        features = F.conv2d(x.float(), self._weight.float(), self._bias.float(), *self._arguments)
        if shortcut is not None:
            features += shortcut.float()
        return self._activate(features)


def plain_layer(layer: Folded, device: torch.device, dtype: torch.dtype) -> FoldedLayer:
    """Return a convolution without an activation."""
    return FoldedLayer(ActivatedConv(layer, None), device, dtype)


def _activation(kind: type[nn.Module] | None) -> Callable[[Tensor], Tensor]:
    """Return an activation that may write into its argument."""
    if kind is None:
        return lambda features: features
    if kind is nn.ReLU:
        return torch.relu_
    if kind is nn.ReLU6:
        return lambda features: features.clamp_(0, 6)
    raise TypeError(f"the activation {kind.__name__} is not supported")
