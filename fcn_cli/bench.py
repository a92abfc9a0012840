"""How fast this machine segments: plain torchvision, and `fcn`, measured in turn.

Inputs and weights are random: neither changes what a network costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import segmentation

from . import backbones, machine
from .engine import MEAN, STD, Engine, Plan

_GEMM_SIDE = 2048
_GEMMS_PER_TURN = 3

HUB = "torchvision"
PLAIN = "torchvision, no auxiliary head"
FCN = "fcn"


@dataclass(frozen=True)
class Contender:
    """One way to do the work: `run` takes nothing and returns when the label maps are there."""

    name: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """What a benchmark found.

    `seconds` has for every contender the seconds per image of each round, `gflop` and `gflop_hub` are the
    floating-point operations of an image by direct convolution, in 10^9, without and with the auxiliary
    head, `gemm_rate` is the best that a large float32 product reached between the rounds, in 10^9 a second.
    """

    backbone: str
    width: int
    height: int
    batch_size: int
    plan: Plan
    seconds: dict[str, list[float]]
    gflop: float
    gflop_hub: float
    gemm_rate: float

    def median(self, name: str) -> float:
        """Return the median of a contender's seconds per image."""
        return statistics.median(self.seconds[name])

    def of_limit(self, name: str) -> float:
        """Return a contender's rate over that of direct convolution at `gemm_rate` all along."""
        return self.gflop / self.gemm_rate / self.median(name)

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name; rates are images/s."""
        return {
            "backbone": self.backbone,
            "width": self.width,
            "height": self.height,
            "batch_size": self.batch_size,
            "machine": machine.describe(),
            "torch": torch.__version__,
            "device": str(self.plan.device),
            "precision": self.plan.precision,
            "kernels": self.plan.kernels,
            "threads": self.plan.threads,
            "rounds": len(self.seconds[FCN]),
            "gflop_per_image": self.gflop,
            "gflop_per_image_with_auxiliary_head": self.gflop_hub,
            "gemm_gflop_per_second": self.gemm_rate,
            "contenders": {
                name: {
                    "images_per_second": 1 / self.median(name),
                    "seconds_per_image": seconds,
                    "ratio_to_torchvision": self.median(HUB) / self.median(name),
                    "ratio_to_direct_limit": self.of_limit(name),
                }
                for name, seconds in self.seconds.items()
            },
        }


def measure(
    backbone: str,
    width: int,
    height: int,
    how: Plan,
    rounds: int,
    more: Callable[[nn.Module, Tensor], Sequence[Contender]] = lambda _model, _batch: (),
) -> Measured:
    """Time plain torchvision and `fcn` from a batch to its label maps, in turn, round by round.

    Parameters
    ----------
    backbone
        A name in the registry.
    width, height
        Size of what the network is fed.
    how
        Where and how `fcn` runs; the batch is its `batch_size`.
    rounds
        At least 1; one more goes before them, uncounted.
    more
        Further contenders, made from the model without its auxiliary head and the normalised batch.
    """
    torch.set_num_threads(how.threads)
    hub = _hub_model(backbone).to(how.device)
    network = _without_auxiliary(backbone, hub)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (how.batch_size, height, width, 3), dtype=np.uint8)
    batch = _normalised(pixels).to(how.device)
    plain = _without_auxiliary(backbone, hub).model.to(how.device)
    contenders = [
        Contender(HUB, lambda: hub(batch)["out"].argmax(1).cpu()),
        Contender(PLAIN, lambda: plain(batch)["out"].argmax(1).cpu()),
        *more(plain, batch),
    ]
    if getattr(hub, "aux_classifier", None) is None:
        del contenders[1]
    engine = Engine(network, how)
    sizes = [(width, height)] * how.batch_size
    contenders.append(Contender(FCN, lambda: engine.predict(list(pixels), sizes)))
    with torch.inference_mode():
        gflop, gflop_hub = _gflop(plain, batch[:1]), _gflop(hub, batch[:1])
        totals, gemm_rate = _in_turn(contenders, rounds, how.device)
    seconds = {name: [one / how.batch_size for one in each] for name, each in totals.items()}
    return Measured(backbone, width, height, how.batch_size, how, seconds, gflop, gflop_hub, gemm_rate)


def _in_turn(
    contenders: Sequence[Contender], rounds: int, device: torch.device
) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of each contender's rounds, and the best GEMM rate between them."""
    one = torch.rand(_GEMM_SIDE, _GEMM_SIDE, device=device)
    product = torch.empty_like(one)
    gemms: list[float] = []
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            took = _timed(contender.run, device)
            if number:
                seconds[contender.name].append(took)
            gemms += [_timed(lambda: torch.mm(one, one, out=product), device) for _ in range(_GEMMS_PER_TURN)]
    return seconds, 2 * _GEMM_SIDE**3 / min(gemms) / 1e9


def _timed(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _hub_model(backbone: str) -> nn.Module:
    """Return the model as the PyTorch Hub page has it: with its auxiliary head, where there is one."""
    build = {"resnet50": segmentation.fcn_resnet50, "resnet101": segmentation.fcn_resnet101}.get(backbone)
    if build is None:
        return backbones.find(backbone).build(len(backbones.VOC_CLASSES)).eval()
    model: nn.Module = build(
        weights=None, weights_backbone=None, num_classes=len(backbones.VOC_CLASSES), aux_loss=True
    )
    return model.eval()


def _without_auxiliary(name: str, hub: nn.Module) -> backbones.Network:
    backbone = backbones.find(name)
    model = backbone.build(len(backbones.VOC_CLASSES)).eval()
    model.load_state_dict(
        {key: value for key, value in hub.state_dict().items() if not key.startswith("aux_classifier.")}
    )
    return backbones.Network(backbone, model, backbones.VOC_CLASSES)


def _normalised(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Return what the PyTorch Hub page's transforms make of RGB pixels."""
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    return (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _gflop(model: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return float(counter.get_total_flops()) / 1e9
