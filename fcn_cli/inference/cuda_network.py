"""An FCN in the form that a GPU runs: BatchNorm folded, weights converted once.

It runs on a CPU as well, where its tests compare it with PyTorch's layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..models.batchnorm_folding import ActivatedConv, fold_chain
from ..models.networks import Bottleneck, InvertedResidual

Block = Callable[[Tensor], Tensor]


class CudaNetwork:
    """An FCN on a device, in one type of number but for its last layer, which is in float32.

    Parameters
    ----------
    model
        A network of `models.networks`, in eval mode, float32, on the CPU. It is not changed.
    device, dtype
        Where and in which type to compute.

    Raises
    ------
    TypeError
        The model has layers that are not supported.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._blocks: list[Block] = []
        with torch.inference_mode(), ieee_float32():
            for block in self._backbone(model.get_submodule("backbone")):
                self._blocks.append(block)
            *head, last = fold_chain(model.get_submodule("classifier").modules())
            self._blocks.append(self._chain(head))
            # Logits decide by small differences: they are not rounded to the narrower type.
            self._blocks.append(_Layer(last, device, torch.float32))

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the logits of normalised images: float32, shape (images, 3, h, w), best channels-last.

        They are float32, shape (images, classes, h / stride, w / stride), rounded up.
        """
        x = batch.to(self._dtype).contiguous(memory_format=torch.channels_last)
        for block in self._blocks:
            x = block(x)
        return x

    def _chain(self, layers: Iterable[ActivatedConv]) -> Block:
        made = [_Layer(layer, self._device, self._dtype) for layer in layers]

        def run(x: Tensor) -> Tensor:
            for layer in made:
                x = layer(x)
            return x

        return run

    def _backbone(self, backbone: nn.Module) -> Iterator[Block]:
        parts = dict(backbone.named_children())
        if "conv1" in parts:
            yield self._chain(fold_chain([parts["conv1"], parts["bn1"], parts["relu"]]))
            if not isinstance(parts["maxpool"], nn.MaxPool2d):
                raise TypeError("the stem does not end with max-pooling")
            yield parts["maxpool"]
            blocks = [block for number in range(1, 5) for block in parts[f"layer{number}"].children()]
        else:
            blocks = list(parts.values())
        for block in blocks:
            yield self._block(block)

    def _block(self, block: nn.Module) -> Block:
        if isinstance(block, Bottleneck):
            return self._bottleneck(block)
        chain = self._chain(fold_chain(block.modules()))
        if isinstance(block, InvertedResidual) and block.use_res_connect:
            return lambda x: chain(x).add_(x)
        return chain

    def _bottleneck(self, block: Bottleneck) -> Block:
        convolutions = ((block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3))
        # The last ReLU comes after the shortcut, which is added by the third convolution.
        first, second, third = fold_chain(m for pair in convolutions for m in (*pair, block.relu))
        inner = self._chain([first, second])
        last = _Layer(third, self._device, self._dtype)
        shortcut = (
            self._chain(fold_chain(block.downsample.modules())) if block.downsample is not None else None
        )
        return lambda x: last(inner(x), x if shortcut is None else shortcut(x))


class _Layer:
    """A convolution, its bias, a shortcut where it is called with one, and an activation."""

    def __init__(self, layer: ActivatedConv, device: torch.device, dtype: torch.dtype) -> None:
        conv = layer.conv.conv
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise TypeError(f"padding {conv.padding_mode} {conv.padding} is not supported")
        self._activate = _activation(layer.activation)
        weight = layer.conv.weight().to(device, dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = layer.conv.bias.to(device, dtype)
        self._arguments = conv.stride, conv.padding, conv.dilation, conv.groups
        self._dtype = dtype

    def __call__(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return the features, of the layer's type, for features of any type; `shortcut` is not changed."""
        features = F.conv2d(x.to(self._dtype), self._weight, self._bias, *self._arguments)
        if shortcut is not None:
            features += shortcut
        return self._activate(features)


def _activation(kind: type[nn.Module] | None) -> Callable[[Tensor], Tensor]:
    """Return an activation that may write into its argument."""
    if kind is None:
        return lambda features: features
    if kind is nn.ReLU:
        return torch.relu_
    if kind is nn.ReLU6:
        return lambda features: features.clamp_(0, 6)
    raise TypeError(f"the activation {kind.__name__} is not supported")


@contextlib.contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 without TF32 in the context; afterwards the process's settings are as they were.

    Meanwhile PyTorch's older flags, such as ``torch.backends.cudnn.allow_tf32``, cannot be read.
    """
    backends: list[Any] = [
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    ]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
