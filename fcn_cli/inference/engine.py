"""Batches of RGB pixels to label maps: forward pass, upsampling and argmax."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from torch import Tensor

from ..common.errors import Failure
from ..common.label_map import Segmentation
from ..models.weights import LoadedModel
from .batch_limits import BatchLimits
from .device import Device, Upload
from .device_network import DeviceNetwork, Photo, Pixels
from .execution import ExecutionConfig
from .failures import not_finite
from .launching import Launched, Launcher, Outcome, Sizes
from .options import ViewOptions
from .upsampling import LABELS_ONLY, PredictionOptions
from .views import ViewNetwork

WHOLE_PHOTO = ViewOptions()
"""The network sees each photo once, as a whole."""


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
        self._lock = threading.Lock()
        limits = BatchLimits(execution, network.backbone.bytes_per_pixel)
        self._device_network = DeviceNetwork(network.model, execution, network.backbone.gflop_per_megapixel)
        self._launcher = Launcher(self._device_network, limits, options)
        self.views = ViewNetwork(self._device_network, limits, views, options, network.backbone.stride)

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
                with self._lock, self._launcher.computing():
                    outcomes = self._launcher.predict(self.execution.precision, pixels[done:], sizes[done:])
                results += self.complete(pixels[done:], sizes[done:], outcomes)
            else:
                more = smaller[done] if smaller else ()
                with self._lock, self._launcher.computing():
                    results += [self.views.predict([pixels[done], *more], sizes[done])]
        return results

    def launch(self, upload: Upload, sizes: Sizes) -> Launched:
        """Begin to segment a batch, as `predict` does; on a CPU it is done when this returns.

        `upload` is RGB, uint8, shape (images, h, w, 3), on its way to `device`; `sizes` as of `predict`. The
        result is for `collect`, and what that returns for `complete`. Raises DeviceLost.
        """
        with self._lock, self._launcher.computing():
            return self._launcher.launch(self.execution.precision, upload.receive(), sizes)

    def collect(self, launched: Launched) -> list[Outcome]:
        """Wait for the results of a launched batch, in any thread; raises DeviceLost."""
        outcomes: list[Outcome] = []
        with self._launcher.computing():
            for part in launched:
                outcomes += [part] if isinstance(part, Failure) else part.collect()
        return outcomes

    def complete(
        self, pixels: Pixels, sizes: Sizes, outcomes: Sequence[Outcome]
    ) -> list[Segmentation | Failure]:
        """Predict images whose logits were not finite again in the fallback, where there is one.

        `pixels` and `sizes` are as of `predict`; `outcomes` is what `collect` returned for the first of them.
        """
        precision, fallback = self.execution.precision, self.execution.fallback
        completed = list(outcomes)
        for index, outcome in enumerate(outcomes):
            if outcome is None and fallback is not None:
                some = slice(index, index + 1)
                with self._lock, self._launcher.computing():
                    (completed[index],) = self._launcher.predict(fallback, pixels[some], sizes[some])
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
        with self._lock, self._launcher.computing():
            return self._device_network.logits(pixels, self.execution.precision)

    def kernels(self) -> dict[str, int]:
        """Return the number of layers of the last image by the CPU kernel that computed them.

        Empty for PyTorch's kernels.
        """
        with self._lock:
            return self._device_network.kernels()
