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
    """One class in an image: its index, name, pixels, and fraction of all pixels (0 to 1)."""

    class_id: int
    class_name: str
    pixels: int
    fraction: float


@dataclass(frozen=True, repr=False)
class Result:
    """The segmentation of one image. In a notebook it displays its overlay and its classes.

    Attributes
    ----------
    labels
        The mask: uint8, shape (height, width) of the upright image; the class index of each pixel. 255 is
        the ignore label.
    image
        The upright image, RGB.
    class_names
        The name of each class, by index.
    notes
        What was special about decoding, such as ``first of 4 frames``.
    confidence
        The softmax probability of the winning class times 255: uint8, shape (height, width). None unless
        asked for.
    source
        The path of the image, ``image 3`` for the fourth of a batch if it has no path, or empty.
    background_class
        The index of the background, or None.
    logits
        The network's logits: float16, shape (classes, rows, columns), at the network's stride and with its
        own classes. None unless asked for.
    is_tiled
        Whether the network saw the image in several views: tiles, scales, or mirrored.
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
        """Return the labels as a paletted ("P") image; `palette` as for ``--palette``."""
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
        """Return the image under the class colours; the background is left as it is.

        Parameters
        ----------
        palette
            As for ``--palette``: ``hub``, ``voc``, ``bright`` or the path of a JSON file.
        opacity
            Of the colours, from 0 to 1.
        borders
            Draw lines between classes.
        legend
            Add the names of the classes below the image.

        Raises
        ------
        RequestError
            A parameter is out of range.
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
        """Return the pixels of one or several classes, as RGBA on a transparent background.

        Parameters
        ----------
        classes
            A name or index, or a list of them. None: all classes but the background.
        crop
            Crop to these classes, with a margin of so many pixels.
        background
            ``white``, ``#rrggbb`` or any CSS colour: the image is RGB on this colour.

        Raises
        ------
        RequestError
            There is no such class or colour.
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
        """Return the softmax probability of each of the network's classes, from `logits`.

        Returns
        -------
        numpy.ndarray
            float32, shape (classes, height, width): 4 bytes per class and pixel.

        Raises
        ------
        RequestError
            There are no `logits`, or the image was segmented in tiles.
        """
        if self.logits is None or self.is_tiled:
            raise RequestError("probabilities need logits=True, and no tiles")
        from .inference.labels import probabilities

        return probabilities(self.logits, self.labels.shape)

    def stats(self) -> list[ClassShare]:
        """Return the classes in the image, by index."""
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
    """The options of `Segmenter`; they have the names of the options of ``fcn segment``. All may be left out.

    Attributes
    ----------
    weights
        Path of your own checkpoint. Default: None, the official weights.
    class_names
        Path of its class names, one per line, or ``voc``. Default: None, the official names, or those of the
        network card, or ``class_0``, ``class_1``, …
    network_card
        Path of its network card (TOML). Default: None, the one beside the checkpoint, if there is one.
    offline
        Never download weights. Default: False.
    resize
        Short side of the network's input in pixels, or None for the image's own. Default: that of the network
        card, else 520; with `tile` None.
    tile, overlap
        Side of overlapping tiles for large images and their overlap, in pixels. Default: None, no tiles; a
        quarter of the tile.
    scales
        Factors of the input size, 0.25 to 4, to average over. Default: (1,).
    flip
        Average with the mirror image. Default: False.
    stretch
        Brighten images of more than 8 bits: scale samples between their 2nd and 98th percentiles. Default:
        False.
    alpha
        ``use`` a fourth band as alpha or ``ignore`` it. Default: None, as the file says.
    min_confidence
        Pixels of a lower probability (0 to 1) become 255; by class: ``{"cat": 0.7, "*": 0.5}``. Default: 0.
    map
        Classes to merge and renumber: ``"pet:cat+dog=1,*=0"``, ``{"cat+dog": 1}``, or the path of a JSON
        file. Default: None.
    min_region
        Connected regions of fewer pixels take the class of their largest neighbour. Default: 0.
    logits, confidence
        Whether results have them; logits not with `scales` or `flip`. Default: False.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Default: ``auto``.
    precision
        ``auto``, ``fp32``, ``bf16`` or ``fp16``. Default: ``auto``.
    kernels
        CPU kernels: ``auto``, ``fast`` (fcn's own) or ``torch``. Default: ``auto``.
    threads
        CPU threads for the network. Default: None, as many CPUs as this process may use.
    batch_size
        Largest number of images of one shape in a batch. Default: None, by device.
    """

    weights: str | os.PathLike[str] | None
    class_names: str | os.PathLike[str] | None
    network_card: str | os.PathLike[str] | None
    offline: bool
    resize: int | None
    tile: int | None
    overlap: int | None
    scales: Sequence[float]
    flip: bool
    stretch: bool
    alpha: str | None
    min_confidence: float | Mapping[str, float]
    map: str | os.PathLike[str] | Mapping[str, int] | None
    min_region: int
    logits: bool
    confidence: bool
    device: str
    precision: str
    kernels: str
    threads: int | None
    batch_size: int | None


class Segmenter:
    """A network that segments images, loaded once. It may be shared between threads.

    Parameters
    ----------
    backbone
        ``resnet50``, ``resnet101`` or ``efficientnet_lite0`` (a small preview).
    **options
        See `SegmenterOptions`.

    Attributes
    ----------
    class_names
        The name of each class, by index.

    Raises
    ------
    RequestError
        An option is out of range, or something it names does not exist.
    WeightsError
        The weights are missing, damaged, or do not fit the network.
    DeviceLost
        The device failed, or has too little memory for the network.
    TypeError
        There is no such option, or it has another type.

    Examples
    --------
    >>> segmenter = Segmenter("resnet50", confidence=True)  # doctest: +SKIP
    >>> result = segmenter("photo.jpg")  # doctest: +SKIP
    >>> result.overlay().save("overlay.jpg")  # doctest: +SKIP
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
            raise RequestError("logits cannot be combined with scales or flip, which average probabilities")
        self._engine = Engine(self.network, execution, wanted, inference.views)

    def __call__(self, image: ImageLike) -> Result:
        """Segment one image.

        Parameters
        ----------
        image
            A path, the bytes of an image file, an open binary file, a Pillow image, or an RGB array: uint8,
            shape (height, width, 3).

        Raises
        ------
        ImageError
            The image cannot be decoded, does not fit into memory, or the network's logits are not finite.
        TypeError
            It is none of these.
        DeviceLost
            The device failed, and cannot be used any more by this process.
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
        """Segment many images; decoding runs in parallel to the network, and on a GPU images share batches.

        Parameters
        ----------
        images
            Images as for a call. The iterable is read a bounded number of images ahead. Arrays and Pillow
            images are copied and files are read at once, so that a buffer can be reused for the next image.
        on_error
            ``raise`` the `ImageError` of the first image that fails, after the results before it; or
            ``return`` the `ImageError` in place of the result, and continue.

        Yields
        ------
        Result or ImageError
            One per image, in order.

        Raises
        ------
        ImageError, TypeError, DeviceLost
            As for a call. A TypeError is raised with any `on_error`, also when `images` is a single image.
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
        if given.no_data is not None:
            predicted = given.no_data.void(predicted)
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
