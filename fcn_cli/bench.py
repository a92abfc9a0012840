"""How fast this machine segments: plain torchvision, and `fcn`, measured in turn.

Inputs and weights are random: neither changes what a network costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import segmentation

from . import backbones, machine, product
from .engine import MEAN, STD, Engine, Plan
from .workspace import Workspace

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
    contenders = [Contender(HUB, lambda: hub(batch)["out"].argmax(1).cpu())]
    if getattr(hub, "aux_classifier", None) is not None:
        contenders.append(Contender(PLAIN, lambda: plain(batch)["out"].argmax(1).cpu()))
    contenders += more(plain, batch)
    engine = Engine(network, how)
    sizes = [(width, height)] * how.batch_size
    contenders.append(Contender(FCN, lambda: engine.predict(list(pixels), sizes)))
    with torch.inference_mode():
        gflop, gflop_hub = _gflop(plain, batch[:1]), _gflop(hub, batch[:1])
        gemm = _Gemm(how.device)
        totals = in_turn({one.name: one.run for one in contenders}, rounds, gemm.measure)
    seconds = {name: [one / how.batch_size for one in each] for name, each in totals.items()}
    return Measured(backbone, width, height, how.batch_size, how, seconds, gflop, gflop_hub, gemm.best_rate)


Name = TypeVar("Name")


def in_turn(
    runs: Mapping[Name, Callable[[], object]], rounds: int, between: Callable[[], None] = lambda: None
) -> dict[Name, list[float]]:
    """Return the seconds that each took in every round.

    One more round goes before, uncounted; `between` is called after each run. A run must return only when
    its work is done.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
            between()
    return seconds


class _Gemm:
    """A large float32 matrix product, and the best rate it reached, in 10^9 operations a second.

    On a CPU by PyTorch and by our kernel: the faster one counts.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._factor = torch.rand(_GEMM_SIDE, _GEMM_SIDE, device=device)
        self._result = torch.empty_like(self._factor)
        self._ways = [self._by_torch]
        if device.type == "cpu":
            self._ways.append(self._by_kernel)
            self._panels = product.in_panels(self._factor)
            self._bias, self._space = torch.zeros(_GEMM_SIDE), Workspace()
        self.best_rate = 0.0

    def measure(self) -> None:
        """Multiply a few times."""
        for multiply in self._ways * _GEMMS_PER_TURN:
            started = time.perf_counter()
            multiply()
            took = time.perf_counter() - started
            self.best_rate = max(self.best_rate, 2 * _GEMM_SIDE**3 / took / 1e9)

    def _by_torch(self) -> None:
        torch.mm(self._factor, self._factor, out=self._result)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _by_kernel(self) -> None:
        product.pointwise(
            self._factor, self._panels, self._bias, self._result, (None, None), self._space, add=False
        )


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
