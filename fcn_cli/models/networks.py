"""The networks, with torchvision's names and order of parameters, so that its checkpoints fit.

A run does without torchvision itself: its models import PyTorch's compiler, which takes longer to import than
the rest of PyTorch. A network maps normalised images, shape (images, 3, h, w), to logits, shape (images,
classes, h / stride, w / stride) rounded up; it has no auxiliary head.
"""

# The parts are torchvision's (https://github.com/pytorch/vision, BSD-3-Clause; models/resnet.py,
# models/mobilenetv2.py, models/segmentation/fcn.py), of these papers: Long, Shelhamer and Darrell 2015
# (arXiv:1411.4038), He et al. 2016 (arXiv:1512.03385), Sandler et al. 2018 (arXiv:1801.04381), Tan and Le
# 2019 (arXiv:1905.11946). EfficientNet-Lite0 is theirs without squeeze-and-excitation, and with ReLU6.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override


class Bottleneck(nn.Module):
    """A residual block of convolutions 1x1, 3x3 and 1x1; the last one has 4 x `planes` channels.

    `downsample` is the shortcut where the shape changes; the block's stride is in its 3x3 convolution.
    """

    def __init__(
        self,
        channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Sequential | None = None,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    @override
    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        result: Tensor = self.relu(self.bn3(self.conv3(x)).add_(shortcut))
        return result


class InvertedResidual(nn.Module):
    """A wide depthwise convolution of `size` x `size` between a widening and a narrowing 1x1 convolution."""

    def __init__(
        self,
        channels: int,
        width: int,
        result: int,
        size: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        adds: bool,
    ) -> None:
        super().__init__()
        widening = [_activated(channels, width, 1)] if width > channels else []
        self.conv = nn.Sequential(
            *widening,
            _activated(width, width, size, stride, dilation, groups=width),
            nn.Conv2d(width, result, 1, bias=False),
            nn.BatchNorm2d(result),
        )
        self.use_res_connect = adds

    @override
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return x + result if self.use_res_connect else result


def _activated(
    channels: int, result: int, size: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        channels, result, size, stride, size // 2 * dilation, dilation=dilation, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(result), nn.ReLU6(inplace=True))


def fcn_resnet(blocks: Sequence[int], classes: int) -> nn.Sequential:
    """Return an FCN over a ResNet with so many bottlenecks in each stage; its stride is 8.

    The last two stages are dilated instead of strided.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = 64
    # A stage's first block has the dilation of the stage before.
    settings = ((64, 1, 1, 1), (128, 2, 1, 1), (256, 1, 1, 2), (512, 1, 2, 4))
    for number, (count, (planes, stride, first, dilation)) in enumerate(
        zip(blocks, settings, strict=True), 1
    ):
        result = 4 * planes
        shortcut = nn.Sequential(nn.Conv2d(channels, result, 1, stride, bias=False), nn.BatchNorm2d(result))
        parts[f"layer{number}"] = nn.Sequential(
            Bottleneck(channels, planes, stride, shortcut, first),
            *(Bottleneck(result, planes, dilation=dilation) for _ in range(1, count)),
        )
        channels = result
    return _fcn(nn.Sequential(parts), channels, classes)


def fcn_efficientnet_lite0(classes: int) -> nn.Sequential:
    """Return an FCN over EfficientNet-Lite0's features, dilated in the last two stages: its stride is 16."""
    features: list[nn.Module] = [_activated(3, 32, 3, stride=2)]
    channels = 32
    settings = (
        # size, widening, channels, blocks, stride of the first, dilation of the first and of the others
        (3, 1, 16, 1, 1, 1, 1),
        (3, 6, 24, 2, 2, 1, 1),
        (5, 6, 40, 2, 2, 1, 1),
        (3, 6, 80, 3, 2, 1, 1),
        (5, 6, 112, 3, 1, 1, 1),
        (5, 6, 192, 4, 1, 1, 2),
        (3, 6, 320, 1, 1, 2, 2),
    )
    for size, widening, result, count, stride, first, dilation in settings:
        width = widening * channels
        features.append(InvertedResidual(channels, width, result, size, stride, first, adds=False))
        for _ in range(1, count):
            features.append(InvertedResidual(result, widening * result, result, size, 1, dilation, adds=True))
        channels = result
    return _fcn(nn.Sequential(*features), channels, classes)


def _fcn(backbone: nn.Sequential, channels: int, classes: int) -> nn.Sequential:
    head = nn.Sequential(
        nn.Conv2d(channels, channels // 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels // 4),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(channels // 4, classes, 1),
    )
    return nn.Sequential(OrderedDict(backbone=backbone, classifier=head))
