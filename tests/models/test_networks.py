"""The networks are torchvision's, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import fcn_resnet50, fcn_resnet101
from torchvision.models.segmentation.fcn import FCN, FCNHead

from benchmarks.material import randomise
from fcn_cli.models.registry import BACKBONES

CLASSES = 5


def fcn_mobilenet_v2() -> nn.Module:
    """The preview, of torchvision's parts: dilated after block 13."""
    features = mobilenet_v2(weights=None).features[:18]
    features[14].conv[1][0].stride = (1, 1)
    for block in (15, 16, 17):
        features[block].conv[1][0].dilation = features[block].conv[1][0].padding = (2, 2)
    model: nn.Module = FCN(IntermediateLayerGetter(features, {"17": "out"}), FCNHead(320, CLASSES))
    return model


def torchvisions(name: str) -> nn.Module:
    if name == "mobilenet_v2":
        return fcn_mobilenet_v2()
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
