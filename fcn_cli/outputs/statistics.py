"""``stats.csv`` and ``summary.json``, computed from the journal."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common import files
from ..common.class_names import class_name
from ..common.output_layout import JOURNAL_FILE, STATS_FILE, SUMMARY_BYTES, SUMMARY_FILE
from .journal import Journal
from .json_text import printable_utf8
from .output_store import OutputStore
from .record import Record

_NOT_HOW = frozenset(
    {"images", "ok", "skipped", "failed", "not_reached", "pruned", "refused", "stopped", "endings"}
)
"""What ``segmented`` in ``summary.json``, on the last run that segmented images, does not say."""

COLUMNS = ("image", "width", "height", "class_id", "class_name", "pixels", "fraction")

# What begins a formula in a spreadsheet, as OWASP lists it ("CSV Injection"), also in full width.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Before Python 3.13 a carriage return is quoted only where it could end a line; the others end a cell where a
# spreadsheet does not take a comma for that.
_TO_BE_QUOTED = re.compile("[\r;\t]")


@dataclass
class Totals:
    """Sums over records: for each class index, the images that show it and its pixels."""

    images: int = 0
    failed: int = 0
    pixels: int = 0
    class_images: Counter[int] = field(default_factory=Counter)
    class_pixels: Counter[int] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count one record."""
        if not record.ok:
            self.failed += 1
            return
        self.images += 1
        for index, pixels in (record.classes or {}).items():
            self.pixels += pixels
            self.class_images[index] += 1
            self.class_pixels[index] += pixels

    def as_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the sums with class names, for ``summary.json``."""
        classes = {
            str(index): {
                "name": class_name(class_names, index),
                "images": self.class_images[index],
                "pixels": pixels,
                "fraction": round(pixels / self.pixels, 6),
            }
            for index, pixels in sorted(self.class_pixels.items())
        }
        return {"images": self.images, "failed": self.failed, "pixels": self.pixels, "classes": classes}


def write(
    output: OutputStore, journal: Journal, fingerprint: str, class_names: Sequence[str], run: dict[str, Any]
) -> Totals:
    """Write both projections of the journal; return the sums over its records.

    Parameters
    ----------
    output
        The output directory.
    journal
        Its journal.
    fingerprint
        Only records with this fingerprint count. After ``--overwrite`` with other settings the journal can
        hold records of images that are no longer among the inputs, with classes of another network.
    class_names
        By class index.
    run
        What ``summary.json`` says of the last run, under the key ``run``.

    Raises
    ------
    OSError
        A file cannot be written; each file is either the old or the new one.
    """
    totals = Totals()
    records = (record for record in journal if record.fingerprint == fingerprint)
    output.write_text(STATS_FILE, _csv(records, class_names, totals))
    summary = {"totals": totals.as_json(class_names), "journal_bytes": journal.size_bytes}
    _write_summary(output, {**_read_summary(output), **summary}, run)
    return totals


def write_run(output: OutputStore, run: dict[str, Any]) -> None:
    """Write the last run into a ``summary.json`` that is up to date otherwise; raises OSError."""
    _write_summary(output, _read_summary(output), run)


def _write_summary(output: OutputStore, summary: dict[str, Any], run: dict[str, Any]) -> None:
    if run.get("images_per_second"):
        summary["segmented"] = {key: value for key, value in run.items() if key not in _NOT_HOW}
    content = {key: summary[key] for key in ("totals", "segmented", "journal_bytes") if key in summary}
    output.write_text(SUMMARY_FILE, json.dumps({"run": run, **content}, indent=2) + "\n")


def _read_summary(output: OutputStore) -> dict[str, Any]:
    try:
        summary = files.read_small_json(output / SUMMARY_FILE, SUMMARY_BYTES)
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def up_to_date(output: OutputStore, class_names: Sequence[str]) -> bool:
    """Say whether both projections have these class names and match ``manifest.jsonl``, all lines whole."""
    try:
        names = output.top_names()
    except OSError:
        return False
    summary = _read_summary(output)
    size = summary.get("journal_bytes")
    if not isinstance(size, int) or STATS_FILE not in names or not _has_names(summary, class_names):
        return False
    return output.has_size(JOURNAL_FILE, size) if JOURNAL_FILE in names else size == 0


def _has_names(summary: dict[str, Any], class_names: Sequence[str]) -> bool:
    try:
        classes = summary["totals"]["classes"].items()
        return all(entry["name"] == class_name(class_names, int(index)) for index, entry in classes)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def path_cell(name: str) -> str:
    """Return a relative path for a CSV file; no spreadsheet runs ``./=1.png``, which is the same file."""
    text = printable_utf8(name)
    return f"./{text}" if text.startswith(_FORMULA) else text


def name_cell(name: str) -> str:
    """Return a class name for a CSV file, behind an apostrophe where a spreadsheet would run it."""
    return f"'{name}" if name.startswith(_FORMULA) else name


def _csv(records: Iterable[Record], class_names: Sequence[str], totals: Totals) -> str:
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    careful = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(COLUMNS)
    for record in records:
        totals.add(record)
        if not record.ok or not record.classes or not record.width or not record.height:
            continue
        area = record.width * record.height
        writer = careful if _TO_BE_QUOTED.search(record.image) else plain
        writer.writerows(
            (
                path_cell(record.image),
                record.width,
                record.height,
                index,
                name_cell(class_name(class_names, index)),
                pixels,
                f"{pixels / area:.6f}",
            )
            for index, pixels in sorted(record.classes.items())
        )
    return text.getvalue()
