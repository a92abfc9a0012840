"""The network's form for GPUs, on a CPU: the same layers as torchvision's."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from benchmarks.material import randomise
from fcn_cli.inference.cuda_network import CudaNetwork, ieee_float32
from fcn_cli.models.networks import Bottleneck

from ..conftest import preview_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """A ResNet in small; the last stages are dilated."""
    backbone = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(16),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        layer1=nn.Sequential(Bottleneck(16, 4), Bottleneck(16, 4)),
        layer2=nn.Sequential(narrowing(16, 8, stride=2)),
        layer3=nn.Sequential(narrowing(32, 16, dilation=2)),
        layer4=nn.Sequential(narrowing(64, 32, dilation=4)),
    )
    head = nn.Sequential(
        nn.Conv2d(128, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 21, 1)
    )
    model = nn.Sequential(OrderedDict(backbone=nn.Sequential(backbone), classifier=head)).eval()
    randomise(model)
    return model


def narrowing(channels: int, planes: int, stride: int = 1, dilation: int = 1) -> Bottleneck:
    conv = nn.Conv2d(channels, 4 * planes, 1, stride, bias=False)
    return Bottleneck(channels, planes, stride, nn.Sequential(conv, nn.BatchNorm2d(4 * planes)), dilation)


def plain(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(batch)
        return logits


def batch_of(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1))


def forward(network: CudaNetwork, batch: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(batch)


@pytest.mark.parametrize("name", ["resnet", "preview"])
def test_folded_layers_compute_what_torchvisions_do(name: str, resnet: nn.Module) -> None:
    model = resnet if name == "resnet" else preview_network().model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = batch_of(2, 3, 65, 49)
    expected = plain(model, batch)
    got = forward(CudaNetwork(model, CPU, torch.float32), batch)
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) < 1e-5 * float(expected.std()) * 10
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_only_the_last_layer_is_float32_in_a_narrower_type(dtype: torch.dtype, resnet: nn.Module) -> None:
    batch = batch_of(1, 3, 49, 65)
    expected = plain(resnet, batch)
    got = forward(CudaNetwork(resnet, CPU, dtype), batch)
    assert got.dtype == torch.float32
    assert not torch.equal(got, got.to(dtype).float())
    difference = float((got - expected).std() / expected.std())
    assert torch.finfo(dtype).eps / 100 < difference < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("layer", "said"),
    [(nn.GELU(), "GELU"), (nn.Conv2d(8, 8, 3, padding="same"), "padding"), (nn.Hardtanh(), "Hardtanh")],
)
def test_layers_that_it_does_not_know_are_refused(layer: nn.Module, said: str) -> None:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 8, 3))
    model.classifier = nn.Sequential(nn.Conv2d(8, 8, 1), layer, nn.Conv2d(8, 5, 1))
    with pytest.raises(TypeError, match=said):
        CudaNetwork(model, CPU, torch.float32)


def precisions() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]


def test_tf32_is_off_in_the_context_and_as_before_after_it() -> None:
    before = precisions()
    assert before[1] != "ieee"
    with ieee_float32():
        assert precisions() == ("ieee", "ieee")
    assert precisions() == before
    with pytest.raises(KeyError), ieee_float32():
        raise KeyError
    assert precisions() == before
