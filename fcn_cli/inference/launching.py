"""Batches on the device: as many images at a time as fit into memory, begun now and waited for later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..common.errors import Failure
from ..common.label_map import Segmentation
from . import device_errors
from .batch_limits import BatchLimits
from .device import Download
from .device_network import DeviceNetwork, Pixels
from .failures import out_of_memory
from .upsampling import PredictionOptions, upsample
from .views import LARGEST_LOGIT

Sizes = Sequence[tuple[int, int]]
"""The (width, height) in pixels of each label map."""

Outcome: TypeAlias = Segmentation | Failure | None
"""The result for an image; None where its logits are not finite."""

T = TypeVar("T")


class Part(NamedTuple):
    """Images that the device has begun to segment, and how."""

    download: Download
    precision: str
    has_confidence: bool

    def collect(self) -> list[Outcome]:
        """Wait for the results."""
        finite, *maps = self.download.arrays()
        step = 2 if self.has_confidence else 1
        return [
            Segmentation(maps[step * index], maps[step * index + 1] if step == 2 else None, self.precision)
            if is_finite
            else None
            for index, is_finite in enumerate(finite.tolist())
        ]


Launched: TypeAlias = Sequence[Part | Failure]
"""A batch that the device has begun to segment; a failure stands for an image that does not fit."""


class Launcher:
    """Begins to segment batches; one thread at a time may use it.

    Parameters
    ----------
    network
        The network on its device.
    limits
        How many inputs of a shape fit into memory.
    options
        What to predict beside the classes.
    """

    def __init__(self, network: DeviceNetwork, limits: BatchLimits, options: PredictionOptions) -> None:
        self._network = network
        self._limits = limits
        self._options = options

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute on the device, in inference mode; an error that means a lost device becomes DeviceLost."""
        device = self._network.access
        with device_errors.detect_lost_device(device.name), device.active(), torch.inference_mode():
            yield

    def launch(self, precision: str, batch: Tensor, sizes: Sizes) -> Launched:
        """Begin to segment a batch on the device: uint8, shape (images, h, w, 3)."""
        parts: list[Part | Failure] = []
        done = 0
        while done < len(sizes):
            begin = partial(self._begin, precision, batch[done:], sizes[done:])
            count, part = self._within_memory(tuple(batch.shape[1:]), len(sizes) - done, begin)
            parts.append(part)
            done += count
        return parts

    def predict(self, precision: str, pixels: Pixels, sizes: Sizes) -> Sequence[Outcome]:
        """Segment as many of the first images as fit into memory, and wait for them."""

        def predict(count: int) -> list[Outcome]:
            batch = self._network.upload(pixels[:count])
            return self._begin(precision, batch, sizes, count).collect()

        _, outcomes = self._within_memory(pixels[0].shape, len(pixels), predict)
        return [outcomes] if isinstance(outcomes, Failure) else outcomes

    def _within_memory(
        self, shape: tuple[int, ...], wanted: int, run: Callable[[int], T]
    ) -> tuple[int, T | Failure]:
        """Run for as many of the images wanted as fit into memory; return that number and the result."""
        while True:
            count = min(wanted, self._limits.images(shape))
            result = self._network.unless_out_of_memory(partial(run, count)) if count else None
            if result is not None:
                return count, result
            if count <= 1:
                return 1, out_of_memory(shape)
            self._limits.did_not_fit(shape, count)

    def _begin(self, precision: str, batch: Tensor, sizes: Sizes, count: int) -> Part:
        """Begin to predict the first images of a batch on the device in one precision."""
        network = self._network
        logits = network.forward(batch[:count], precision)
        # On the device, to wait for it once. The maximum with a NaN is NaN, which compares as False.
        finite = logits.abs().amax((1, 2, 3)) <= LARGEST_LOGIT
        maps = [
            upsample(
                image, height, width, self._options, compiled=network.compiled, kernel=network.label_kernel
            )
            for image, (width, height) in zip(logits, sizes[:count], strict=True)
        ]
        tensors = [tensor for image in maps for tensor in image if tensor is not None]
        return Part(network.access.download([finite, *tensors]), precision, self._options.confidence)
