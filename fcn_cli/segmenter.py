"""The Python API: one photo in, one result out, by the same engine as ``fcn segment``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import backbones, images, outputs, palettes
from .backbones import Network
from .engine import Engine, plan
from .errors import Failure, ImageError
from .job import Identity, Job
from .labelmaps import count_classes
from .settings import DEFAULT_SHORT_SIDE
from .upsample import Asked


@dataclass(frozen=True)
class ClassShare:
    """How much of a photo one class covers: pixels, and their share from 0 to 1."""

    class_id: int
    class_name: str
    pixels: int
    fraction: float


@dataclass(frozen=True)
class Result:
    """What a network sees in one photo.

    `labels` is uint8, shape (height, width), at the upright photo's size: the class index of each pixel.
    `image` is the upright RGB photo, `notes` what was done to it beyond decoding. `confidence`, if it was
    asked for, is the winning class's softmax probability times 255, of the same shape and type as `labels`.
    """

    labels: NDArray[np.uint8]
    image: Image.Image
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    confidence: NDArray[np.uint8] | None = None

    def color(self, palette: str = "hub") -> Image.Image:
        """Return a paletted ("P") image of the labels; `palette` as for ``--palette``."""
        return outputs.colored(self.labels, palettes.load(palette))

    def overlay(self, palette: str = "hub") -> Image.Image:
        """Return the photo blended with the class colours, class 0 left as it is."""
        return outputs.blended(self.image, self.labels, palettes.load(palette))

    def stats(self) -> list[ClassShare]:
        """Return the classes present, by index."""
        return [
            ClassShare(index, outputs.class_name(self.class_names, index), pixels, pixels / self.labels.size)
            for index, pixels in count_classes(self.labels).items()
        ]


class Segmenter:
    """A network that is ready to segment photos one by one.

    Parameters
    ----------
    backbone
        ``resnet50``, ``resnet101`` or ``mobilenet_v2``.
    weights
        A checkpoint file instead of the official weights.
    class_names
        A file of class names, or ``voc``; see ``--class-names``.
    resize
        Short side in pixels fed to the network, or None for the photo's own size.
    device, precision, kernels, threads
        As the options of ``fcn segment``; `threads` None is auto.
    offline
        Never use the network to get weights.
    confidence
        Also say how probable the winning class is.
    min_confidence
        Pixels whose class has a smaller probability become void (255).

    Raises
    ------
    RequestError, WeightsError
        What is asked for does not exist, or the weights cannot be had or do not fit.
    """

    def __init__(
        self,
        backbone: str = backbones.DEFAULT_BACKBONE,
        *,
        weights: str | os.PathLike[str] | None = None,
        class_names: str | None = None,
        resize: int | None = DEFAULT_SHORT_SIDE,
        device: str = "auto",
        precision: str = "auto",
        kernels: str = "fast",
        threads: int | None = None,
        offline: bool = False,
        confidence: bool = False,
        min_confidence: float = 0.0,
    ) -> None:
        job = Job(
            backbone=backbone,
            weights_file=os.fspath(weights) if weights is not None else None,
            class_names=class_names,
            offline=offline,
        )
        self.network: Network = Identity.of(job).load_network(offline=offline)
        self.resize = resize
        self._engine = Engine(
            self.network, plan(device, precision, kernels, 1, threads), Asked(confidence, min_confidence)
        )

    def __call__(self, photo: str | os.PathLike[str] | Image.Image) -> Result:
        """Segment one photo, given as a file or as a Pillow image.

        Raises
        ------
        ImageError
            It cannot be decoded, or is too large for the memory.
        """
        if isinstance(photo, Image.Image):
            image, notes = images.from_image(photo)
        else:
            image, notes = images.decode(photo)[:2]
        pixels, more = images.network_input(image, self.resize)
        predicted = self._engine.predict([pixels], [image.size])[0]
        if isinstance(predicted, Failure):
            raise ImageError(*predicted)
        return Result(predicted.labels, image, self.network.class_names, notes + more, predicted.confidence)
