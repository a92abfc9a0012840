"""``report.html`` of an output directory: a page to look at what was segmented."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from .. import __version__
from ..common.errors import ExitCode
from ..common.limits import MOST_MASK_PIXELS
from ..common.output_layout import HOLDER_FILE, KINDS, find_kind, kind_of
from ..inputs import decoder
from ..outputs.json_text import printable_utf8
from ..outputs.output_store import LocalStore
from ..outputs.record import Record
from ..outputs.settings import read_rendering
from ..outputs.statistics import Totals
from ..runs.observers import ProgressObserver
from . import contents
from .contents import Contents
from .page import Page
from .photo_images import LAYER, Shown, show_all
from .pictures import Pictures
from .table import Table

PER_PAGE = 200
"""Photos that the page shows at a time, and failures."""

_PART = 1000
_VIEWS = (
    {"id": "overlay", "label": "Overlay", "layer": LAYER, "opacity": 0.6},
    {"id": "classes", "label": "Classes", "layer": LAYER, "opacity": 1},
)


@dataclass
class _Collected:
    """What the records add up to, and the tables of them."""

    totals: Totals = field(default_factory=Totals)
    photos: Table = field(default_factory=lambda: Table("photos", _PART))
    failures: Table = field(default_factory=lambda: Table("failures", PER_PAGE))
    first_failures: list[dict[str, Any]] = field(default_factory=list)
    failure_kinds: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    has_confidence: bool = False
    seconds: float = 0.0
    expected: int = 0

    def add_photo(self, shown: Shown) -> None:
        record = shown.record
        self.totals.add(record)
        self.photos.add(_photo_row(shown))
        self.keys.add(shown.key)
        self.has_confidence |= record.mean_confidence is not None
        self.seconds += record.seconds

    def add_failure(self, row: dict[str, Any]) -> None:
        self.failures.add(row)
        self.failure_kinds[row["kind"]] += 1
        if len(self.first_failures) < PER_PAGE:
            self.first_failures.append(row)


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written: its page, and how many photos it shows and how many of them in part."""

    path: Path
    photos: int
    incomplete: int

    @property
    def exit_code(self) -> int:
        """The exit code of the process: a photo that is gone is no failure of the report."""
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
        It is not an output directory.
    OutputLost
        The report cannot be written.
    """
    decoder.prepare_process(max_pixels)
    found = contents.read(output)
    page = Page(output)
    pictures = Pictures(page.images, {LAYER: found.looks.palette})
    collected, incomplete = _Collected(), 0
    for record in found.records():
        collected.expected += record.ok
        if not record.ok:
            collected.add_failure(_failure_row(record.as_json()))
    for refused in _refused(found):
        collected.add_failure(_failure_row(refused))
    observer.begin(collected.expected)
    done = (record for record in found.records() if record.ok)
    for shown in show_all(done, output, pictures, read_rendering(LocalStore(output))):
        collected.add_photo(shown)
        whole = shown.has_photo and shown.has_labels
        incomplete += not whole
        observer.step(failed=not whole)
    page.write(
        "output.html",
        _context(found, collected),
        _data(found, collected, pictures),
        {**collected.photos.finish(), **collected.failures.finish()},
    )
    pictures.sweep(collected.keys)
    return WrittenReport(page.path, collected.photos.rows, incomplete)


def _refused(found: Contents) -> list[dict[str, Any]]:
    """Return what the last run refused: photos whose name belongs to another one, which is in the journal."""
    refused = found.run.get("refused")
    entries = refused if isinstance(refused, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("image"), str)]


def _failure_row(record: dict[str, Any]) -> dict[str, Any]:
    error = record.get("error") or {}
    return {
        "name": record["image"],
        "kind": str(error.get("kind", "Unknown")),
        "message": str(error.get("message", "")),
    }


def _photo_row(shown: Shown) -> dict[str, Any]:
    record = shown.record
    shares = [number for pair in sorted((record.classes or {}).items()) for number in pair]
    kinds = {kind_of(name) for name in record.outputs}
    return {
        "name": printable_utf8(record.image),
        "key": shown.key,
        "stem": _stem(record),
        "kinds": sum(1 << bit for bit, kind in enumerate(KINDS) if kind.name in kinds),
        "width": record.width,
        "height": record.height,
        "classes": shares,
        "confidence": record.mean_confidence,
        "finished": int(record.finished_seconds()),
        "seconds": round(record.seconds, 3),
        "ran": " ".join(filter(None, [record.device, record.precision])),
        "has": shown.has_photo + 2 * shown.has_labels,
        "notes": [*shown.notes, *record.notes],
    }


def _stem(record: Record) -> str:
    """Return what the URLs of a record's outputs have in common, between the kind and the suffix."""
    if not record.outputs:
        return ""
    kind, _, name = record.outputs[0].partition("/")
    return quote_from_bytes(os.fsencode(name.removesuffix(find_kind(kind).suffix)))


def _data(found: Contents, collected: _Collected, pictures: Pictures) -> dict[str, Any]:
    counts = collected.totals.class_images
    return {
        "kind": "photos",
        "view": "overlay",
        "wipe": 50,
        "tableOrder": "name",
        "perPage": PER_PAGE,
        "photos": collected.photos.describe(),
        "failures": collected.failures.describe(),
        "classes": [
            {"id": i, "name": found.looks.name(i), "color": found.looks.color(i), "images": counts[i]}
            for i in sorted(counts)
        ],
        "zero": {"name": found.looks.name(0), "color": found.looks.color(0)},
        "views": _VIEWS,
        "tags": pictures.tags,
        "outputs": [{"kind": kind.name, "suffix": kind.suffix} for kind in KINDS],
    }


def _context(found: Contents, collected: _Collected) -> dict[str, Any]:
    totals, run = collected.totals, found.run
    rate = run.get("images_per_second")
    return {
        "title": printable_utf8(found.output.resolve().name or str(found.output)),
        "made": datetime.now(UTC),
        "version": __version__,
        "running": (found.output / HOLDER_FILE).exists(),
        "done": totals.images,
        "failed": collected.failures.rows,
        "pixels": totals.pixels,
        "classes": _bars(found, totals),
        "labels": found.labels,
        "run": run,
        "rate": rate if isinstance(rate, int | float) else None,
        "mean_seconds": collected.seconds / totals.images if totals.images else None,
        "sorts": _sorts(collected),
        "options": _class_options(found, totals),
        "views": _VIEWS,
        "failures": collected.first_failures,
        "failure_kinds": collected.failure_kinds.most_common(),
    }


def _sorts(collected: _Collected) -> list[dict[str, str]]:
    sorts = [{"id": "name", "label": "Name"}]
    if collected.has_confidence:
        sorts.append({"id": "confidence", "label": "Confidence"})
    return [*sorts, {"id": "finished", "label": "Time finished"}, {"id": "seconds", "label": "Wall time"}]


def _class_options(found: Contents, totals: Totals) -> list[dict[str, Any]]:
    """Return the classes to choose from, by the number of photos that show them."""
    return [
        {"id": index, "name": found.looks.name(index), "images": images}
        for index, images in totals.class_images.most_common()
    ]


def _bars(found: Contents, totals: Totals) -> list[dict[str, Any]]:
    """Return a row for each class that is in a photo, the largest first."""
    return [
        {
            "id": index,
            "name": found.looks.name(index),
            "color": found.looks.color(index),
            "pixels": pixels,
            "share": pixels / totals.pixels,
            "images": totals.class_images[index],
            "image_share": totals.class_images[index] / totals.images,
        }
        for index, pixels in totals.class_pixels.most_common()
        if pixels
    ]
