"""The speed of this machine: plain torchvision against `fcn`, and the cost of tiles.

Every contender computes in the same precision, starts from data in the host's memory and ends with label maps
there. Inputs and weights are random, because neither changes the cost of a network.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models._utils import IntermediateLayerGetter

from ..common import resources
from ..common.class_names import VOC_CLASSES
from ..common.errors import Failure, RequestError
from ..inference import device_errors
from ..inference.engine import DTYPES, Engine
from ..inference.execution import ExecutionConfig
from ..inference.options import ViewOptions
from ..inference.tiling import Tiles
from ..models import registry, weights
from ..models.card import IMAGENET

DEFAULT_SIZE, DEFAULT_TILED_SIZE = (693, 520), (2000, 1500)
"""Width and height in pixels of the image that is timed unless another size is given: whole, and in tiles."""

HUB = "torchvision"
PLAIN = "torchvision, no auxiliary head"
FCN = "fcn"
UNMEASURED = "fcn, its own kernels"
"""On processors where nobody has measured them yet: there `fcn` itself takes PyTorch's."""

TILED = "tiles"
ALONE = "a tile alone"


@dataclass(frozen=True)
class Contender:
    """One implementation to time: `run` returns when the label maps of one batch are complete.

    `precision` is what it computes in, None where that is what the benchmark asks for.
    """

    name: str
    run: Callable[[], object]
    precision: str | None = None


@dataclass(frozen=True)
class Measured:
    """The results of a benchmark.

    `seconds` holds for each contender the seconds per image of each round, `precisions` what it computes in
    where that is not the execution's.
    """

    backbone: str
    width: int
    height: int
    batch_size: int
    execution: ExecutionConfig
    seconds: dict[str, list[float]]
    precisions: Mapping[str, str]

    def precision(self, name: str) -> str:
        return self.precisions.get(name, self.execution.precision)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name; rates are images/s."""
        return {
            "backbone": self.backbone,
            "width": self.width,
            "height": self.height,
            "batch_size": self.batch_size,
            "machine": resources.describe(),
            "torch": torch.__version__,
            **self.execution.as_json(),
            "rounds": len(self.seconds[FCN]),
            "contenders": {
                name: {
                    "precision": self.precision(name),
                    "images_per_second": 1 / self.median(name),
                    "seconds_per_image": seconds,
                    "ratio_to_torchvision": self.median(HUB) / self.median(name),
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
    further: Callable[[nn.Module, Tensor], Sequence[Contender]] = lambda _model, _batch: (),
    prepare: Callable[[nn.Module], None] = lambda _model: None,
    between: Callable[[], None] = lambda: None,
    *,
    own_kernels: bool = False,
) -> Measured:
    """Time plain torchvision and `fcn`, in turn, round by round, with an untimed round before.

    Torchvision starts from a normalised batch in the host's memory, as on the PyTorch Hub page; `fcn` starts
    from the pixels and normalises them itself. All use the execution's device, precision and `batch_size`.

    `further` returns more contenders for the network (see `models.networks`) and the normalised batch,
    `prepare` sets the model's weights, and `between` is called after each run. With `own_kernels`, `fcn` is
    timed with its own kernels, too, on a CPU. RequestError and DeviceLost where the device has too little
    memory.
    """
    torch.set_num_threads(execution.threads)
    with device_errors.detect_load_failure(execution.device):
        hub = _hub_model(backbone)
        prepare(hub)
        hub = hub.to(execution.device)
        has_auxiliary_head = getattr(hub, "aux_classifier", None) is not None
        plain = _plain_model(backbone, hub).to(execution.device) if has_auxiliary_head else None
    network = _network(backbone, hub)
    engine = Engine(network, execution)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (execution.batch_size, height, width, 3), dtype=np.uint8)
    batch = _normalised(pixels)
    contenders = [Contender(HUB, _torchvision_run(hub, batch, execution))]
    if plain is not None:
        contenders.append(Contender(PLAIN, _torchvision_run(plain, batch, execution)))
    contenders += further(network.model, batch)
    contenders.append(Contender(FCN, engine_run(engine, pixels)))
    if own_kernels:
        own = Engine(network, replace(execution, kernels="fast"))
        contenders.append(Contender(UNMEASURED, engine_run(own, pixels)))
    with (
        torch.inference_mode(),
        device_errors.detect_lost_device(execution.device),
        detect_out_of_memory(execution, width, height),
    ):
        runs = {contender.name: contender.run for contender in contenders}
        totals = in_turn(runs, rounds, between)
    seconds = {name: [total / execution.batch_size for total in each] for name, each in totals.items()}
    return Measured(
        backbone,
        width,
        height,
        execution.batch_size,
        execution,
        seconds,
        {contender.name: contender.precision for contender in contenders if contender.precision},
    )


Name = TypeVar("Name")


def in_turn(
    runs: Mapping[Name, Callable[[], object]], rounds: int, between: Callable[[], None] = lambda: None
) -> dict[Name, list[float]]:
    """Return the seconds of each run in every round.

    One untimed round comes first; `between` is called after each run. A run must return only when its work
    is complete.
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


def _torchvision_run(model: nn.Module, batch: Tensor, execution: ExecutionConfig) -> Callable[[], Tensor]:
    """Return a run as torchvision's users write it: copy to the device, predict, copy the classes back."""
    dtype = DTYPES.get(execution.precision)

    def run() -> Tensor:
        with torch.autocast(execution.device.type, dtype) if dtype else contextlib.nullcontext():
            logits = model(batch.to(execution.device))["out"]
        labels: Tensor = logits.argmax(1).cpu()
        return labels

    return run


def engine_run(engine: Engine, pixels: NDArray[np.uint8]) -> Callable[[], None]:
    """Return a run of an engine over images, uint8, shape (images, h, w, 3); RequestError if one fails."""
    images = list(pixels)
    sizes = [(pixels.shape[2], pixels.shape[1])] * len(images)

    def run() -> None:
        failed = [result for result in engine.predict(images, sizes) if isinstance(result, Failure)]
        if failed:
            # A failed image takes no time: a rate that includes it would be wrong.
            raise RequestError(f"{FCN}: {failed[0].message}")

    return run


@contextlib.contextmanager
def detect_out_of_memory(execution: ExecutionConfig, width: int, height: int) -> Iterator[None]:
    """Convert out-of-memory errors into `RequestError`, which suggests a smaller batch or size."""
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


def _hub_model(backbone: str) -> nn.Module:
    """Return the model as on the PyTorch Hub page: with its auxiliary head, where it has one."""
    model = _torchvision_model(backbone, auxiliary=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # With the initial value 1, the features of 101 layers overflow float16.
            nn.init.constant_(module.weight, 0.5)
    return model


def _plain_model(backbone: str, hub: nn.Module) -> nn.Module:
    """Return the model of the Hub page without its auxiliary head, with the same weights."""
    model = _torchvision_model(backbone, auxiliary=False)
    model.load_state_dict(_without_auxiliary(hub))
    return model


def random_network(backbone: str) -> weights.LoadedModel:
    return _network(backbone, _hub_model(backbone))


def _network(name: str, hub: nn.Module) -> weights.LoadedModel:
    backbone = registry.find(name)
    model = backbone.build(len(VOC_CLASSES)).eval()
    model.load_state_dict(_without_auxiliary(hub))
    return weights.LoadedModel(backbone, model, VOC_CLASSES)


def _torchvision_model(backbone: str, *, auxiliary: bool) -> nn.Module:
    build = {"resnet50": segmentation.fcn_resnet50, "resnet101": segmentation.fcn_resnet101}.get(backbone)
    model: nn.Module
    if build is not None:
        model = build(weights=None, weights_backbone=None, num_classes=len(VOC_CLASSES), aux_loss=auxiliary)
    else:
        # torchvision has no such model, but its parts: features, head and upsampling.
        network = registry.find(backbone).build(len(VOC_CLASSES))
        features = network.get_submodule("backbone")
        last = [name for name, _ in features.named_children()][-1]
        model = segmentation.fcn.FCN(
            IntermediateLayerGetter(features, {last: "out"}), network.get_submodule("classifier")
        )
    return model.eval()


def _without_auxiliary(hub: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in hub.state_dict().items() if not key.startswith("aux_classifier.")}


def _normalised(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Normalise RGB pixels, uint8 (images, h, w, 3), as the Hub page does; float32 (images, 3, h, w)."""
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    return (batch - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)


@dataclass(frozen=True)
class MeasuredTiles:
    """The result: for `TILED` and `ALONE` the seconds per megapixel of each round.

    `TILED` is an image of `width` x `height` pixels, per megapixel of the image; `ALONE` is an image of the
    size of a tile, per megapixel of the tile. The difference is what the overlap and the extension of the
    image to whole tiles cost.
    """

    backbone: str
    width: int
    height: int
    grid: Tiles
    execution: ExecutionConfig
    seconds: dict[str, list[float]]

    def as_json(self) -> dict[str, Any]:
        axis = self.grid.x if self.grid.x.is_tiled else self.grid.y
        return {
            "backbone": self.backbone,
            "width": self.width,
            "height": self.height,
            "tiles": self.grid.count,
            "tile_width": self.grid.x.tile,
            "tile_height": self.grid.y.tile,
            "overlap": axis.tile - axis.step,
            "batch_size": self.execution.batch_size,
            "machine": resources.describe(),
            "torch": torch.__version__,
            **self.execution.as_json(),
            "rounds": len(self.seconds[TILED]),
            "seconds_per_megapixel": statistics.median(self.seconds[TILED]),
            "seconds_per_megapixel_of_a_tile_alone": statistics.median(self.seconds[ALONE]),
            "all_seconds_per_megapixel": self.seconds,
        }


def measure_tiles(
    backbone: str, size: tuple[int, int], execution: ExecutionConfig, views: ViewOptions, rounds: int
) -> MeasuredTiles:
    """Time an image of a (width, height) in tiles, and one of the size of a tile, in turn, round by round.

    RequestError and DeviceLost as by `measure`.
    """
    network = random_network(backbone)
    engine = Engine(network, execution, views=views)
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    grid = engine.views.grid(image[0])
    tile = image[:, : grid.y.tile, : grid.x.tile]
    with (
        device_errors.detect_lost_device(execution.device),
        detect_out_of_memory(execution, grid.x.tile, grid.y.tile),
    ):
        seconds = in_turn({TILED: engine_run(engine, image), ALONE: engine_run(engine, tile)}, rounds)
    pixels = {TILED: width * height, ALONE: tile.shape[1] * tile.shape[2]}
    per_megapixel = {name: [one * 1e6 / pixels[name] for one in each] for name, each in seconds.items()}
    return MeasuredTiles(backbone, width, height, grid, execution, per_megapixel)
