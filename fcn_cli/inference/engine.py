"""Batches of RGB pixels to label maps: forward pass, upsampling and argmax."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from ..common.errors import Failure
from ..common.label_map import Segmentation
from ..models.loading import LoadedModel
from . import device_errors
from .batch_limits import BatchLimits
from .device_network import DeviceNetwork, Pixels
from .execution import ExecutionConfig
from .failures import not_finite, out_of_memory
from .options import ViewOptions
from .upsampling import LABELS_ONLY, PredictionOptions, upsample
from .views import LARGEST_LOGIT, ViewNetwork

WHOLE_PHOTO = ViewOptions()
"""The network sees each photo once, as a whole."""

Sizes = Sequence[tuple[int, int]]
"""The (width, height) in pixels of each label map."""


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
            with self._lock, device_errors.detect_lost_device(self.execution.device):
                done = len(results)
                more = smaller[done] if smaller else ()
                if self.views.is_needed(pixels[done], more):
                    results += [self.views.predict([pixels[done], *more], sizes[done])]
                else:
                    results += self._predict_some(pixels[done:], sizes[done:])
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
            The device cannot compute any more.
        """
        with self._lock, device_errors.detect_lost_device(self.execution.device), torch.inference_mode():
            return self._device_network.logits(pixels, self.execution.precision)

    def kernels(self) -> dict[str, int]:
        """Return the number of layers of the last image by the CPU kernel that computed them.

        Empty for PyTorch's kernels.
        """
        with self._lock:
            return self._device_network.kernels()

    def _predict_some(self, pixels: Pixels, sizes: Sizes) -> Sequence[Segmentation | Failure]:
        """Predict the first images; return none where a smaller batch must be tried."""
        shape = pixels[0].shape
        count = min(len(pixels), self._limits.images(shape))
        if count:
            results = self._device_network.unless_out_of_memory(
                lambda: self._predict_batch(pixels[:count], sizes[:count])
            )
            if results is not None:
                return results
        if count > 1:
            self._limits.did_not_fit(shape, count)
            return []
        return [out_of_memory(shape)]

    def _predict_batch(self, pixels: Pixels, sizes: Sizes) -> list[Segmentation | Failure]:
        """Predict a batch; images whose logits are not finite are predicted again in the fallback."""
        precision, fallback = self.execution.precision, self.execution.fallback
        results = self._predict_in(precision, pixels, sizes)
        lacking = [index for index, result in enumerate(results) if result is None]
        if lacking and fallback is not None:
            repeated = self._predict_in(
                fallback, [pixels[index] for index in lacking], [sizes[index] for index in lacking]
            )
            for index, result in zip(lacking, repeated, strict=True):
                results[index] = result
        failure = not_finite(fallback or precision)
        return [failure if result is None else result for result in results]

    def _predict_in(self, precision: str, pixels: Pixels, sizes: Sizes) -> list[Segmentation | None]:
        """Predict in one precision; None stands for an image whose logits are not finite."""
        with torch.inference_mode():
            logits = self._device_network.logits(pixels, precision)
            # On the device, to wait for it once. The maximum with a NaN is NaN, which compares as False.
            finite = logits.abs().amax((1, 2, 3)) <= LARGEST_LOGIT
            maps = [
                upsample(image, height, width, self._options, compiled=self._device_network.compiled)
                for image, (width, height) in zip(logits, sizes, strict=True)
            ]
            present = [tensor for image in maps for tensor in image if tensor is not None]
            arrays = iter(self._device_network.to_host([finite, *present]))
        is_finite = next(arrays).tolist()
        pairs = [(next(arrays), None if image.confidence is None else next(arrays)) for image in maps]
        return [
            Segmentation(labels, confidence, precision) if usable else None
            for (labels, confidence), usable in zip(pairs, is_finite, strict=True)
        ]
