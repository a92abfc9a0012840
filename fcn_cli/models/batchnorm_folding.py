"""Folding a BatchNorm into the convolution before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Folded:
    """A convolution with the eval-mode BatchNorm behind it folded in, in float64.

    `bias` has shape (channels out,). The weight is computed on demand: all weights in float64 would take
    twice the network's memory.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Folded:
        """Fold `norm`, if any, into `conv`; raises TypeError for a BatchNorm without running statistics."""
        bias = (
            conv.bias.detach().double() if conv.bias is not None else torch.zeros(conv.out_channels).double()
        )
        if norm is not None:
            if norm.running_mean is None:
                raise TypeError("a BatchNorm without running statistics cannot be folded")
            bias = (bias - norm.running_mean.double()) * _scale(norm) + norm.bias.detach().double()
        return cls(conv, norm, bias)

    def weight(self) -> Tensor:
        """Return the folded weight: float64, shape (channels out, channels in / groups, height, width)."""
        weight = self.conv.weight.detach().double()
        return weight if self.norm is None else weight * _scale(self.norm)[:, None, None, None]

    def without_bias(self) -> Folded:
        """Return the same convolution with a zero bias, for a caller that adds the bias elsewhere."""
        return replace(self, bias=torch.zeros_like(self.bias))


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    variance = norm.running_var
    if variance is None:
        raise TypeError("a BatchNorm without running statistics cannot be folded")
    return norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
