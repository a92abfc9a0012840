"""The network's form for GPUs, on a CPU: the same layers as torchvision's, fused only where that is right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
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


Fused = Callable[..., Tensor]


def fused_relu(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return F.conv2d(x, weight, bias, *rest).relu()


def fused_add_relu(x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *rest: Any) -> Tensor:
    return (F.conv2d(x, weight, bias, *rest) + alpha * z).relu()


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fused, Fused], list[tuple[int, ...]]]:
    """Put operators in the place of cuDNN's; return the sizes of the filters that they are called with."""

    def put_in(relu: Fused, add_relu: Fused) -> list[tuple[int, ...]]:
        seen: list[tuple[int, ...]] = []

        def watch(operator: Fused) -> Fused:
            def watched(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
                seen.append(tuple(weight.shape[2:]))
                return operator(x, weight, *rest)

            return watched

        monkeypatch.setattr(torch, "cudnn_convolution_relu", watch(relu))
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", watch(add_relu))
        return seen

    return put_in


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_with_relu_are_fused_where_pytorch_can(
    dtype: torch.dtype, resnet: nn.Module, cudnn: Callable[[Fused, Fused], list[tuple[int, ...]]]
) -> None:
    batch = batch_of(2, 3, 33, 41)
    unfused = CudaNetwork(resnet, CPU, dtype)
    assert unfused.kernels() == {"fused": 0, "plain": 21}
    seen = cudnn(fused_relu, fused_add_relu)
    network = CudaNetwork(resnet, CPU, dtype)
    # Five bottlenecks and the head's first layer; not the stem, the shortcuts' layers, and the logits.
    assert network.kernels() == {"fused": 16, "plain": 5}
    seen.clear()
    got = forward(network, batch)
    assert len(seen) == 16
    assert set(seen) == {(1, 1), (3, 3)}
    scale = float(plain(resnet, batch).std())
    assert float((got - forward(unfused, batch)).abs().max()) < 16 * torch.finfo(dtype).eps * scale


def missing(*_: Any) -> Tensor:
    raise NotImplementedError("Could not run 'aten::cudnn_convolution_relu'")


def unsupported(*_: Any) -> Tensor:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")


def without_bias(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return F.conv2d(x, weight, None, *rest).relu()


def not_a_number(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return F.conv2d(x, weight, bias, *rest).relu().mul_(float("nan"))


def rounded_twice_as_coarsely(x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return fused_relu(x, weight, bias, *rest).bfloat16().to(x.dtype)


@pytest.mark.parametrize(
    "wrong", [missing, unsupported, without_bias, not_a_number, rounded_twice_as_coarsely]
)
def test_a_fused_operator_that_differs_is_dropped(
    wrong: Fused, resnet: nn.Module, cudnn: Callable[[Fused, Fused], list[tuple[int, ...]]]
) -> None:
    batch = batch_of(1, 3, 33, 41)
    expected = forward(CudaNetwork(resnet, CPU, torch.float32), batch)
    cudnn(wrong, fused_add_relu)
    network = CudaNetwork(resnet, CPU, torch.float32)
    # Those with a shortcut are right.
    assert network.kernels() == {"fused": 5, "plain": 16}
    assert torch.allclose(forward(network, batch), expected, rtol=1e-4, atol=1e-4)
    cudnn(fused_relu, lambda x, weight, z, alpha, *rest: fused_relu(x, weight, *rest))
    assert CudaNetwork(resnet, CPU, torch.float32).kernels() == {"fused": 11, "plain": 10}


@pytest.mark.parametrize("text", ["CUDA error: unspecified launch failure", "CUDNN_STATUS_ALLOC_FAILED"])
def test_a_device_that_fails_meanwhile_is_no_reason_to_drop_one(
    text: str, resnet: nn.Module, cudnn: Callable[[Fused, Fused], list[tuple[int, ...]]]
) -> None:
    def failing(*_: Any) -> Tensor:
        raise RuntimeError(text)

    cudnn(failing, fused_add_relu)
    with pytest.raises(RuntimeError, match=text):
        CudaNetwork(resnet, CPU, torch.float32)


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
