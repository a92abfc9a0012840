"""The networks are torchvision's, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.segmentation import fcn_resnet50, fcn_resnet101
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops import Conv2dNormActivation

from benchmarks.material import randomise
from fcn_cli.models.registry import BACKBONES

CLASSES = 5


def fcn_efficientnet_lite0(classes: int) -> nn.Module:
    """The preview as its card has it, of torchvision's parts."""
    features = [Conv2dNormActivation(3, 32, 3, 2, activation_layer=nn.ReLU6)]
    for channels, result, kernel, stride, dilation in (
        (32, 16, 3, 1, 1),
        (16, 24, 3, 2, 1),
        (24, 24, 3, 1, 1),
        (24, 40, 5, 2, 1),
        (40, 40, 5, 1, 1),
        (40, 80, 3, 2, 1),
        (80, 80, 3, 1, 1),
        (80, 80, 3, 1, 1),
        (80, 112, 5, 1, 1),
        (112, 112, 5, 1, 1),
        (112, 112, 5, 1, 1),
        (112, 192, 5, 1, 1),
        (192, 192, 5, 1, 2),
        (192, 192, 5, 1, 2),
        (192, 192, 5, 1, 2),
        (192, 320, 3, 1, 2),
    ):
        block = InvertedResidual(channels, result, stride, expand_ratio=6 if len(features) > 1 else 1)
        depthwise = block.conv[-3]
        depthwise[0] = nn.Conv2d(
            *(depthwise[0].in_channels, depthwise[0].out_channels, kernel, stride),
            *(dilation * (kernel // 2), dilation, depthwise[0].groups),
            bias=False,
        )
        features.append(block)
    backbone = IntermediateLayerGetter(nn.Sequential(*features), {"16": "out"})
    model: nn.Module = FCN(backbone, FCNHead(320, classes))
    return model


def torchvisions(name: str) -> nn.Module:
    if name == "efficientnet_lite0":
        return fcn_efficientnet_lite0(CLASSES)
    build = {"resnet50": fcn_resnet50, "resnet101": fcn_resnet101}[name]
    model: nn.Module = build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)
    return model


@pytest.mark.long
@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_network_is_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvisions(name)
    theirs = theirs.to_empty(device="cpu").eval()
    randomise(theirs)
    ours = BACKBONES[name].build(CLASSES).eval()
    state = theirs.state_dict()
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in state.items()
    ]
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    ours.load_state_dict(state)
    batch = torch.randn(2, 3, 65, 90, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = ours(batch)
        full = nn.functional.interpolate(logits, batch.shape[2:], mode="bilinear", align_corners=False)
        assert torch.equal(full, theirs(batch)["out"])
    assert logits.std() > 0
