"""Batches of RGB pixels to label maps: forward pass, upsampling and argmax."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..common.errors import Failure, FailureKind
from ..common.label_map import LabelMap, Segmentation
from ..models.loading import LoadedModel
from . import device_errors
from .batch_limits import BatchLimits
from .execution import ONEDNN_PRIMITIVES, ExecutionConfig
from .upsampling import LABELS_ONLY, PredictionOptions, upsampled

if TYPE_CHECKING:
    # llvmlite comes with it, which neither a GPU nor PyTorch's own kernels need.
    from ..cpu.network import CpuNetwork

# ImageNet's, as torchvision's weights were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in, by the name of the precision; float32 has none."""

# Interpolation takes differences of logits, which must not overflow either.
_LARGEST_LOGIT = torch.finfo(torch.float32).max / 4

Pixels = Sequence[NDArray[np.uint8]]
"""RGB images of one shape (h, w, 3)."""
Sizes = Sequence[tuple[int, int]]
"""The (width, height) in pixels that each label map shall have."""


class Engine:
    """A network on its device, ready to predict.

    Threads may share it: they take turns, because one forward pass keeps the whole device busy, and buffers
    for several at once would only take memory.

    Making one sets this process's number of torch threads and, where it computes in float32 on CUDA, turns
    TF32 off; the first one also bounds oneDNN's cache, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    """

    def __init__(
        self, network: LoadedModel, execution: ExecutionConfig, options: PredictionOptions = LABELS_ONLY
    ) -> None:
        torch.set_num_threads(execution.threads)
        # It reads this when it computes for the first time.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_PRIMITIVES))
        self.plan = execution
        self.network = network
        self._asked = options
        self._turn = threading.Lock()
        self._limits = BatchLimits(execution, network.backbone.bytes_per_pixel)
        self._cuda = execution.device.type == "cuda"
        # Photos come in many shapes; a search per shape would cost more than it finds.
        torch.backends.cudnn.benchmark = False
        if self._cuda and "fp32" in {execution.precision, execution.fallback}:
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        self._fast: CpuNetwork | None = None
        with device_errors.loading_on(execution.device):
            model = network.model.to(execution.device)
            if self._cuda:
                model = model.to(memory_format=torch.channels_last)
            self._mean = torch.tensor(MEAN, device=execution.device).view(3, 1, 1)
            self._std = torch.tensor(STD, device=execution.device).view(3, 1, 1)
        if execution.kernels == "fast":
            from ..cpu.network import CpuNetwork

            self._fast = CpuNetwork(model)
        self._network: Callable[[Tensor], Tensor] = self._fast or _plain(model)

    def predict(self, pixels: Pixels, sizes: Sizes) -> list[Segmentation | Failure]:
        """Segment images of one shape.

        As many of them go together as the memory has room for. Where it does not suffice all the same, they
        go in halves, down to one by one; one that does not fit alone has failed, and only that one. So has
        one whose logits are not finite.

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

        Raises
        ------
        DeviceLost
            The device cannot compute anything more.
        """
        results: list[Segmentation | Failure] = []
        while len(results) < len(pixels):
            with self._turn, device_errors.named(self.plan.device):
                results += self._next(pixels[len(results) :], sizes[len(results) :])
        return results

    def logits(self, pixels: Pixels) -> Tensor:
        """Run the network on images of one shape (h, w, 3).

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, on the engine's device.

        Raises
        ------
        DeviceLost
            The device cannot compute anything more.
        """
        with self._turn, device_errors.named(self.plan.device), torch.inference_mode():
            return self._logits(pixels, self.plan.precision)

    def kernels(self) -> dict[str, int]:
        """Return which CPU kernels computed the last image and how many layers each; empty for torch's."""
        with self._turn:
            return self._fast.kernels() if self._fast is not None else {}

    def _next(self, pixels: Pixels, sizes: Sizes) -> Sequence[Segmentation | Failure]:
        """Predict some of the first images; return none where fewer of them are to be tried."""
        shape = pixels[0].shape
        count = min(len(pixels), self._limits.images(shape))
        if count:
            done = self._try_forward(pixels[:count], sizes[:count])
            if done is not None:
                return done
        if count > 1:
            self._limits.did_not_fit(shape, count)
            return []
        return [_no_memory(shape)]

    def _try_forward(self, pixels: Pixels, sizes: Sizes) -> list[Segmentation | Failure] | None:
        """Predict, or return None when memory does not suffice."""
        try:
            return self._forward(pixels, sizes)
        except (RuntimeError, MemoryError) as error:
            if not device_errors.is_out_of_memory(error):
                raise
        # Outside the handler: there the exception keeps the failed pass's tensors alive.
        if self._cuda:
            torch.cuda.empty_cache()
        return None

    def _forward(self, pixels: Pixels, sizes: Sizes) -> list[Segmentation | Failure]:
        results = self._predict_in(self.plan.precision, pixels, sizes)
        again = [index for index, result in enumerate(results) if result is None]
        if again and self.plan.fallback is not None:
            part = [pixels[index] for index in again], [sizes[index] for index in again]
            for index, result in zip(again, self._predict_in(self.plan.fallback, *part), strict=True):
                results[index] = result
        failure = _not_finite(self.plan.fallback or self.plan.precision)
        return [failure if result is None else result for result in results]

    def _predict_in(self, precision: str, pixels: Pixels, sizes: Sizes) -> list[Segmentation | None]:
        """Predict in a precision; None stands for an image whose logits are not finite in it."""
        with torch.inference_mode():
            logits = self._logits(pixels, precision)
            # On the device, so that it is waited for once. NaN is the largest of all, and not below anything.
            finite = logits.abs().amax((1, 2, 3)) <= _LARGEST_LOGIT
            pairs = [
                upsampled(one, height, width, self._asked, compiled=self._fast is not None)
                for one, (width, height) in zip(logits, sizes, strict=True)
            ]
            flat = self._to_numpy([finite, *(one for pair in pairs for one in pair if one is not None)])
        usable = next(flat).tolist()
        maps = [(next(flat), None if pair.confidence is None else next(flat)) for pair in pairs]
        return [Segmentation(*both, precision) if ok else None for both, ok in zip(maps, usable, strict=True)]

    def _logits(self, pixels: Pixels, precision: str) -> Tensor:
        if not self._cuda and torch.get_num_threads() != self.plan.threads:
            # OpenMP counts for each thread: without this the caller's may have another number.
            torch.set_num_threads(self.plan.threads)
        dtype = DTYPES.get(precision)
        with torch.autocast(self.plan.device.type, dtype) if dtype else contextlib.nullcontext():
            return self._network(self._to_device(pixels)).float()

    def _to_numpy(self, maps: Sequence[Tensor]) -> Iterator[LabelMap]:
        if not self._cuda:
            return (one.numpy() for one in maps)
        pinned = [torch.empty(m.shape, dtype=m.dtype, pin_memory=True) for m in maps]
        for target, source in zip(pinned, maps, strict=True):
            target.copy_(source, non_blocking=True)
        torch.cuda.current_stream(self.plan.device).synchronize()
        # Pinned memory is scarce and these maps wait for their writer: hand over ordinary copies.
        return (target.numpy().copy() for target in pinned)

    def _to_device(self, pixels: Pixels) -> Tensor:
        """Return float32, shape (images, 3, h, w), normalised as torchvision's preset does it."""
        batch = torch.from_numpy(np.stack(pixels))
        if self._cuda:
            batch = batch.pin_memory().to(self.plan.device, non_blocking=True)
        # Stacked pixels are channels-last already, which is what the GPU's kernels and ours want.
        batch = batch.permute(0, 3, 1, 2)
        if not self._cuda and self.plan.kernels == "torch":
            batch = batch.contiguous()
        return batch.float().div_(255).sub_(self._mean).div_(self._std)


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


def _not_finite(precision: str) -> Failure:
    way_out = (
        "float16 may be too narrow for these weights, try --precision fp32"
        if precision == "fp16"
        else "the weights are at fault, not the photo"
    )
    return Failure(
        FailureKind.NOT_FINITE,
        f"the network's logits are not finite (NaN or infinity), so no class can be told; {way_out}",
    )
