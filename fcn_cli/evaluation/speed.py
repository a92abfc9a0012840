"""How fast this machine segments: plain torchvision, and `fcn`, measured in turn.

Like is compared with like: everyone computes in the same precision, starts from what lies in the host's
memory and ends with label maps there. Inputs and weights are random: neither changes what a network costs.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import segmentation

from ..common import resources
from ..common.class_names import VOC_CLASSES
from ..common.errors import Failure, RequestError
from ..inference import device_errors
from ..inference.engine import DTYPES, MEAN, STD, Engine
from ..inference.execution import ExecutionConfig
from ..models import loading, registry

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
    head, `gemm_rate` is the best that a large matrix product in the plan's precision reached between the
    rounds, in 10^9 a second.
    """

    backbone: str
    width: int
    height: int
    batch_size: int
    plan: ExecutionConfig
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
            "machine": resources.describe(),
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
    execution: ExecutionConfig,
    rounds: int,
    more: Callable[[nn.Module, Tensor], Sequence[Contender]] = lambda _model, _batch: (),
) -> Measured:
    """Time plain torchvision and `fcn`, in turn, round by round.

    Torchvision starts from a normalised batch in the host's memory, as the PyTorch Hub page's snippet has it,
    `fcn` from the pixels, which it normalises itself.

    Parameters
    ----------
    backbone
        A name in the registry.
    width, height
        Size of what the network is fed.
    execution
        Where and how `fcn` runs; the batch is its `batch_size`. Device and precision are everyone's.
    rounds
        At least 1; one more goes before them, uncounted.
    more
        Further contenders, made from the model without its auxiliary head and the normalised batch.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    RequestError
        It has not enough for this batch.
    """
    torch.set_num_threads(execution.threads)
    with device_errors.loading_on(execution.device):
        hub = _hub_model(backbone).to(execution.device)
        plain = _without_auxiliary(backbone, hub).model.to(execution.device)
    engine = Engine(_without_auxiliary(backbone, hub), execution)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (execution.batch_size, height, width, 3), dtype=np.uint8)
    batch = _normalised(pixels)
    contenders = [Contender(HUB, _plainly(hub, batch, execution))]
    if getattr(hub, "aux_classifier", None) is not None:
        contenders.append(Contender(PLAIN, _plainly(plain, batch, execution)))
    contenders += more(plain, batch)
    contenders.append(Contender(FCN, _by_engine(engine, pixels)))
    with (
        torch.inference_mode(),
        device_errors.named(execution.device),
        _enough_memory(execution, width, height),
    ):
        image = batch[:1].to(execution.device)
        gflop, gflop_hub = _gflop(plain, image), _gflop(hub, image)
        gemm = _Gemm(execution)
        totals = in_turn({one.name: one.run for one in contenders}, rounds, gemm.measure)
    seconds = {name: [one / execution.batch_size for one in each] for name, each in totals.items()}
    return Measured(
        backbone, width, height, execution.batch_size, execution, seconds, gflop, gflop_hub, gemm.best_rate
    )


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


def _plainly(model: nn.Module, batch: Tensor, execution: ExecutionConfig) -> Callable[[], Tensor]:
    """Return how torchvision's users do it: to the device, through the network, and the classes back."""
    dtype = DTYPES.get(execution.precision)

    def run() -> Tensor:
        with torch.autocast(execution.device.type, dtype) if dtype else contextlib.nullcontext():
            logits = model(batch.to(execution.device))["out"]
        labels: Tensor = logits.argmax(1).cpu()
        return labels

    return run


def _by_engine(engine: Engine, pixels: NDArray[np.uint8]) -> Callable[[], None]:
    images = list(pixels)
    sizes = [(pixels.shape[2], pixels.shape[1])] * len(images)

    def run() -> None:
        failed = [one for one in engine.predict(images, sizes) if isinstance(one, Failure)]
        if failed:
            # What failed took no time: its rate would be a lie.
            raise RequestError(f"{FCN}: {failed[0].message}")

    return run


@contextlib.contextmanager
def _enough_memory(execution: ExecutionConfig, width: int, height: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not device_errors.is_out_of_memory(error):
            raise
        raise RequestError(
            f"{execution.device}: not enough memory for batches of {execution.batch_size} images of "
            f"{width}x{height}; "
            "give a smaller --batch-size or --size"
        ) from None


class _Gemm:
    """A large matrix product in a plan's precision, and its best rate, in 10^9 operations a second.

    Where our kernels compute, by PyTorch and by ours: the faster one counts.
    """

    def __init__(self, execution: ExecutionConfig) -> None:
        self._device = execution.device
        dtype = DTYPES.get(execution.precision, torch.float32)
        self._factor = torch.rand(_GEMM_SIDE, _GEMM_SIDE, device=execution.device).to(dtype)
        self._result = torch.empty_like(self._factor)
        self._ways = [self._by_torch]
        if execution.kernels == "fast":
            self._ways.append(_by_our_kernel(self._factor, self._result))
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


def _by_our_kernel(factor: Tensor, result: Tensor) -> Callable[[], None]:
    # Here, because llvmlite comes with them, which neither a GPU nor PyTorch's own kernels need.
    from ..cpu.kernels.matmul import in_panels, pointwise
    from ..cpu.workspace import Workspace

    panels, bias, space = in_panels(factor), torch.zeros(len(factor)), Workspace()
    return lambda: pointwise(factor, panels, bias, result, (None, None), space, add=False)


def _hub_model(backbone: str) -> nn.Module:
    """Return the model as the PyTorch Hub page has it: with its auxiliary head, where there is one."""
    build = {"resnet50": segmentation.fcn_resnet50, "resnet101": segmentation.fcn_resnet101}.get(backbone)
    if build is None:
        return registry.find(backbone).build(len(VOC_CLASSES)).eval()
    model: nn.Module = build(weights=None, weights_backbone=None, num_classes=len(VOC_CLASSES), aux_loss=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # From their initial values, the features of 101 layers grow too large for float16.
            nn.init.constant_(module.weight, 0.5)
    return model.eval()


def _without_auxiliary(name: str, hub: nn.Module) -> loading.LoadedModel:
    backbone = registry.find(name)
    model = backbone.build(len(VOC_CLASSES)).eval()
    model.load_state_dict(
        {key: value for key, value in hub.state_dict().items() if not key.startswith("aux_classifier.")}
    )
    return loading.LoadedModel(backbone, model, VOC_CLASSES)


def _normalised(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Return what the PyTorch Hub page's transforms make of RGB pixels."""
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    return (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _gflop(model: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return float(counter.get_total_flops()) / 1e9
