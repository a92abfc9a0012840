"""An FCN in its fastest CPU form, in float32 or bfloat16.

It is built once from a loaded model: BatchNorm is folded in float64, images are channels-last throughout, and
the convolution that computes a residual block's last layer adds the shortcut. The network's last layer is
float32 in any case: logits in bfloat16 are often equal, and then the lower class wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..models.batchnorm_folding import Folded, fold_chain
from ..models.networks import Bottleneck, InvertedResidual
from .convolution import (
    NO_CLAMP,
    RELU,
    RELU6,
    Convolution,
    Direct,
    Layers,
    as_batch,
    as_image,
)
from .kernels.arguments import Clamp
from .workspace import Workspace


class Block(Protocol):
    """A part of the network: maps the features of an image to the next features."""

    @property
    def layers(self) -> Sequence[Convolution]:
        """The block's convolutions."""
        ...

    def __call__(self, x: Tensor, space: Workspace) -> Tensor:
        """Return features of shape (1, h, w, channels); `x` may be overwritten."""
        ...


class CpuNetwork:
    """An FCN on a CPU.

    It has one workspace: only one thread at a time may use it; `Engine` holds a lock.

    Parameters
    ----------
    model
        A network of `models.networks`, in eval mode, float32, on the CPU. It is not changed and not needed
        afterwards.
    layers
        Makes the convolutions; without it, our compiled ones in float32.

    Raises
    ------
    TypeError
        The model has layers that are not supported.
    """

    def __init__(self, model: nn.Module, layers: Layers | None = None) -> None:
        self._space = Workspace()
        self._layers = layers or _compiled_layers()
        self._blocks: list[Block] = [
            *_backbone_blocks(model.get_submodule("backbone"), self._layers),
            _Head(model.get_submodule("classifier"), self._layers),
        ]

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the logits of normalised images.

        Parameters
        ----------
        batch
            float32, shape (images, 3, h, w), any memory format.

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, channels-last.
        """
        images = torch.split(batch.permute(0, 2, 3, 1), 1)
        return torch.cat([self._forward(image) for image in images]).permute(0, 3, 1, 2)

    def kernels(self) -> dict[str, int]:
        """Return the kernels that computed the last image, each with its number of layers."""
        return dict(Counter(layer.kernel for block in self._blocks for layer in block.layers).most_common())

    @property
    def workspace_bytes(self) -> int:
        """The size of the workspace in bytes."""
        return self._space.nbytes()

    def _forward(self, image: Tensor) -> Tensor:
        x = image.contiguous()
        for block in self._blocks:
            x = block(x, self._space)
        # The next image overwrites the workspace.
        return x.clone()


def _compiled_layers() -> Layers:
    # Imported here: it loads llvmlite, which PyTorch's own kernels do not need.
    from .layers import CompiledLayers

    return CompiledLayers()


def _backbone_blocks(backbone: nn.Module, layers: Layers) -> Iterator[Block]:
    parts = dict(backbone.named_children())
    if "conv1" in parts:
        yield _Stem(parts["conv1"], parts["bn1"], parts["relu"], parts["maxpool"], layers)
        stages = [parts[f"layer{number}"] for number in range(1, 5)]
        parts = {
            f"{i}.{name}": block for i, stage in enumerate(stages) for name, block in stage.named_children()
        }
    # Two buffers alternate: a block reads its input until its result is complete.
    turn = 0
    for part in parts.values():
        if isinstance(part, Bottleneck):
            turn += part.downsample is not None
            yield _Bottleneck(part, f"features{turn % 2}", layers)
        else:
            turn += 1
            yield _Chain(part, f"features{turn % 2}", layers)


class _Stem:
    """A ResNet's first layers. Bias and ReLU commute with max-pooling, and on its output cost a quarter."""

    def __init__(
        self, conv: nn.Module, norm: nn.Module, activation: nn.Module, pool: nn.Module, layers: Layers
    ) -> None:
        ((folded, clamp),) = _folded([conv, norm, activation])
        if clamp != RELU or not isinstance(pool, nn.MaxPool2d):
            raise TypeError("the stem is not a convolution, BatchNorm, ReLU and max-pooling")
        self._dtype = layers.dtype
        self._bias = None if layers.fuses_clamps else folded.bias.float()
        self._conv: Convolution
        if layers.fuses_clamps:
            self._conv = layers.convolution(folded, RELU)
        else:
            self._conv = Direct(folded.without_bias(), NO_CLAMP)
        self._pool = pool
        self.layers = [self._conv]

    def __call__(self, x: Tensor, space: Workspace) -> Tensor:
        features = as_image(self._pool(as_batch(self._conv(x, space, "stem"))))
        if self._bias is not None:
            features += self._bias
            features.relu_()
        return features.to(self._dtype)


class _Bottleneck:
    """1x1, 3x3 and 1x1 convolutions; the last matrix product adds to the shortcut in place."""

    def __init__(self, block: Bottleneck, name: str, layers: Layers) -> None:
        (first, _), (second, _), (third, _) = _folded(
            [block.conv1, block.bn1, block.conv2, block.bn2, block.conv3, block.bn3]
        )
        self._name = name
        # Memory of its own for features of a larger size: else zeros around them would be written each time.
        self._inner = "inner0" if block.stride == 1 else "inner0 before the stride"
        self._shortcut: Convolution | None = None
        if block.downsample is not None:
            ((shortcut, _),) = _folded(block.downsample.modules())
            # Add both biases at once.
            third = replace(third, bias=third.bias + shortcut.bias)
            self._shortcut = layers.convolution(shortcut.without_bias(), NO_CLAMP)
        self._first, self._second = layers.convolution(first, RELU), layers.convolution(second, RELU)
        self._third = layers.adding(third, RELU)
        self.layers = [layer for layer in (self._first, self._second, self._third, self._shortcut) if layer]

    def __call__(self, x: Tensor, space: Workspace) -> Tensor:
        inner = self._second(self._first(x, space, self._inner), space, "inner1")
        features = x if self._shortcut is None else self._shortcut(x, space, self._name)
        return self._third.add_to(features, inner, space)


class _Chain:
    """A sequence of convolutions; adds the shortcut where an `InvertedResidual` has one."""

    def __init__(self, part: nn.Module, name: str, layers: Layers) -> None:
        self.layers = [layers.convolution(folded, clamp) for folded, clamp in _folded(part.modules())]
        self._names = [f"inner{index % 2}" for index in range(len(self.layers) - 1)] + [name]
        self._residual = isinstance(part, InvertedResidual) and part.use_res_connect

    def __call__(self, x: Tensor, space: Workspace) -> Tensor:
        features = x
        for layer, name in zip(self.layers, self._names, strict=True):
            features = layer(features, space, name)
        return features.add_(x) if self._residual else features


class _Head:
    """The classifier: convolutions, of which the last one computes logits in float32."""

    def __init__(self, part: nn.Module, layers: Layers) -> None:
        *inner, (last, clamp) = _folded(part.modules())
        self.layers = [*(layers.convolution(*each) for each in inner), layers.last(last, clamp)]

    def __call__(self, x: Tensor, space: Workspace) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, space, f"inner{index % 2}")
        return x


_CLAMPS: dict[type[nn.Module] | None, Clamp] = {None: NO_CLAMP, nn.ReLU: RELU, nn.ReLU6: RELU6}


def _folded(modules: Iterable[nn.Module]) -> list[tuple[Folded, Clamp]]:
    """Fold each convolution with the BatchNorm that follows it; return it with the clamp behind both."""
    return [(folded, _CLAMPS[activation]) for folded, activation in fold_chain(modules)]
