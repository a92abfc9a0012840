"""The photos of an evaluation for its page: their label maps while they are at hand, their pictures later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common import palettes
from ..common.errors import FailureKind, ImageError, OutputLost
from ..common.label_map import VOID_INDEX, LabelMap, count_classes
from ..evaluation.accuracy import Compared
from ..evaluation.confusion import Confusion
from ..evaluation.result import SeenPhoto
from ..inputs import decoder, exif
from ..inputs.decode_options import DecodeOptions
from ..inputs.discovery import Source
from ..outputs.json_text import printable_utf8
from .image_store import ImageStore, key_of
from .pictures import Pictures, make_in_threads, try_photo

WRONG_COLOR = (255, 0, 92)
"""The colour of wrong pixels; no built-in palette has it."""

_RENDERER = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    source: Source
    photo: SeenPhoto
    key: str
    row: dict[str, Any]


class ComparedPhotos:
    """Collects the photos of an evaluation. `add` is an `evaluation.accuracy.Inspector`.

    An evaluation does not stop because its report cannot be written: `add` keeps the first such error, and
    `rows` raises it.

    Parameters
    ----------
    store
        Where the pictures are kept.
    """

    def __init__(self, store: ImageStore) -> None:
        classes, wrong = palettes.hub(), np.zeros((256, 3), np.uint8)
        wrong[1] = WRONG_COLOR
        self.pictures = Pictures(store, {"truth": classes, "prediction": classes, "wrong": wrong})
        self.keys: set[str] = set()
        self._entries: list[_Entry] = []
        self._lost: OutputLost | None = None

    def add(self, compared: Compared) -> None:
        """Make the pictures of a photo's label maps, which are not kept."""
        if self._lost is not None:
            return
        key = _key(compared)
        try:
            if not self.pictures.has_labels(key):
                truth, predicted = compared.truth, compared.predicted
                layers = {"truth": truth, "prediction": predicted, "wrong": wrong_pixels(truth, predicted)}
                self.pictures.add_labels(key, layers)
        except OutputLost as error:
            self._lost = error
            return
        self._entries.append(_Entry(compared.source, compared.photo, key, _row(compared, key)))

    def rows(self, decoding: DecodeOptions) -> Iterator[dict[str, Any]]:
        """Make the photos' own pictures and yield the rows of the table, the worst photo first.

        Parameters
        ----------
        decoding
            How photos are decoded.

        Raises
        ------
        OutputLost
            The report cannot be written.
        """
        if self._lost is not None:
            raise self._lost
        complete = partial(self._complete, decoding=decoding)
        worst_first = sorted(self._entries, key=_worst_first)
        yield from make_in_threads(worst_first, complete, lambda e: e.photo.size[0] * e.photo.size[1])

    def _complete(self, entry: _Entry, decoding: DecodeOptions) -> dict[str, Any]:
        self.keys.add(entry.key)
        open_photo = partial(_open_photo, entry, decoding)
        problem = try_photo(self.pictures, entry.key, entry.source.path, open_photo)
        notes = [*entry.photo.notes, *([problem] if problem is not None else [])]
        return {**entry.row, "has": 2 + (problem is None), "notes": notes}


def wrong_pixels(truth: LabelMap, predicted: LabelMap) -> LabelMap:
    """Return 1 where a prediction is wrong, else 0; where the truth is void, nothing is wrong."""
    wrong: NDArray[np.bool_] = (truth != predicted) & (truth != VOID_INDEX)
    return wrong.astype(np.uint8)


def _key(compared: Compared) -> str:
    source, labels = compared.source, hashlib.sha256()
    for each in (compared.truth, compared.predicted):
        labels.update(np.ascontiguousarray(each).data)
    file = (source.image, source.size_bytes, source.etag or source.mtime_ns)
    return key_of(
        "evaluation", _RENDERER, *file, compared.photo.stored, compared.truth.shape, labels.hexdigest()
    )


def _row(compared: Compared, key: str) -> dict[str, Any]:
    confusion, counts = compared.confusion, count_classes(compared.truth)
    seen = sorted({*counts, *count_classes(compared.predicted)})
    iou = {index: float(value) for index, value in enumerate(confusion.iou()) if not np.isnan(value)}
    height, width = compared.truth.shape
    return {
        "name": printable_utf8(compared.source.image),
        "key": key,
        "width": width,
        "height": height,
        "classes": [number for index in seen for number in (index, counts.get(index, 0))],
        "ious": [number for index, value in iou.items() for number in (index, round(value, 4))],
        "iou": _known(confusion.mean_iou()),
        "accuracy": _known(confusion.pixel_accuracy()),
        "mistakes": _mistakes(confusion),
    }


def _mistakes(confusion: Confusion) -> list[list[int]]:
    """Return the photo's largest mistakes: true class, predicted class (255: void), pixels."""
    matrix = confusion.matrix.copy()
    np.fill_diagonal(matrix, 0)
    found = []
    for place in np.argsort(matrix, axis=None)[::-1][:3]:
        true, predicted = divmod(int(place), matrix.shape[1])
        if pixels := int(matrix[true, predicted]):
            found.append([true, VOID_INDEX if predicted == len(matrix) else predicted, pixels])
    return found


def _worst_first(entry: _Entry) -> tuple[float, str]:
    # A photo whose truth is all void has no figure, and comes last.
    return 2.0 if entry.row["iou"] is None else entry.row["iou"], entry.source.image


def _open_photo(entry: _Entry, decoding: DecodeOptions) -> Image.Image:
    decoded = decoder.decode_for_people(
        entry.source.path, decoding.max_pixels, decoding.rendering, decoding.timeout
    )
    image = exif.as_stored(decoded.image, decoded.turn) if entry.photo.stored else decoded.image
    if image.size != entry.photo.size:
        raise ImageError(FailureKind.CHANGED, "The photo has changed since it was measured.")
    return image


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
