"""The Python API: images in, results out, by the same engine as ``fcn segment``."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .common import limits, palettes
from .common.class_map import REST
from .common.class_names import class_name
from .common.errors import Failure, FcnError, ImageError, RequestError
from .common.label_map import Segmentation, count_classes
from .inference.engine import Engine
from .inference.execution import resolve_execution
from .inference.labels import PredictionOptions
from .inference.options import InferenceOptions, MinConfidence, ViewOptions
from .inputs.decode_options import DEFAULT_SHORT_SIDE, ONE_SCALE, InputSize, check_scales
from .inputs.rgb import to_srgb
from .inputs.samples import Rendering
from .inputs.user_images import ImageLike, LookAhead, UserImage, detached
from .models import registry
from .models.request import ModelRequest
from .models.weights import LoadedModel
from .outputs import overlay
from .outputs.label_rules import LabelRules, read_map
from .outputs.looks import DEFAULT_OPACITY, LookRequest, read_color

_SHOWN_CLASSES = 5
_NOTEBOOK_SIDE = 800
"""The longest side in pixels of what a notebook shows; it is kept in the notebook's file."""


@dataclass(frozen=True)
class ClassShare:
    """How much of an image one class covers: pixels, and their share from 0 to 1."""

    class_id: int
    class_name: str
    pixels: int
    fraction: float


@dataclass(frozen=True, repr=False)
class Result:
    """What a network sees in one image.

    `labels` is uint8, shape (height, width), at the upright image's size: the class index of each pixel.
    `image` is the upright RGB image, `notes` what was done to it beyond decoding. `confidence`, if it was
    asked for, is the winning class's softmax probability times 255, of the same shape and type as `labels`.
    `logits`, if they were asked for, are float16, shape (classes, rows, columns), at the network's stride,
    of the network's own classes. `source` is the image's path, ``image 3`` for the fourth one of a batch that
    has no path, or empty. In a notebook it shows its overlay and the classes in it; as text, its source, size
    and classes. `is_tiled` says that the network saw the image in several views.
    """

    labels: NDArray[np.uint8]
    image: Image.Image
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    confidence: NDArray[np.uint8] | None = None
    source: str = ""
    background_class: int | None = 0
    logits: NDArray[np.float16] | None = None
    is_tiled: bool = False

    def __repr__(self) -> str:
        name = f"{self.source}, " if self.source else ""
        shares = sorted(self.stats(), key=lambda share: -share.pixels)
        shown = [f"{share.class_name} {share.fraction:.1%}" for share in shares[:_SHOWN_CLASSES]]
        more = f" and {len(shares) - _SHOWN_CLASSES} more" if len(shares) > _SHOWN_CLASSES else ""
        height, width = self.labels.shape
        return f"<Result {name}{width}x{height}: {', '.join(shown)}{more}>"

    def color(self, palette: str = "hub") -> Image.Image:
        """Return a paletted ("P") image of the labels; `palette` as for ``--palette``."""
        with _in_api_terms():
            colors = palettes.load(palette)
        return overlay.colored(self.labels, colors)

    def overlay(
        self,
        palette: str = "hub",
        *,
        opacity: float = DEFAULT_OPACITY,
        borders: bool = True,
        legend: bool = False,
    ) -> Image.Image:
        """Return the image with the class colours over it (`opacity` 0 to 1), the background left as it is.

        `palette` is as for ``--palette``; `borders` draws lines between classes, `legend` adds the classes'
        names below. Raises RequestError when one of them is wrong.
        """
        if not 0 <= opacity <= 1:
            raise RequestError(f"opacity {opacity}: a number from 0 to 1 is needed")
        with _in_api_terms():
            request = LookRequest(palette, opacity, legend)
            look = request.resolve(self.class_names, background_class=self.background_class)
        return overlay.overlay(to_srgb(self.image), self.labels, replace(look, borders=borders))

    def cutout(
        self,
        classes: str | int | Sequence[str | int] | None = None,
        *,
        crop: int | None = None,
        background: str | None = None,
    ) -> Image.Image:
        """Return the image as RGBA, transparent but for one or several classes, given by name or index.

        None is all classes but the background. With a `crop` the image is cut to the box of these classes,
        with so many pixels around it. With a `background`, ``white`` or ``#rrggbb``, it is RGB on that
        colour. Raises RequestError when there is no such class or colour.
        """
        wanted = [classes] if isinstance(classes, str | int) else classes
        try:
            color = None if background is None else read_color(background)
        except ValueError:
            raise RequestError(
                f"background {background!r}: a colour such as 'white' or '#rrggbb' is needed"
            ) from None
        names = None if wanted is None else list(map(str, wanted))
        with _in_api_terms():
            request = LookRequest(classes=names, crop=crop, background=color)
            style = request.resolve(self.class_names, background_class=self.background_class)
        return overlay.cutout(to_srgb(self.image), self.labels, style.cutout)

    def probabilities(self) -> NDArray[np.float32]:
        """Return each class's probability: float32, shape (classes, height, width), of the network's classes.

        It takes 4 bytes for each class and pixel. Raises RequestError where there are no `logits`, or those
        of tiles, whose cells end beyond the image.
        """
        if self.logits is None or self.is_tiled:
            raise RequestError("probabilities need logits=True, and an image that is seen as a whole")
        from .inference.labels import probabilities

        return probabilities(self.logits, self.labels.shape)

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
    """The keyword arguments of `Segmenter`, each as the option of ``fcn segment``; any may be left out."""

    weights: str | os.PathLike[str] | None
    """A checkpoint file; None: the official weights."""
    class_names: str | os.PathLike[str] | None
    """A file with a class name on each line, or ``voc``; None: the official ones, or ``class_0`` …"""
    network_card: str | os.PathLike[str] | None
    """The checkpoint's card, a TOML file; None: the one beside it, if there is one."""
    offline: bool
    """Never download weights. Default: False."""
    resize: int | None
    """The short side fed to the network, in pixels; None: the image's own. Default: what the card
    says, else 520; with `tile` None."""
    tile: int | None
    """The side in pixels (from 128) of the tiles that a large image is cut into; None: no tiles."""
    overlap: int | None
    """How many pixels neighbouring tiles share; None: a quarter of `tile`."""
    scales: Sequence[float]
    """Factors of the network's input size (0.25 to 4) to average predictions over. Default: 1."""
    flip: bool
    """Average over the image and its mirror image. Default: False."""
    stretch: bool
    """Scale samples of more than 8 bits from their 2nd to their 98th percentile. Default: False."""
    alpha: str | None
    """Whether a fourth band is alpha, ``use`` or ``ignore``; None: as the file says."""
    min_confidence: float | Mapping[str, float]
    """Pixels whose class has a smaller probability (0 to 1) become void (255); by class: ``{"cat": 0.7, "*":
    0.5}``. Default: 0."""
    map: str | os.PathLike[str] | Mapping[str, int] | None
    """Classes merged and renamed, as for ``--map``: ``"pet:cat+dog=1,*=0"``, a dictionary or a JSON file."""
    min_region: int
    """Regions of fewer connected pixels take the class of their largest neighbour. Default: 0."""
    logits: bool
    """Results also have the network's logits; not with `scales` or `flip`. Default: False."""
    confidence: bool
    """Results also have the probability of the winning class. Default: False."""
    device: str
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Default: ``auto``."""
    precision: str
    """``auto``, ``fp32``, ``bf16`` or ``fp16``. Default: ``auto``."""
    kernels: str
    """``auto``, ``fast`` (ours) or ``torch``. Default: ``auto``."""
    threads: int | None
    """The network's CPU threads; None: as many as this process may use CPUs."""
    batch_size: int | None
    """The most images of one shape in a forward pass; None: by the device."""


class Segmenter:
    """A network that is ready to segment images. Threads may share it.

    Parameters
    ----------
    backbone
        ``resnet50``, ``resnet101`` or ``efficientnet_lite0``.
    **options
        See `SegmenterOptions`.

    Raises
    ------
    RequestError, WeightsError
        What is asked for does not exist or is out of range, or the weights cannot be had or do not fit.
    DeviceLost
        The device fails, or has not enough memory for the network.
    TypeError
        An option has another name, or is of another type.
    """

    def __init__(
        self, backbone: str = registry.DEFAULT_BACKBONE, **options: Unpack[SegmenterOptions]
    ) -> None:
        _check(backbone, options)
        with _in_api_terms():
            self._load(backbone, options)

    def _load(self, backbone: str, options: SegmenterOptions) -> None:
        inference = InferenceOptions(
            options.get("device", "auto"),
            options.get("precision", "auto"),
            options.get("kernels", "auto"),
            options.get("batch_size"),
            options.get("threads"),
            _min_confidence(options.get("min_confidence", 0.0)),
            ViewOptions(options.get("tile"), options.get("overlap"), options.get("flip", False)),
        )
        self._rendering = Rendering(options.get("stretch", False), options.get("alpha"))
        self._scales = check_scales(options.get("scales", ONE_SCALE))
        # A device that is not there is found out before weights are looked for or downloaded.
        execution = resolve_execution(inference)
        weights, class_names = options.get("weights"), options.get("class_names")
        card = options.get("network_card")
        request = ModelRequest(
            backbone,
            os.fspath(weights) if weights is not None else None,
            os.fspath(class_names) if class_names is not None else None,
            options.get("offline", False),
            os.fspath(card) if card is not None else None,
        )
        model = request.resolve()
        self.network: LoadedModel = model.load(model.weights_file())
        rules = LabelRules(read_map(options.get("map")), options.get("min_region", 0))
        self._rules = rules.resolve(self.network.class_names)
        self.class_names = self._rules.names(self.network.class_names)
        size = None if options.get("tile") else model.card.input_size or DEFAULT_SHORT_SIDE
        self.resize: InputSize = options.get("resize", size)
        least = inference.min_confidence
        by_class = least.by_index(self.network.class_names)
        wanted = PredictionOptions(
            options.get("confidence", False), least.others, by_class, logits=options.get("logits", False)
        )
        if wanted.logits and (len(self._scales) > 1 or inference.views.flip):
            raise RequestError("logits: scales and flip average probabilities, of which there are no logits")
        self._engine = Engine(self.network, execution, wanted, inference.views)

    def __call__(self, image: ImageLike) -> Result:
        """Segment one image.

        Parameters
        ----------
        image
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
        with _in_api_terms():
            decode = detached(image, self.resize, self._scales, self._rendering)
            outcome = self._segment([decode()])[0]
            if isinstance(outcome, ImageError):
                raise outcome
        return outcome

    @overload
    def batch(
        self, images: Iterable[ImageLike], on_error: Literal["raise"] = "raise"
    ) -> Iterator[Result]: ...

    @overload
    def batch(
        self, images: Iterable[ImageLike], on_error: Literal["return"]
    ) -> Iterator[Result | ImageError]: ...

    def batch(
        self, images: Iterable[ImageLike], on_error: Literal["raise", "return"] = "raise"
    ) -> Iterator[Result | ImageError]:
        """Segment many images, decoded beside the network; on a GPU those of one shape go together.

        Parameters
        ----------
        images
            As for a call. They are taken from the iterable a bounded number ahead; an array or a Pillow image
            is copied and a file read when it is taken, so that its buffer may be used for the next one.
        on_error
            ``raise``: the first image that cannot be segmented raises its `ImageError`, after the results of
            those before it. ``return``: the `ImageError` stands in its place, and the others go on.

        Yields
        ------
        Result or ImageError
            One for each image, in order.

        Raises
        ------
        ImageError, TypeError, DeviceLost
            As for a call; TypeError whatever `on_error` is, and when `images` is a single image.
        ValueError
            `on_error` is something else.
        """
        if on_error not in {"raise", "return"}:
            raise ValueError(f"on_error is {on_error!r}; 'raise' or 'return' is needed")
        if isinstance(images, str | bytes | bytearray | os.PathLike | Image.Image | io.IOBase):
            raise TypeError(
                f"batch takes several images, this is one {type(images).__name__}; call the segmenter with it"
            )
        return self._in_order(images, on_error)

    def _in_order(self, given: Iterable[ImageLike], on_error: str) -> Iterator[Result | ImageError]:
        batch_size = self._engine.execution.batch_size
        with LookAhead[Result](given, self.resize, self._scales, batch_size, self._rendering) as ahead:
            while (entry := ahead.first()) is not None:
                if entry.outcome is None:
                    together = ahead.like_first()
                    outcomes = self._segment([one.future.result() for one in together])
                    for one, outcome in zip(together, outcomes, strict=True):
                        one.outcome = outcome
                ahead.drop_first()
                assert entry.outcome is not None  # noqa: S101 - the first is among those together
                if isinstance(entry.outcome, ImageError):
                    _put_in_api_terms(entry.outcome)
                    if on_error == "raise":
                        raise entry.outcome
                yield entry.outcome

    def _segment(self, prepared: Sequence[UserImage]) -> list[Result | ImageError]:
        """Segment images that have one shape for the network."""
        predicted = self._engine.predict(
            [one.pixels for one in prepared],
            [one.image.size for one in prepared],
            [one.smaller for one in prepared],
        )
        return [self._result(*pair) for pair in zip(prepared, predicted, strict=True)]

    def _result(self, given: UserImage, predicted: Segmentation | Failure) -> Result | ImageError:
        if isinstance(predicted, Failure):
            return ImageError.of(predicted, source=given.source)
        predicted = self._rules(predicted)
        notes = given.notes + self._engine.views.describe(given.pixels)
        return Result(
            predicted.labels,
            given.image,
            self.class_names,
            notes,
            predicted.confidence,
            given.source,
            self._rules.background(self.network.background),
            predicted.logits,
            not self._engine.views.sees_whole(given.pixels, given.smaller),
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping) or _is_path(value)


def _are_probabilities(value: object) -> bool:
    return _is_number(value) or (isinstance(value, Mapping) and all(map(_is_number, value.values())))


def _are_numbers(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and all(map(_is_number, value))


_TYPES: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("weights", "class_names", "network_card"), (_is_path, "a path")),
    **dict.fromkeys(
        ("resize", "tile", "overlap", "threads", "batch_size", "min_region"), (_is_whole, "a whole number")
    ),
    **dict.fromkeys(("offline", "confidence", "logits", "flip", "stretch"), (_is_flag, "True or False")),
    **dict.fromkeys(("device", "precision", "kernels", "backbone", "alpha"), (_is_text, "a name")),
    "min_confidence": (_are_probabilities, "a number"),
    "map": (_is_map, "rules, a dictionary or a path"),
    "scales": (_are_numbers, "a list of numbers"),
}
_MAY_BE_NONE = frozenset(
    {"map", "alpha", "weights", "class_names", "network_card", "resize", "tile", "overlap"}
    | {"threads", "batch_size"}
)


def _check(backbone: str, options: SegmenterOptions) -> None:
    """Refuse options that nobody knows or of another type, and numbers out of range."""
    unknown = options.keys() - SegmenterOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"Segmenter has no option {', '.join(sorted(unknown))}")
    for name, value in {"backbone": backbone, **options}.items():
        is_right, needed = _TYPES[name]
        if name in _MAY_BE_NONE:
            if value is None:
                continue
            needed = f"{needed} or None"
        if not is_right(value):
            raise TypeError(f"{name} is {value!r}; {needed} is needed")
    side = limits.LONGEST_SIDE
    bounds = {
        "resize": (1, side),
        "threads": (1, limits.MOST_THREADS),
        "batch_size": (1, limits.MOST_IN_A_BATCH),
        "tile": (1, side),
        "min_region": (0, limits.MOST_MASK_PIXELS),
    }
    for name, (minimum, maximum) in bounds.items():
        number = options.get(name)
        if isinstance(number, Integral) and not minimum <= int(number) <= maximum:
            raise RequestError(f"{name} {number}: a whole number from {minimum} to {maximum} is needed")
    if options.get("alpha") not in {None, "use", "ignore"}:
        raise RequestError(f"alpha {options.get('alpha')!r}: 'use' or 'ignore' is needed")
    confidence = _min_confidence(options.get("min_confidence", 0.0))
    for probability in (confidence.others, *dict(confidence.classes).values()):
        if not 0 <= probability <= 1:
            raise RequestError(f"min_confidence {probability}: a probability is from 0 to 1")


def _min_confidence(given: float | Mapping[str, float]) -> MinConfidence:
    if not isinstance(given, Mapping):
        return MinConfidence(float(given))
    classes = tuple((name, float(probability)) for name, probability in given.items() if name != REST)
    return MinConfidence(float(given.get(REST, 0.0)), classes)


# What to do instead of giving an option of the command line that the API does not have.
_OTHER_WAYS = {"raise --max-image-pixels": "give its pixels as an array"}
_OPTION = re.compile(r"(?<![\w/-])--([a-z]+(?:-[a-z]+)*)")


def _put_in_api_terms(error: FcnError) -> None:
    """Name options in an error's message as the API does: ``class_names``, not ``--class-names``."""

    def told(text: str) -> str:
        for command_line, api in _OTHER_WAYS.items():
            text = text.replace(command_line, api)
        return _OPTION.sub(lambda option: option[1].replace("-", "_"), text)

    if isinstance(error, ImageError):
        error.failure = replace(error.failure, message=told(error.failure.message))
    error.args = tuple(told(text) if isinstance(text, str) else text for text in error.args)


@contextlib.contextmanager
def _in_api_terms() -> Iterator[None]:
    try:
        yield
    except FcnError as error:
        _put_in_api_terms(error)
        raise
