"""Batches of RGB pixels to label maps: forward pass, upsampling and argmax."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..common.errors import Failure
from ..common.label_map import Segmentation
from ..models.loading import LoadedModel
from . import device_errors
from .batch_limits import BatchLimits
from .device import Device, Download, Upload
from .device_network import DeviceNetwork, Photo, Pixels
from .execution import ExecutionConfig
from .failures import not_finite, out_of_memory
from .options import ViewOptions
from .upsampling import LABELS_ONLY, PredictionOptions, upsample
from .views import LARGEST_LOGIT, ViewNetwork

WHOLE_PHOTO = ViewOptions()
"""The network sees each photo once, as a whole."""

Sizes = Sequence[tuple[int, int]]
"""The (width, height) in pixels of each label map."""

Outcome: TypeAlias = Segmentation | Failure | None
"""The result for an image; None where its logits are not finite."""

T = TypeVar("T")


class _Part(NamedTuple):
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


Launched: TypeAlias = "Sequence[_Part | Failure]"
"""A batch that the device has begun to segment; a failure stands for an image that does not fit."""


class Engine:
    """A network on its device, ready to predict; see `DeviceNetwork` for the process settings it changes.

    Threads may share it. Their calls run one after the other: one forward pass keeps the whole device busy,
    and buffers for several at once would only take memory.

    Parameters
    ----------
    network
        The network with its weights.
    execution
        Where and how it runs.
    options
        What to predict beside the classes.
    views
        The tiles in which the network sees a photo, and whether its mirror image counts too.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    """

    def __init__(
        self,
        network: LoadedModel,
        execution: ExecutionConfig,
        options: PredictionOptions = LABELS_ONLY,
        views: ViewOptions = WHOLE_PHOTO,
    ) -> None:
        self.execution = execution
        self.network = network
        self._options = options
        self._lock = threading.Lock()
        self._limits = BatchLimits(execution, network.backbone.bytes_per_pixel)
        self._device_network = DeviceNetwork(network.model, execution)
        self.views = ViewNetwork(self._device_network, self._limits, views, options, network.backbone.stride)

    @property
    def device(self) -> Device:
        """The device, for transfers beside the computation."""
        return self._device_network.access

    def sees_whole(self, pixels: Photo, smaller: Sequence[Pixels] = ()) -> bool:
        """Say whether the network sees a photo once, as a whole: only such a batch can be launched."""
        return not self.views.is_needed(pixels, smaller[0] if smaller else ())

    def predict(
        self, pixels: Pixels, sizes: Sizes, smaller: Sequence[Pixels] = ()
    ) -> list[Segmentation | Failure]:
        """Segment images of one shape.

        A batch is as large as the free memory allows. A batch that still runs out of memory is halved, down
        to single images. An image that does not fit alone fails, and only that one; so does an image whose
        logits are not finite.

        Parameters
        ----------
        pixels
            RGB, uint8, each of the same shape (h, w, 3).
        sizes
            The (width, height) of each label map in pixels.
        smaller
            For each image the same photo at smaller sizes, whose probabilities are averaged; or nothing.

        Raises
        ------
        DeviceLost
            The device cannot compute any more.
        """
        results: list[Segmentation | Failure] = []
        while len(results) < len(pixels):
            done = len(results)
            if self.sees_whole(pixels[done], smaller[done:]):
                outcomes = self._predict_some(self.execution.precision, pixels[done:], sizes[done:])
                results += self.complete(pixels[done:], sizes[done:], outcomes)
            else:
                more = smaller[done] if smaller else ()
                with self._lock, self._computing():
                    results += [self.views.predict([pixels[done], *more], sizes[done])]
        return results

    def launch(self, upload: Upload, sizes: Sizes) -> Launched:
        """Begin to segment a batch, as `predict` does; on a CPU it is done when this returns.

        Parameters
        ----------
        upload
            RGB, uint8, shape (images, h, w, 3), on its way to `device`.
        sizes
            The (width, height) of each label map in pixels.

        Returns
        -------
        Launched
            For `collect`, and what that returns for `complete`.

        Raises
        ------
        DeviceLost
            The device cannot compute any more.
        """
        parts: list[_Part | Failure] = []
        done = 0
        with self._lock, self._computing():
            batch = upload.receive()
            shape = tuple(batch.shape[1:])
            while done < len(sizes):
                launch = partial(self._launch, self.execution.precision, batch[done:], sizes[done:])
                count, part = self._within_memory(shape, len(sizes) - done, launch)
                parts.append(part)
                done += count
        return parts

    def collect(self, launched: Launched) -> list[Outcome]:
        """Wait for the results of a launched batch, in any thread.

        Raises
        ------
        DeviceLost
            The device cannot compute any more.
        """
        outcomes: list[Outcome] = []
        with self._computing():
            for part in launched:
                outcomes += [part] if isinstance(part, Failure) else part.collect()
        return outcomes

    def complete(
        self, pixels: Pixels, sizes: Sizes, outcomes: Sequence[Outcome]
    ) -> list[Segmentation | Failure]:
        """Predict the first images whose logits were not finite again in the fallback, where there is one.

        Parameters
        ----------
        pixels, sizes
            As of `predict`.
        outcomes
            What `collect` returned for the first of these images.
        """
        precision, fallback = self.execution.precision, self.execution.fallback
        completed = list(outcomes)
        for index, outcome in enumerate(outcomes):
            if outcome is None and fallback is not None:
                some = slice(index, index + 1)
                (completed[index],) = self._predict_some(fallback, pixels[some], sizes[some])
        failure = not_finite(fallback or precision)
        return [failure if outcome is None else outcome for outcome in completed]

    def logits(self, pixels: Pixels) -> Tensor:
        """Run the network on images of one shape (h, w, 3).

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, on the engine's device.

        Raises
        ------
        DeviceLost
            The device cannot compute any more.
        """
        with self._lock, self._computing():
            return self._device_network.logits(pixels, self.execution.precision)

    def kernels(self) -> dict[str, int]:
        """Return the number of layers of the last image by the CPU kernel that computed them.

        Empty for PyTorch's kernels.
        """
        with self._lock:
            return self._device_network.kernels()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute on the device, in inference mode; an error that means a lost device becomes DeviceLost."""
        device = self.device
        with device_errors.detect_lost_device(device.name), device.active(), torch.inference_mode():
            yield

    def _predict_some(self, precision: str, pixels: Pixels, sizes: Sizes) -> Sequence[Outcome]:
        """Predict as many of the first images as fit into memory."""

        def predict(count: int) -> list[Outcome]:
            batch = self._device_network.upload(pixels[:count])
            return self._launch(precision, batch, sizes, count).collect()

        with self._lock, self._computing():
            _, outcomes = self._within_memory(pixels[0].shape, len(pixels), predict)
        return [outcomes] if isinstance(outcomes, Failure) else outcomes

    def _within_memory(
        self, shape: tuple[int, ...], wanted: int, run: Callable[[int], T]
    ) -> tuple[int, T | Failure]:
        """Run for as many of the images wanted as fit into memory; return that number and the result."""
        while True:
            count = min(wanted, self._limits.images(shape))
            result = self._device_network.unless_out_of_memory(partial(run, count)) if count else None
            if result is not None:
                return count, result
            if count <= 1:
                return 1, out_of_memory(shape)
            self._limits.did_not_fit(shape, count)

    def _launch(self, precision: str, batch: Tensor, sizes: Sizes, count: int) -> _Part:
        """Begin to predict the first images of a batch on the device in one precision."""
        network = self._device_network
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
        return _Part(network.access.download([finite, *tensors]), precision, self._options.confidence)
