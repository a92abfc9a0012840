"""Batches of RGB pixels to label maps: device, precision, forward pass, upsampling and argmax."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import machine
from .backbones import Network
from .errors import Failure, FailureKind, RequestError
from .kernels import FastNetwork
from .labelmaps import LabelMap, Predicted
from .upsample import NOTHING_MORE, Asked, upsampled

# ImageNet's, as torchvision's weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

ONEDNN_PRIMITIVES = 256
"""How many compiled operators oneDNN keeps: those of a dozen shapes of input. Its own default is 1024."""

# Our kernels take images one by one, and the plain ones were measured to be no faster with more.
_AUTO_BATCH_CPU = 1
_AUTO_BATCH_CUDA = 16
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """Where and how a network runs.

    `kernels` is ``fast`` or ``torch``, `batch_size` the number of images of one shape per forward pass.
    """

    device: torch.device
    precision: str
    kernels: str
    batch_size: int
    threads: int


def plan(
    device: str = "auto",
    precision: str = "auto",
    kernels: str = "fast",
    batch_size: int | None = None,
    threads: int | None = None,
) -> Plan:
    """Decide what ``auto`` means on this machine, and where the fast kernels apply: float32 on a CPU.

    `precision` auto is float32 on a CPU, and on CUDA bfloat16 where the GPU computes it, else float32.

    Raises
    ------
    RequestError
        The device does not exist, or does not do this precision.
    """
    chosen = _device(device)
    if precision == "auto":
        bf16 = chosen.type == "cuda" and torch.cuda.get_device_capability(chosen) >= (8, 0)
        precision = "bf16" if bf16 else "fp32"
    if precision == "fp16" and chosen.type == "cpu":
        raise RequestError("--precision fp16 needs a CUDA device; on a CPU use fp32 or bf16")
    auto_batch = _AUTO_BATCH_CPU if chosen.type == "cpu" else _AUTO_BATCH_CUDA
    if chosen.type != "cpu" or precision != "fp32":
        kernels = "torch"
    return Plan(chosen, precision, kernels, batch_size or auto_batch, threads or machine.cpu_count())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"--device {name}: not one of auto, cpu, cuda, cuda:N") from None
    if device.type not in {"cpu", "cuda"}:
        raise RequestError(f"--device {name}: not one of auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            has = (
                f"has {count} CUDA device{'s' if count > 1 else ''}" if count else "has no usable CUDA device"
            )
            raise RequestError(f"--device {name}: this machine {has}")
    return device


class Engine:
    """A network on its device, ready to predict.

    Making one sets this process's number of torch threads and, for float32 on CUDA, turns TF32 off; the
    first one also bounds oneDNN's cache, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set.
    """

    def __init__(self, network: Network, how: Plan, asked: Asked = NOTHING_MORE) -> None:
        torch.set_num_threads(how.threads)
        # It reads this when it computes for the first time.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_PRIMITIVES))
        self.plan = how
        self._asked = asked
        self.network = network
        self._cuda = how.device.type == "cuda"
        # Photos come in many shapes; a search per shape would cost more than it finds.
        torch.backends.cudnn.benchmark = False
        if self._cuda and how.precision == "fp32":
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        model = network.model.to(how.device)
        if self._cuda:
            model = model.to(memory_format=torch.channels_last)
        self._network = FastNetwork(model) if how.kernels == "fast" else _plain(model)
        self._mean = torch.tensor(MEAN, device=how.device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=how.device).view(3, 1, 1)
        self._batch_limit = how.batch_size

    def predict(
        self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]
    ) -> list[Predicted | Failure]:
        """Segment images of one shape.

        Where memory does not suffice for all of them at once, they go in halves, down to one by one; one
        that does not fit alone has failed, and only that one.

        Parameters
        ----------
        pixels
            RGB, uint8, each of the same shape (h, w, 3).
        sizes
            The (width, height) that each label map shall have.

        Returns
        -------
        list
            Per image what is predicted, or the `Failure`.
        """
        results: list[Predicted | Failure] = []
        while len(results) < len(pixels):
            count = min(self._batch_limit, len(pixels) - len(results))
            part = slice(len(results), len(results) + count)
            done = self._try_forward(pixels[part], sizes[part])
            if done is not None:
                results.extend(done)
            elif count > 1:
                self._batch_limit = count // 2
            else:
                results.append(_no_memory(pixels[part][0].shape))
        return results

    def logits(self, pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Run the network on images of one shape (h, w, 3).

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, on the engine's device.
        """
        with torch.inference_mode(), self._autocast():
            return self._network(self._to_device(pixels)).float()

    def kernels(self) -> dict[str, int]:
        """Return which CPU kernels computed the last image and how many layers each; empty for torch's."""
        return self._network.kernels() if isinstance(self._network, FastNetwork) else {}

    def _try_forward(
        self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]
    ) -> list[Predicted] | None:
        """Predict, or return None when memory does not suffice."""
        if not self._fits(len(pixels), pixels[0].shape):
            return None
        try:
            return self._forward(pixels, sizes)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            # What the CPU allocator raises has no class of its own.
            if "can't allocate memory" not in str(error):
                raise
        # Outside the handlers: there the exception keeps the failed pass's tensors alive.
        if self._cuda:
            torch.cuda.empty_cache()
        return None

    def _forward(
        self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]
    ) -> list[Predicted]:
        with torch.inference_mode():
            logits = self.logits(pixels)
            maps = [
                upsampled(one, height, width, self._asked, compiled=self.plan.kernels == "fast")
                for one, (width, height) in zip(logits, sizes, strict=True)
            ]
            flat = self._to_numpy([one for pair in maps for one in pair if one is not None])
        return [Predicted(next(flat), next(flat) if pair.confidence is not None else None) for pair in maps]

    def _to_numpy(self, maps: Sequence[Tensor]) -> Iterator[LabelMap]:
        if not self._cuda:
            return (one.numpy() for one in maps)
        pinned = [torch.empty(m.shape, dtype=m.dtype, pin_memory=True) for m in maps]
        for target, source in zip(pinned, maps, strict=True):
            target.copy_(source, non_blocking=True)
        torch.cuda.current_stream(self.plan.device).synchronize()
        # Pinned memory is scarce and these maps wait for their writer: hand over ordinary copies.
        return (target.numpy().copy() for target in pinned)

    def _to_device(self, pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return float32, shape (images, 3, h, w), normalised as torchvision's preset does it."""
        batch = torch.from_numpy(np.stack(pixels))
        if self._cuda:
            batch = batch.pin_memory().to(self.plan.device, non_blocking=True)
        # Stacked pixels are channels-last already, which is what the GPU's kernels and ours want.
        batch = batch.permute(0, 3, 1, 2)
        if not self._cuda and self.plan.kernels == "torch":
            batch = batch.contiguous()
        return batch.float().div_(255).sub_(self._mean).div_(self._std)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        dtype = _DTYPES.get(self.plan.precision)
        return torch.autocast(self.plan.device.type, dtype) if dtype else contextlib.nullcontext()

    def _fits(self, count: int, shape: tuple[int, ...]) -> bool:
        # On a CPU, Linux grants the memory and kills the process when it is used: ask before.
        if self._cuda:
            return True
        free = machine.available_memory()
        if self.plan.kernels == "fast":
            count = 1  # They go one by one.
        needed = count * shape[0] * shape[1] * self.network.backbone.bytes_per_pixel
        return free is None or needed <= free


def _plain(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model as torchvision runs it, without its auxiliary head and its upsampling."""
    backbone, classifier = model.get_submodule("backbone"), model.get_submodule("classifier")

    def logits(batch: Tensor) -> Tensor:
        result: Tensor = classifier(backbone(batch)["out"])
        return result

    return logits


def _no_memory(shape: tuple[int, ...]) -> Failure:
    return Failure(
        FailureKind.OUT_OF_MEMORY,
        f"the network has not enough memory for an input of {shape[1]}x{shape[0]}; give a smaller --resize",
    )
