"""``report.html`` of an output directory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
from PIL import Image

from .. import __version__
from ..common import files, palettes, store_urls
from ..common.class_names import class_name
from ..common.errors import ExitCode, FailureKind, ImageError, RequestError
from ..common.label_map import LabelMap, count_classes, most_pixels, read_label_map
from ..common.limits import MOST_MASK_PIXELS
from ..common.output_layout import (
    CLASSES_FILE,
    HOLDER_FILE,
    OUTPUT_TYPES,
    SETTINGS_FILE,
    SUMMARY_BYTES,
    SUMMARY_FILE,
    find_output_type,
    label_types,
    output_type_of,
)
from ..common.palettes import Palette
from ..inputs import decoder, workers
from ..inputs.samples import Rendering
from ..outputs.journal import Journal
from ..outputs.json_text import printable_utf8
from ..outputs.output_store import LocalStore
from ..outputs.record import Record
from ..outputs.settings import read_rendering, require_output_directory
from ..outputs.statistics import Totals
from ..runs.observers import ProgressObserver
from .page import PER_PAGE, Page, Table
from .pictures import LARGE, Pictures, key_of, make_in_threads

LAYER = "labels"
PART = 1000
"""The rows of a table in one script."""

_RENDERER = 2
"""Part of every key: raise it when pictures look different, and all are made again."""
_LARGEST_RATE = 1e9
"""No machine is faster: a larger number of images per second is somebody's joke."""
_VIEWS = (
    {"id": "overlay", "label": "Overlay", "layer": LAYER, "opacity": 0.6},
    {"id": "classes", "label": "Classes", "layer": LAYER, "opacity": 1},
)


@dataclass(frozen=True)
class ClassLooks:
    """The names and the colours of classes."""

    names: Mapping[int, str]
    palette: Palette

    def name(self, index: int) -> str:
        return self.names.get(index) or class_name((), index)

    def color(self, index: int) -> str:
        """Return the colour of a label map value as CSS has it, ``#rrggbb``."""
        return "#" + bytes(self.palette[index].tolist()).hex()

    def entry(self, index: int) -> dict[str, Any]:
        return {"id": index, "name": self.name(index), "color": self.color(index)}


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written: its page, and how many images it shows and how many of them in part."""

    path: Path
    images: int
    incomplete: int

    @property
    def exit_code(self) -> int:
        """The exit code of the process: an image that is gone is no failure of the report."""
        return ExitCode.OK


def write_report(
    output: Path, observer: ProgressObserver, max_pixels: int = MOST_MASK_PIXELS
) -> WrittenReport:
    """Write the report of an output directory, also while a run writes there.

    Pictures that exist are not made again. The page is written last; whatever fails before leaves the earlier
    page as it is, and nothing else of the directory is touched.

    Parameters
    ----------
    output
        The output directory.
    observer
        Receives the progress.
    max_pixels
        The most pixels of an image and its mask; never fewer than `MOST_MASK_PIXELS`.

    Raises
    ------
    RequestError
        It is not an output directory, it is one of another version, or its journal cannot be read.
    OutputLost
        The report cannot be written.
    """
    decoder.prepare_process(max_pixels)
    found = _Directory(output)
    page = Page(output)
    pictures = Pictures(page.store, {LAYER: found.looks.palette})
    collected, incomplete = _Collected(), 0
    for record in found.records():
        collected.expected += record.ok
        if not record.ok:
            collected.add_failure(record.as_json())
    for refused in found.refused():
        collected.add_failure(refused)
    observer.begin(collected.expected)
    done = (record for record in found.records() if record.ok)
    for shown in _show_all(done, page.store, pictures, read_rendering(page.store)):
        collected.add_image(shown)
        incomplete += not shown.is_whole
        observer.step(failed=not shown.is_whole)
    page.write(
        "output.html",
        _context(found, collected),
        _data(found, collected, pictures),
        {**collected.images.finish(), **collected.failures.finish()},
    )
    pictures.sweep()
    return WrittenReport(page.path, collected.images.rows, incomplete)


class _Directory:
    """An output directory as its files describe it; what is missing or damaged is empty.

    `labels` are the settings that shape label maps, `run` is what ``summary.json`` says of the last run.
    """

    def __init__(self, output: Path) -> None:
        require_output_directory(output)
        self.output = output
        settings = _read_json(output / SETTINGS_FILE)
        try:
            self._journal = Journal(output)
        except OSError as error:
            raise RequestError(f"{output}: its journal cannot be read ({error.strerror})") from None
        self.looks = _read_looks(output)
        labels, self._fingerprint = settings.get("labels"), settings.get("fingerprint")
        self.labels: dict[str, Any] = labels if isinstance(labels, dict) else {}
        summary = _read_json(output / SUMMARY_FILE)
        run, segmented = summary.get("run"), summary.get("segmented")
        self.run: dict[str, Any] = run if isinstance(run, dict) else {}
        if self.run and isinstance(segmented, dict):
            # The last run may have had nothing to segment: how the images were computed, another one says.
            self.run |= segmented

    def records(self) -> Iterator[Record]:
        """Yield the records of this directory's settings, sorted by image.

        After ``--overwrite`` with other settings, the journal can hold records of images that are no longer
        among the inputs, with the classes of another network.
        """
        for record in self._journal:
            if not isinstance(self._fingerprint, str) or self._fingerprint == record.fingerprint:
                yield record

    def refused(self) -> list[dict[str, Any]]:
        """Return what the last run refused: images whose name is another one's, which is in the journal."""
        refused = self.run.get("refused")
        entries = refused if isinstance(refused, list) else []
        return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("image"), str)]


def _read_looks(output: Path) -> ClassLooks:
    palette = palettes.hub()
    names: dict[int, str] = {}
    for key, value in _read_json(output / CLASSES_FILE).items():
        try:
            palette[int(key)] = np.array(value["color"]).astype(np.uint8)
            names[int(key)] = str(value["name"])
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            continue
    return ClassLooks(names, palette)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = files.read_small_json(path, SUMMARY_BYTES)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the page has of one image: the key of its pictures, their hashes, and notes."""

    record: Record
    key: str
    pictures: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return "large" in self.pictures and "grid" in self.pictures


def _show_all(
    records: Iterable[Record], output: LocalStore, pictures: Pictures, rendering: Rendering
) -> Iterator[_Shown]:
    """Make the pictures of records that are done, several at a time, and yield what there is, in order."""
    show = partial(_show, output=output, pictures=pictures, rendering=rendering)
    return make_in_threads(records, show, lambda record: (record.width or 0) * (record.height or 0))


def _show(record: Record, output: LocalStore, pictures: Pictures, rendering: Rendering) -> _Shown:
    key, notes = _picture_key(record), []
    try:
        made = pictures.of_labels(key, lambda: {LAYER: _read_labels(output, record)})
    except ImageError as error:
        made = {}
        notes.append(str(error))
    path, open_image = record.path, partial(_open_image, record, rendering)
    overlay = next((name for name in record.outputs if output_type_of(name) == "overlay"), None)
    if overlay is not None and not made:
        # The colours cannot be taken off it, so it stands for the image.
        key, path = key_of(key, "overlay"), str(output.root / overlay)
        open_image = partial(_open_overlay, output, record, overlay)
        notes.append("The picture shown is the overlay.")
    of_image, problem = pictures.of_image(key, path, open_image)
    if problem is not None:
        notes.append(problem)
    return _Shown(record, key, {**made, **of_image}, tuple(notes))


def _picture_key(record: Record) -> str:
    """Return the key of a record's pictures: the file, the settings, and the label map they were made from.

    What changes only looks is not in it: another palette leaves the image's pictures as they are. Nor is the
    image's path: a folder of images may move.
    """
    file = (record.image, record.size_bytes, record.etag or record.mtime_ns)
    return key_of(_RENDERER, *file, record.fingerprint, record.size, sorted((record.classes or {}).items()))


def _read_labels(output: LocalStore, record: Record) -> LabelMap:
    """Return the label map of a record: its mask, else its colours."""
    names = {output_type_of(name): name for name in record.outputs}
    types = [each for each in label_types() if each in names]
    if not types:
        raise ImageError(FailureKind.NOT_FOUND, "No mask: neither masks nor color were written.")
    for each in types:
        try:
            labels = read_label_map(output / names[each], record.size)
        except ImageError:
            continue
        if count_classes(labels) == record.classes:
            return labels
    raise ImageError(
        FailureKind.BAD_LABELS,
        "The mask is missing or damaged; if it is missing, the next run writes it again.",
    )


def _open_overlay(output: LocalStore, record: Record, name: str) -> Image.Image:
    if not output.has_size(name, record.output_sizes()[name]):
        raise ImageError(FailureKind.NOT_FOUND, "The overlay is missing, or does not match its record.")
    try:
        return workers.decode_for_people(output.root / name, longest=LARGE).image
    except ImageError as error:
        raise ImageError(error.failure.kind, f"The overlay cannot be read: {error}.") from None


def _open_image(record: Record, rendering: Rendering) -> Image.Image:
    if store_urls.is_url(record.path):
        raise ImageError(
            FailureKind.NOT_FOUND, "The image is in a store; only images on this machine are shown."
        )
    try:
        status = os.stat(record.path)
    except (OSError, ValueError):
        raise ImageError(FailureKind.NOT_FOUND, "The image is no longer at its path.") from None
    if (status.st_size, status.st_mtime_ns) != (record.size_bytes, record.mtime_ns):
        raise ImageError(FailureKind.CHANGED, "The image has changed since it was segmented.")
    # What has more of them is not the image that was segmented.
    pixels = (record.width or 0) * (record.height or 0)
    try:
        most = min(pixels, most_pixels())
        shown = workers.decode_for_people(record.path, most, rendering, longest=LARGE)
    except ImageError as error:
        raise ImageError(error.failure.kind, f"The image cannot be read: {error}.") from None
    if shown.size != record.size:
        raise ImageError(FailureKind.CHANGED, "The image has changed since it was segmented.")
    return shown.image


@dataclass
class _Collected:
    """What the records add up to, and the tables of them."""

    totals: Totals = field(default_factory=Totals)
    images: Table = field(default_factory=lambda: Table("images", PART))
    failures: Table = field(default_factory=lambda: Table("failures", PER_PAGE))
    first_failures: list[dict[str, Any]] = field(default_factory=list)
    failure_kinds: Counter[str] = field(default_factory=Counter)
    has_confidence: bool = False
    seconds: float = 0.0
    expected: int = 0

    def add_image(self, shown: _Shown) -> None:
        record = shown.record
        self.totals.add(record)
        self.images.add(_image_row(shown))
        self.has_confidence |= record.mean_confidence is not None
        self.seconds += record.seconds

    def add_failure(self, record: Mapping[str, Any]) -> None:
        error = record.get("error") or {}
        row = {
            "name": record["image"],
            "kind": str(error.get("kind", "Unknown")),
            "message": str(error.get("message", "")),
        }
        self.failures.add(row)
        self.failure_kinds[row["kind"]] += 1
        if len(self.first_failures) < PER_PAGE:
            self.first_failures.append(row)


def _image_row(shown: _Shown) -> dict[str, Any]:
    record = shown.record
    shares = [number for pair in sorted((record.classes or {}).items()) for number in pair]
    types = {output_type_of(name) for name in record.outputs}
    return {
        "name": printable_utf8(record.image),
        "key": shown.key,
        "stem": _stem(record),
        "types": sum(1 << bit for bit, each in enumerate(OUTPUT_TYPES) if each.name in types),
        "width": record.width,
        "height": record.height,
        "classes": shares,
        "confidence": record.mean_confidence,
        "finished": int(record.finished_seconds()),
        "seconds": round(record.seconds, 3),
        "ran": " ".join(filter(None, [record.device, record.precision])),
        **{name: shown.pictures.get(name) for name in ("small", "large", "grid", LAYER)},
        "notes": [*shown.notes, *record.notes],
    }


def _stem(record: Record) -> str:
    """Return what the URLs of a record's outputs have in common, between the output type and the suffix."""
    if not record.outputs:
        return ""
    output_type, _, name = record.outputs[0].partition("/")
    return quote_from_bytes(os.fsencode(name.removesuffix(find_output_type(output_type).suffix)))


def _data(found: _Directory, collected: _Collected, pictures: Pictures) -> dict[str, Any]:
    counts, looks = collected.totals.class_images, found.looks
    return {
        "page": "output",
        "view": "overlay",
        "wipe": 50,
        "tableOrder": "name",
        "perPage": PER_PAGE,
        "large": LARGE,
        "images": collected.images.describe(),
        "failures": collected.failures.describe(),
        "classes": [{**looks.entry(index), "images": counts[index]} for index in sorted(counts)],
        "zero": looks.entry(0),
        "views": _VIEWS,
        "tags": pictures.tags,
        "types": [{"name": each.name, "suffix": each.suffix} for each in OUTPUT_TYPES],
    }


def _context(found: _Directory, collected: _Collected) -> dict[str, Any]:
    totals, run, looks = collected.totals, found.run, found.looks
    rate = run.get("images_per_second")
    return {
        "title": printable_utf8(found.output.resolve().name or str(found.output)),
        "made": datetime.now(UTC),
        "version": __version__,
        "running": (found.output / HOLDER_FILE).exists(),
        "done": totals.images,
        "failed": collected.failures.rows,
        "classes": [
            {
                **looks.entry(index),
                "share": pixels / totals.pixels,
                "images": totals.class_images[index],
                "image_share": totals.class_images[index] / totals.images,
            }
            for index, pixels in totals.class_pixels.most_common()
            if pixels
        ],
        "labels": found.labels,
        "run": run,
        "rate": rate if isinstance(rate, int | float) and 0 < rate < _LARGEST_RATE else None,
        "mean_seconds": collected.seconds / totals.images if totals.images else None,
        "sorts": _sorts(collected),
        # By the number of images that show them.
        "options": [
            {"id": index, "name": looks.name(index), "images": images}
            for index, images in totals.class_images.most_common()
        ],
        "views": _VIEWS,
        "failures": collected.first_failures,
        "failure_kinds": collected.failure_kinds.most_common(),
    }


def _sorts(collected: _Collected) -> list[dict[str, str]]:
    sorts = [{"id": "name", "label": "Name"}]
    if collected.has_confidence:
        sorts.append({"id": "confidence", "label": "Confidence"})
    return [*sorts, {"id": "finished", "label": "Time finished"}, {"id": "seconds", "label": "Wall time"}]
