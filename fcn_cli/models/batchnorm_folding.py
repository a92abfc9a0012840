"""Folding a BatchNorm into the convolution before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

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


class ActivatedConv(NamedTuple):
    """A folded convolution, and the type of the activation behind it, or None."""

    conv: Folded
    activation: type[nn.Module] | None


def fold_chain(modules: Iterable[nn.Module]) -> list[ActivatedConv]:
    """Fold each convolution of a chain with the BatchNorm that follows it, and find its activation.

    Parameters
    ----------
    modules
        Modules in the order in which data passes them; those that have children are passed over.

    Raises
    ------
    TypeError
        Something else is in the chain than convolutions, BatchNorm, ReLU, ReLU6 and dropout.
    """
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d | None, type[nn.Module] | None]] = []
    for module in modules:
        if isinstance(module, nn.Conv2d):
            found.append((module, None, None))
        elif isinstance(module, nn.BatchNorm2d) and found and found[-1][1] is None:
            found[-1] = (found[-1][0], module, None)
        elif type(module) in {nn.ReLU, nn.ReLU6} and found:
            found[-1] = (*found[-1][:2], type(module))
        elif not isinstance(module, nn.Dropout) and not any(True for _ in module.children()):
            raise TypeError(f"a {type(module).__name__} is not supported in a chain of convolutions")
    return [ActivatedConv(Folded.of(conv, norm), activation) for conv, norm, activation in found]
