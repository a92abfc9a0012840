"""Decoded images in, predictions out, batch by batch: the middle of every command with a network."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from ..common import resources
from ..common.errors import Failure
from ..inference import pipeline
from ..inference.engine import Batch, Engine
from ..inputs.decode_options import DecodeOptions
from ..inputs.decode_pool import DecodePool
from ..inputs.decoder import DecodedImage, DecodeSettings, Orient
from ..inputs.discovery import Source
from ..inputs.shared_pixels import LOOK_AHEAD_BYTES

_MAX_AUTO_WORKERS = 16
_MEMORY_SECONDS = 10.0
_MIN_SECONDS = 2.0
_MIN_SHARE = 0.6

T = TypeVar("T")

Size = tuple[int, int]


Prediction: TypeAlias = pipeline.Prediction[DecodedImage]
"""The result for one image, and the seconds to decode it with its share of the batch's forward pass."""


def original_size(image: DecodedImage) -> Size:
    """Return the upright image's own (width, height)."""
    return image.width, image.height


def network_size(image: DecodedImage) -> Size:
    """Return the (width, height) of the network's input."""
    assert image.pixels is not None  # noqa: S101 - only called for decoded images
    return image.pixels.shape[1], image.pixels.shape[0]


def predictions(
    images: Iterable[DecodedImage | None],
    engine: Engine,
    size: Callable[[DecodedImage], Size] = original_size,
    clock: StageClock | None = None,
) -> Generator[list[Prediction]]:
    """Run the network over decoded images, each stage beside the others (see `inference.pipeline`).

    Another thread takes the images. It ends with this generator: close that before what yields the images.

    Parameters
    ----------
    images
        Decoded images, as a `DecodePool` yields them.
    engine
        The network.
    size
        Returns the (width, height) of an image's label map.
    clock
        Counts waiting for images as the stage "decoding".

    Yields
    ------
    list of Prediction
        The predictions of one batch, or the failure of one image that could not be decoded; an empty list
        whenever no image was ready for a moment.
    """
    waiting = partial(clock.stage, "decoding") if clock is not None else contextlib.nullcontext
    with contextlib.closing(pipeline.run_batches(engine, _items(images, engine, size), waiting)) as batches:
        for batch in batches:
            yield [_with_decoding(prediction, engine) for prediction in batch]


def group_by_shape(
    images: Iterable[DecodedImage | None], batch_size: int
) -> Iterator[list[DecodedImage] | DecodedImage | None]:
    """Group images whose pixels have one shape; failed images and None pass through.

    A group, in input order, is yielded when it is full. When more than ``4 * batch_size`` images or
    `LOOK_AHEAD_BYTES` wait, the oldest image's group is. So the contents of a batch depend on the order of
    the images only.
    """
    waiting: dict[tuple[int, ...], list[DecodedImage]] = {}
    count = size = 0
    for image in images:
        if image is None or image.pixels is None:
            yield image
            continue
        group = waiting.setdefault(image.pixels.shape, [])
        group.append(image)
        count += 1
        size += image.nbytes
        full = image.pixels.shape if len(group) == batch_size else None
        while full or count > 4 * batch_size or size > LOOK_AHEAD_BYTES:
            # A group enters the dict with its oldest image, so the first group is the oldest.
            batch = waiting.pop(full or next(iter(waiting)))
            full = None
            count -= len(batch)
            size -= sum(member.nbytes for member in batch)
            yield batch
    yield from waiting.values()


def _items(
    images: Iterable[DecodedImage | None], engine: Engine, size: Callable[[DecodedImage], Size]
) -> Generator[pipeline.Item[DecodedImage]]:
    for group in group_by_shape(images, engine.execution.batch_size):
        if isinstance(group, list):
            pixels = [image.pixels for image in group if image.pixels is not None]
            smaller = [image.smaller for image in group]
            yield Batch(group, pixels, [size(image) for image in group], smaller)
        elif group is not None and group.failure is not None:
            yield Prediction(group, group.failure, 0.0)
        else:
            yield None


def _with_decoding(prediction: Prediction, engine: Engine) -> Prediction:
    """Count the time of decoding, note how the network saw the image, make void what holds no data."""
    image, result = prediction.image, prediction.result
    if image.pixels is not None:
        image.notes += engine.views.describe(image.pixels)
    if image.no_data is not None and not isinstance(result, Failure):
        result = image.no_data.void(result)
    return prediction._replace(result=result, seconds=image.seconds + prediction.seconds)


def open_pool(
    sources: Sequence[Source],
    options: DecodeOptions,
    *,
    orient: Orient | None = None,
    measure_only: bool = False,
    watching: bool = False,
    clean: bool = False,
) -> DecodePool:
    """Start the decoding workers of a command; see `DecodeOptions` and `DecodeSettings`.

    When `watching`, images that have changed since they were found are refused. Then, or when `clean`, this
    process has threads already, and the workers start from a clean one.
    """
    workers = options.workers
    if workers is None:
        workers = min(resources.cpu_count(), _MAX_AUTO_WORKERS)
    settings = DecodeSettings(options, orient, measure_only, refuse_changed=watching)
    return DecodePool(sources, settings, workers, clean=watching or clean)


class StageClock:
    """Measures how long the thread that drives a pipeline is held up by each stage.

    The stages run beside each other, so each one's own work says little. What limits the pipeline is what its
    driving thread waits for. Stages nest: time in an inner stage does not count for the outer one.

    Parameters
    ----------
    now
        The clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: list[str] = []
        self._since = now()
        self._recent: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in the context for a stage."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; count the time that each one takes to come for a stage."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def limiting(self) -> str | None:
        """Return the stage that took most of the last seconds, or None where none clearly does."""
        total = sum(self._recent.values())
        if total < _MIN_SECONDS:
            return None
        name, seconds = max(self._recent.items(), key=lambda entry: entry[1])
        return name if seconds >= _MIN_SHARE * total else None

    def _charge(self) -> None:
        now = self._now()
        passed, self._since = now - self._since, now
        if not self._open:
            return
        name = self._open[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + passed
        fading = math.exp(-passed / _MEMORY_SECONDS)
        for other in self._recent:
            self._recent[other] *= fading
        # The integral of the fading weight over the time that passed.
        self._recent[name] = self._recent.get(name, 0.0) + _MEMORY_SECONDS * (1 - fading)
