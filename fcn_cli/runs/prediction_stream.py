"""The middle of every command that runs the network: decoded photos in, predictions out, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..common import resources
from ..common.errors import Failure
from ..common.label_map import Segmentation
from ..inference.engine import Engine
from ..inputs.decode_options import DecodeOptions
from ..inputs.decode_pool import DecodePool
from ..inputs.decode_worker import DecodedPhoto, DecodeSettings, Orient
from ..inputs.discovery import Source
from ..inputs.shape_batches import group_by_shape

_MAX_AUTO_WORKERS = 16

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one photo: a label map, or the reason why there is none.

    `seconds` is its share of the batch's forward pass; `item` tells of the decoding.
    """

    source: Source
    item: DecodedPhoto
    result: Segmentation | Failure
    seconds: float = 0.0


def original_size(item: DecodedPhoto) -> Size:
    """Return the upright photo's own (width, height)."""
    return item.width, item.height


def network_size(item: DecodedPhoto) -> Size:
    """Return the (width, height) that the network is fed."""
    assert item.pixels is not None  # noqa: S101 - asked of decoded photos only
    return item.pixels.shape[1], item.pixels.shape[0]


def predict(
    decoded: Iterable[DecodedPhoto | None],
    sources: Sequence[Source],
    engine: Engine,
    size: Callable[[DecodedPhoto], Size] = original_size,
) -> Iterator[list[Prediction]]:
    """Run the network over decoded photos.

    Parameters
    ----------
    decoded
        Items whose index is into `sources`, as a `DecodePool` yields them.
    sources
        The photos.
    engine
        The network.
    size
        Which (width, height) each label map shall have.

    Yields
    ------
    list of Prediction
        Those of one batch, or that of one photo that could not be decoded; an empty list whenever nothing
        came for a moment.
    """
    for got in group_by_shape(decoded, engine.execution.batch_size):
        if got is None:
            yield []
        elif isinstance(got, list):
            yield _batch(got, sources, engine, size)
        else:
            assert got.failure is not None  # noqa: S101 - an item has pixels or a failure
            yield [Prediction(sources[got.index], got, got.failure)]


def _batch(
    items: Sequence[DecodedPhoto],
    sources: Sequence[Source],
    engine: Engine,
    size: Callable[[DecodedPhoto], Size],
) -> list[Prediction]:
    started = time.perf_counter()
    results = engine.predict(
        [item.pixels for item in items if item.pixels is not None], [size(item) for item in items]
    )
    share = (time.perf_counter() - started) / len(items)
    return [
        Prediction(sources[item.index], item, result, share)
        for item, result in zip(items, results, strict=True)
    ]


def open_pool(
    sources: Sequence[Source],
    options: DecodeOptions,
    *,
    orient: Orient | None = None,
    measure_only: bool = False,
) -> DecodePool:
    """Start the decoding workers of a command; see `DecodeOptions` and `DecodeSettings`."""
    workers = options.workers
    if workers is None:
        workers = min(resources.cpu_count(), _MAX_AUTO_WORKERS)
    settings = DecodeSettings(options.short_side, options.max_pixels, options.timeout, orient, measure_only)
    return DecodePool(sources, settings, workers)
