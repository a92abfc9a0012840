"""The Python API: photos in, results out, by the same engine as ``fcn segment``."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .common import limits, palettes
from .common.class_names import class_name
from .common.errors import Failure, ImageError, RequestError
from .common.label_map import Segmentation, count_classes
from .inference.engine import Engine
from .inference.execution import resolve_execution
from .inference.options import InferenceOptions, ViewOptions
from .inference.upsampling import PredictionOptions
from .inputs import photos
from .inputs.decode_options import DEFAULT_SHORT_SIDE, ONE_SCALE, check_scales
from .inputs.look_ahead import LookAhead
from .inputs.photos import Photo, Prepared
from .models import registry
from .models.loading import LoadedModel
from .models.request import ModelRequest
from .outputs import overlay
from .outputs.looks import DEFAULT_OPACITY, LookRequest, find_classes

_NOTEBOOK_SIDE = 800
"""The longest side in pixels of what a notebook shows; it is kept in the notebook's file."""


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
    In a notebook it shows its overlay and the classes in it.
    """

    labels: NDArray[np.uint8] = field(repr=False)
    image: Image.Image
    class_names: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    confidence: NDArray[np.uint8] | None = field(default=None, repr=False)

    def color(self, palette: str = "hub") -> Image.Image:
        """Return a paletted ("P") image of the labels; `palette` as for ``--palette``."""
        return overlay.colored(self.labels, palettes.load(palette))

    def overlay(
        self,
        palette: str = "hub",
        *,
        opacity: float = DEFAULT_OPACITY,
        borders: bool = True,
        legend: bool = False,
    ) -> Image.Image:
        """Return the photo with the class colours over it (`opacity` 0 to 1), class 0 left as it is.

        `palette` is as for ``--palette``; `borders` draws lines between classes, `legend` adds the classes'
        names below. Raises RequestError when one of them is wrong.
        """
        if not 0 <= opacity <= 1:
            raise RequestError(f"opacity {opacity}: a number from 0 to 1 is needed")
        look = LookRequest(palette, opacity, legend).resolve(self.class_names)
        return overlay.overlay(self.image, self.labels, replace(look, borders=borders))

    def cutout(self, classes: Sequence[str | int] | None = None) -> Image.Image:
        """Return the photo as RGBA, transparent but for some classes, given by name or index.

        None is all classes but 0. Raises RequestError when there is no such class.
        """
        kept = None if classes is None else find_classes([str(name) for name in classes], self.class_names)
        return overlay.cutout(self.image, self.labels, kept)

    def stats(self) -> list[ClassShare]:
        """Return the classes present, by index."""
        return [
            ClassShare(index, class_name(self.class_names, index), pixels, pixels / self.labels.size)
            for index, pixels in count_classes(self.labels).items()
        ]

    def _repr_html_(self) -> str:
        """Return the overlay and a legend, for a notebook."""
        shown = self.overlay()
        shown.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        stream = io.BytesIO()
        shown.save(stream, "JPEG", quality=90)
        colors = palettes.load("hub")
        legend = " ".join(
            f'<span style="white-space:nowrap"><span style="color:rgb({red},{green},{blue})">&#9632;</span> '
            f"{html.escape(share.class_name)} {share.fraction:.1%}</span>"
            for share in self.stats()
            for red, green, blue in [colors[share.class_id].tolist()]
        )
        data = base64.b64encode(stream.getvalue()).decode()
        return f'<img src="data:image/jpeg;base64,{data}" alt="segmentation"><div>{legend}</div>'


class SegmenterOptions(TypedDict, total=False):
    """The keyword arguments of `Segmenter`, with the defaults and meanings of ``fcn segment``'s options.

    `weights` is a checkpoint file instead of the official weights; `class_names` a file of class names, or
    ``voc``. `resize` is the short side in pixels fed to the network, or None for the photo's own size (the
    default with tiles). For `threads` and `batch_size` None is auto. `offline` forbids to download weights.
    With `confidence` results also say how probable the winning class is. Pixels whose class has a smaller
    probability than `min_confidence` (0 to 1) become void (255). `tile` is the side of the tiles of a large
    photo in pixels, `overlap` what neighbours share; predictions are averaged over `scales`, factors of the
    network's input size, and with `flip` over the photo and its mirror image.
    """

    weights: str | os.PathLike[str] | None
    class_names: str | None
    resize: int | None
    device: str
    precision: str
    kernels: str
    threads: int | None
    batch_size: int | None
    offline: bool
    confidence: bool
    min_confidence: float
    tile: int | None
    overlap: int | None
    scales: Sequence[float]
    flip: bool


class Segmenter:
    """A network that is ready to segment photos. Threads may share it.

    Parameters
    ----------
    backbone
        ``resnet50``, ``resnet101`` or ``mobilenet_v2``.
    **options
        See `SegmenterOptions`.

    Raises
    ------
    RequestError, WeightsError
        What is asked for does not exist, or the weights cannot be had or do not fit.
    DeviceLost
        The device fails, or has not enough memory for the network.
    TypeError
        An option has another name.
    """

    def __init__(
        self, backbone: str = registry.DEFAULT_BACKBONE, **options: Unpack[SegmenterOptions]
    ) -> None:
        _check(options)
        inference = InferenceOptions(
            options.get("device", "auto"),
            options.get("precision", "auto"),
            options.get("kernels", "auto"),
            options.get("batch_size"),
            options.get("threads"),
            options.get("min_confidence", 0.0),
            ViewOptions(options.get("tile"), options.get("overlap"), options.get("flip", False)),
        )
        self._scales = check_scales(options.get("scales", ONE_SCALE))
        # A device that is not there is found out before weights are looked for or downloaded.
        execution = resolve_execution(inference)
        weights = options.get("weights")
        model = ModelRequest(
            backbone,
            os.fspath(weights) if weights is not None else None,
            options.get("class_names"),
            options.get("offline", False),
        ).resolve()
        self.network: LoadedModel = model.load(model.weights_file())
        self.resize = options.get("resize", None if options.get("tile") else DEFAULT_SHORT_SIDE)
        wanted = PredictionOptions(options.get("confidence", False), inference.min_confidence)
        self._engine = Engine(self.network, execution, wanted, inference.views)

    def __call__(self, photo: Photo) -> Result:
        """Segment one photo.

        Parameters
        ----------
        photo
            A path, an encoded image as bytes or in an open binary file (read from where it is), a Pillow
            image, or RGB pixels as a uint8 array of shape (height, width, 3).

        Raises
        ------
        ImageError
            It cannot be decoded, is too large for the memory, or the network's answer is not finite.
        TypeError
            It is something else.
        DeviceLost
            The device cannot compute anything more.
        """
        outcome = self._segment([photos.prepare(photos.take(photo), self.resize, self._scales)])[0]
        if isinstance(outcome, ImageError):
            raise outcome
        return outcome

    @overload
    def batch(self, photos: Iterable[Photo], on_error: Literal["raise"] = "raise") -> Iterator[Result]: ...

    @overload
    def batch(
        self, photos: Iterable[Photo], on_error: Literal["return"]
    ) -> Iterator[Result | ImageError]: ...

    def batch(
        self, photos: Iterable[Photo], on_error: Literal["raise", "return"] = "raise"
    ) -> Iterator[Result | ImageError]:
        """Segment many photos, decoded beside the network; on a GPU those of one shape go together.

        Parameters
        ----------
        photos
            As for a call. They are taken from the iterable a bounded number ahead; an array or a Pillow image
            is copied and a file read when it is taken, so that its buffer may be used for the next one.
        on_error
            ``raise``: the first photo that cannot be segmented raises its `ImageError`, after the results of
            those before it. ``return``: the `ImageError` stands in its place, and the others go on.

        Yields
        ------
        Result or ImageError
            One for each photo, in order.

        Raises
        ------
        ImageError, TypeError, DeviceLost
            As for a call; TypeError whatever `on_error` is.
        ValueError
            `on_error` is something else.
        """
        if on_error not in {"raise", "return"}:
            raise ValueError(f"on_error is {on_error!r}; 'raise' or 'return' is needed")
        return self._in_order(photos, on_error)

    def _in_order(self, given: Iterable[Photo], on_error: str) -> Iterator[Result | ImageError]:
        batch_size = self._engine.execution.batch_size
        with LookAhead[Result](given, self.resize, self._scales, batch_size) as ahead:
            while (entry := ahead.first()) is not None:
                if entry.outcome is None:
                    together = ahead.like_first()
                    outcomes = self._segment([one.future.result() for one in together])
                    for one, outcome in zip(together, outcomes, strict=True):
                        one.outcome = outcome
                ahead.drop_first()
                assert entry.outcome is not None  # noqa: S101 - the first is among those together
                if isinstance(entry.outcome, ImageError) and on_error == "raise":
                    raise entry.outcome
                yield entry.outcome

    def _segment(self, prepared: Sequence[Prepared]) -> list[Result | ImageError]:
        """Segment photos that have one shape for the network."""
        predicted = self._engine.predict(
            [one.pixels for one in prepared],
            [one.image.size for one in prepared],
            [one.smaller for one in prepared],
        )
        return [self._result(*pair) for pair in zip(prepared, predicted, strict=True)]

    def _result(self, photo: Prepared, predicted: Segmentation | Failure) -> Result | ImageError:
        if isinstance(predicted, Failure):
            return ImageError(*predicted)
        notes = photo.notes + self._engine.views.describe(photo.pixels)
        return Result(predicted.labels, photo.image, self.network.class_names, notes, predicted.confidence)


def _check(options: SegmenterOptions) -> None:
    """Refuse options that nobody knows, and numbers out of range."""
    unknown = options.keys() - SegmenterOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"Segmenter has no option {', '.join(sorted(unknown))}")
    side = limits.LONGEST_SIDE
    most = {
        "resize": side,
        "threads": limits.MOST_THREADS,
        "batch_size": limits.MOST_IN_A_BATCH,
        "tile": side,
    }
    for name, maximum in most.items():
        number = options.get(name)
        if isinstance(number, int) and not 1 <= number <= maximum:
            raise RequestError(f"{name} {number}: a whole number from 1 to {maximum} is needed")
    confidence = options.get("min_confidence", 0.0)
    if not 0 <= confidence <= 1:
        raise RequestError(f"min_confidence {confidence}: a probability is from 0 to 1")
