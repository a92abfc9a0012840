"""What the page shows of each record: its pictures, made in threads, and notes on what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..common import store_urls
from ..common.errors import FailureKind, ImageError
from ..common.label_map import LabelMap, count_classes, most_pixels, read_label_map
from ..common.output_layout import kind_of, label_kinds
from ..inputs import decoder
from ..inputs.samples import Rendering
from ..outputs.output_store import LocalStore
from ..outputs.record import Record
from .image_store import key_of
from .pictures import Pictures, make_in_threads, try_photo

LAYER = "labels"
_RENDERER = 1
"""Part of every key: raise it when pictures look different, and all are made again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page has of one photo: the key of its pictures, which of them exist, and notes."""

    record: Record
    key: str
    has_photo: bool
    has_labels: bool
    notes: tuple[str, ...] = ()


def picture_key(record: Record) -> str:
    """Return the key of a record's pictures: the file, the settings, and the label map they were made from.

    What changes only looks is not in it: another palette leaves the photo's pictures as they are. Nor is the
    photo's path: a folder of photos may move.
    """
    file = (record.image, record.size_bytes, record.etag or record.mtime_ns)
    return key_of(_RENDERER, *file, record.fingerprint, record.size, sorted((record.classes or {}).items()))


def show_all(
    records: Iterable[Record], output: Path, pictures: Pictures, rendering: Rendering
) -> Iterator[Shown]:
    """Make the pictures of records that are done, several at a time, and yield what there is, in order.

    Raises
    ------
    OutputLost
        A picture cannot be written.
    """
    show = partial(_show, output=LocalStore(output), pictures=pictures, rendering=rendering)
    return make_in_threads(records, show, lambda record: (record.width or 0) * (record.height or 0))


def _show(record: Record, output: LocalStore, pictures: Pictures, rendering: Rendering) -> Shown:
    key, notes = picture_key(record), []
    shown = record.path
    has_labels = pictures.has_labels(key)
    if not has_labels:
        try:
            pictures.add_labels(key, {LAYER: _read_labels(output, record)})
            has_labels = True
        except ImageError as error:
            notes.append(str(error))
    open_photo = partial(_open_photo, record, rendering)
    overlay = next((name for name in record.outputs if kind_of(name) == "overlay"), None)
    if overlay is not None and not has_labels:
        # The colours cannot be taken off it, so it stands for the photo.
        key, open_photo = key_of(key, "overlay"), partial(_open_overlay, output, record, overlay)
        shown = str(output.root / overlay)
        notes.append("The picture is the overlay.")
    problem = try_photo(pictures, key, shown, open_photo)
    if problem is not None:
        notes.append(problem)
    return Shown(record, key, problem is None, has_labels, tuple(notes))


def _read_labels(output: LocalStore, record: Record) -> LabelMap:
    """Return the label map of a record: its mask, else its colours."""
    names = {kind_of(name): name for name in record.outputs}
    kinds = [kind for kind in label_kinds() if kind in names]
    if not kinds:
        raise ImageError(FailureKind.NOT_FOUND, "No label map: neither masks nor color were written.")
    for kind in kinds:
        try:
            labels = read_label_map(output / names[kind], record.size)
        except ImageError:
            continue
        if count_classes(labels) == record.classes:
            return labels
    raise ImageError(
        FailureKind.BAD_LABELS, "The label map is missing or damaged; the next run makes a missing one again."
    )


def _open_overlay(output: LocalStore, record: Record, name: str) -> Image.Image:
    if not output.has_size(name, record.output_sizes()[name]):
        raise ImageError(FailureKind.NOT_FOUND, "The overlay is missing, or not what its record says.")
    try:
        return decoder.decode_for_people(output.root / name).image
    except ImageError as error:
        raise ImageError(error.failure.kind, f"The overlay cannot be read: {error}.") from None


def _open_photo(record: Record, rendering: Rendering) -> Image.Image:
    if store_urls.is_url(record.path):
        raise ImageError(
            FailureKind.NOT_FOUND, "The photo is in a store; only photos on this machine are shown."
        )
    try:
        status = os.stat(record.path)
    except (OSError, ValueError):
        raise ImageError(FailureKind.NOT_FOUND, "The photo is no longer at its path.") from None
    if (status.st_size, status.st_mtime_ns) != (record.size_bytes, record.mtime_ns):
        raise ImageError(FailureKind.CHANGED, "The photo has changed since it was segmented.")
    # What has more of them is not the image that was segmented.
    pixels = (record.width or 0) * (record.height or 0)
    try:
        image = decoder.decode_for_people(record.path, min(pixels, most_pixels()), rendering).image
    except ImageError as error:
        raise ImageError(error.failure.kind, f"The photo cannot be read: {error}.") from None
    if image.size != record.size:
        raise ImageError(FailureKind.CHANGED, "The photo has changed since it was segmented.")
    return image
