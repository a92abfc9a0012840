"""``report.html`` of an evaluation: metrics, the confusion matrix, and the images, worst first."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import __version__
from ..common import files, palettes, store_urls
from ..common.errors import FailureKind, ImageError, OutputLost, RequestError
from ..common.label_map import VOID_INDEX, LabelMap, count_classes
from ..common.output_layout import REPORT_DIRECTORY, REPORT_FILE, is_output_directory
from ..evaluation.accuracy import Compared
from ..evaluation.confusion import Confusion
from ..evaluation.result import Evaluation, SeenImage
from ..inputs import exif, workers
from ..inputs.decode_options import DecodeOptions
from ..inputs.discovery import Source
from ..outputs.json_text import printable_utf8
from ..runs.observers import ProgressObserver
from .directory import PART, ClassLooks
from .page import PER_PAGE, Page, Table, is_page
from .pictures import LARGE, Pictures, key_of, make_in_threads

FIGURES_FILE = "evaluation.json"
WRONG_COLOR = (255, 0, 92)
"""The colour of wrong pixels; no built-in palette has it."""

_RENDERER = 2
_MAX_CELLS = 40
_LAYERS = ("truth", "prediction", "wrong")
_VIEWS = (
    {"id": "truth", "label": "Truth", "layer": "truth", "opacity": 0.6},
    {"id": "prediction", "label": "Prediction", "layer": "prediction", "opacity": 0.6},
    {
        "id": "wrong",
        "label": "Wrong",
        "layer": "wrong",
        "opacity": 0.8,
        "color": "#" + bytes(WRONG_COLOR).hex(),
    },
)
_SORTS = (
    {"id": "iou", "label": "Mean IoU"},
    {"id": "accuracy", "label": "Pixel accuracy"},
    {"id": "name", "label": "Name"},
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image that was compared: its row of the table, and what its own pictures are made from."""

    source: Source
    image: SeenImage
    key: str
    row: dict[str, Any]


class EvaluationReport:
    """The report of an evaluation, from the first image to the page.

    `add` is an `evaluation.accuracy.Inspector`. An evaluation does not stop because its report cannot be
    written: `add` keeps the first such error, and `write` raises it.

    Parameters
    ----------
    directory
        Where ``report.html`` and ``evaluation.json`` go. It is created.
    images
        The images that are measured.

    Raises
    ------
    RequestError
        The directory is an output directory, which has a report of its own, or holds what is not ours; or it
        lies among the images, where the next run would take the report's pictures for images.
    OutputLost
        It cannot be written. It is better to know that before the evaluation.
    """

    def __init__(self, directory: Path, images: str) -> None:
        self._directory = directory
        real, measured = directory.resolve(), Path(store_urls.local_path(images)).resolve()
        if is_output_directory(str(directory)):
            raise RequestError(
                f"--report {directory}: an output directory has its own report; name another directory"
            )
        if real == measured or measured in real.parents:
            raise RequestError(
                f"--report {directory}: inside {images} its pictures would be taken for images; name "
                "another directory"
            )
        _refuse_foreign(directory)
        self._page = Page(directory)
        with OutputLost.when_refused(directory):
            files.make_directories(directory)
            probe = files.temporary_in(directory)
            probe.touch()
            probe.unlink()
        classes, wrong = palettes.hub(), np.zeros((256, 3), np.uint8)
        wrong[1] = WRONG_COLOR
        colors = dict(zip(_LAYERS, (classes, classes, wrong), strict=True))
        self._pictures = Pictures(self._page.store, colors)
        self._entries: list[_Entry] = []
        self._lost: OutputLost | None = None

    def add(self, compared: Compared) -> None:
        """Make the pictures of an image's label maps while they are at hand: they are not kept."""
        if self._lost is not None:
            return
        key, truth, predicted = _key(compared), compared.truth, compared.predicted
        layers = partial(_layers, truth, predicted)
        try:
            made = self._pictures.of_labels(key, layers)
        except OutputLost as error:
            self._lost = error
            return
        row = {**_row(compared), "key": key, **made}
        self._entries.append(_Entry(compared.source, compared.seen, key, row))

    def write(self, evaluation: Evaluation, observer: ProgressObserver, decoding: DecodeOptions) -> Path:
        """Write ``evaluation.json``, the pictures and the page; return the page's path.

        Raises
        ------
        OutputLost
            A file cannot be written.
        """
        figures = evaluation.as_json()
        path = self._directory / FIGURES_FILE
        with OutputLost.when_refused(path):
            files.write_text(path, json.dumps(figures, indent=2) + "\n")
        looks = ClassLooks(dict(enumerate(evaluation.class_names)), palettes.hub())
        table = Table("images", PART)
        observer.begin(evaluation.confusion.images)
        cells: Counter[int] = Counter()
        for row in self._rows(decoding):
            table.add(row)
            cells.update(_cells(row))
            observer.step(failed=row["large"] is None)
        parts = table.finish()
        context = _context(evaluation, figures, looks, cells)
        self._page.write("evaluation.html", context, self._data(table, looks), parts)
        self._pictures.sweep()
        return self._page.path

    def _rows(self, decoding: DecodeOptions) -> Iterator[dict[str, Any]]:
        """Make the images' own pictures and yield the rows of the table, the worst image first."""
        if self._lost is not None:
            raise self._lost
        complete = partial(self._complete, decoding=decoding)
        worst_first = sorted(self._entries, key=_worst_first)
        yield from make_in_threads(worst_first, complete, lambda e: e.image.size[0] * e.image.size[1])

    def _complete(self, entry: _Entry, decoding: DecodeOptions) -> dict[str, Any]:
        open_image = partial(_open_image, entry, decoding)
        made, problem = self._pictures.of_image(entry.key, entry.source.path, open_image)
        notes = [*entry.image.notes, *([problem] if problem is not None else [])]
        return {**entry.row, "small": made.get("small"), "large": made.get("large"), "notes": notes}

    def _data(self, table: Table, looks: ClassLooks) -> dict[str, Any]:
        return {
            "page": "evaluation",
            "view": "wrong",
            "wipe": 0,
            "tableOrder": "iou",
            "perPage": PER_PAGE,
            "large": LARGE,
            "images": table.describe(),
            "classes": [looks.entry(index) for index in (*sorted(looks.names), VOID_INDEX)],
            "zero": looks.entry(0),
            "views": _VIEWS,
            "tags": self._pictures.tags,
        }


def wrong_pixels(truth: LabelMap, predicted: LabelMap) -> LabelMap:
    """Return 1 where a prediction is wrong, else 0; where the truth is void, nothing is wrong."""
    wrong: NDArray[np.bool_] = (truth != predicted) & (truth != VOID_INDEX)
    return wrong.astype(np.uint8)


def _layers(truth: LabelMap, predicted: LabelMap) -> dict[str, LabelMap]:
    return dict(zip(_LAYERS, (truth, predicted, wrong_pixels(truth, predicted)), strict=True))


def _refuse_foreign(directory: Path) -> None:
    """Raise RequestError for a directory that holds something and no report of an evaluation."""
    try:
        names = {name for name in os.listdir(directory) if name[:1] != "."} - {"lost+found"}
    except OSError:
        return
    # A report that was killed has no page yet.
    is_begun = REPORT_DIRECTORY in names and names <= {REPORT_DIRECTORY, FIGURES_FILE}
    if names and not is_begun and not is_page(directory / REPORT_FILE):
        raise RequestError(
            f"--report {directory}: holds files that fcn did not write ({min(names)}); give a new directory"
        )


def _key(compared: Compared) -> str:
    source, labels = compared.source, hashlib.sha256()
    for each in (compared.truth, compared.predicted):
        labels.update(np.ascontiguousarray(each).data)
    file = (source.image, source.size_bytes, source.etag or source.mtime_ns)
    return key_of(
        "evaluation", _RENDERER, *file, compared.seen.stored, compared.truth.shape, labels.hexdigest()
    )


def _row(compared: Compared) -> dict[str, Any]:
    confusion, counts = compared.confusion, count_classes(compared.truth)
    seen = sorted({*counts, *count_classes(compared.predicted)})
    iou = {index: float(value) for index, value in enumerate(confusion.iou()) if not np.isnan(value)}
    height, width = compared.truth.shape
    return {
        "name": printable_utf8(compared.source.image),
        "width": width,
        "height": height,
        "classes": [number for index in seen for number in (index, counts.get(index, 0))],
        "ious": [number for index, value in iou.items() for number in (index, round(value, 4))],
        "iou": _known(confusion.mean_iou()),
        "accuracy": _known(confusion.pixel_accuracy()),
        "mistakes": _mistakes(confusion),
    }


def _cell(true: int, predicted: int) -> int:
    """Return the number that stands for a cell of the confusion matrix in the page's data."""
    return 256 * true + predicted


def _mistakes(confusion: Confusion) -> list[int]:
    """Return an image's mistakes, the largest first: cell, pixels, cell, pixels, …; see `_cell`."""
    matrix = confusion.matrix.copy()
    np.fill_diagonal(matrix, 0)
    flat: list[int] = []
    for place in np.argsort(-matrix, axis=None, kind="stable")[: np.count_nonzero(matrix)]:
        true, predicted = divmod(int(place), matrix.shape[1])
        column = VOID_INDEX if predicted == len(matrix) else predicted
        flat += [_cell(true, column), int(matrix[true, predicted])]
    return flat


def _cells(row: dict[str, Any]) -> Iterator[int]:
    """Yield the cells of the confusion matrix in which an image has pixels."""
    right = dict(zip(row["classes"][::2], row["classes"][1::2], strict=True))
    for cell, pixels in zip(row["mistakes"][::2], row["mistakes"][1::2], strict=True):
        right[cell // 256] -= pixels
        yield cell
    for index, pixels in right.items():
        if pixels > 0 and index != VOID_INDEX:
            yield _cell(index, index)


def _worst_first(entry: _Entry) -> tuple[float, str]:
    # An image whose truth is all void has no figure, and comes last.
    return 2.0 if entry.row["iou"] is None else entry.row["iou"], entry.source.image


def _open_image(entry: _Entry, decoding: DecodeOptions) -> Image.Image:
    shown = workers.decode_for_people(
        entry.source.path, decoding.max_pixels, decoding.rendering, decoding.timeout, LARGE
    )
    stored = entry.image.stored
    if (exif.turned_size(shown.size, shown.turn) if stored else shown.size) != entry.image.size:
        raise ImageError(FailureKind.CHANGED, "The image has changed since it was measured.")
    return exif.as_stored(shown.image, shown.turn) if stored else shown.image


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _context(
    evaluation: Evaluation, figures: dict[str, Any], looks: ClassLooks, cells: Counter[int]
) -> dict[str, Any]:
    settings = evaluation.protocol.get("settings") or {}
    protocol = {key: value for key, value in evaluation.protocol.items() if key != "settings"}
    present = [
        {"id": int(index), "color": looks.color(int(index)), **entry}
        for index, entry in figures["classes"].items()
        if entry["iou"] is not None
    ]
    return {
        "title": _title(evaluation),
        "made": datetime.now(UTC),
        "version": __version__,
        "figures": figures,
        "classes": sorted(present, key=lambda entry: entry["iou"]),
        "matrix": _matrix(evaluation.confusion, looks, cells),
        "protocol": {key: printable_utf8(str(value)) for key, value in protocol.items()},
        "settings": settings,
        "failures": [{**row, "name": printable_utf8(row["image"])} for row in figures["failures"][:PER_PAGE]],
        "sorts": _SORTS,
        "options": [
            {"id": entry["id"], "name": entry["name"], "images": entry["truth_images"]}
            for entry in sorted(present, key=lambda entry: -entry["truth_images"])
        ],
        "views": _VIEWS,
    }


def _title(evaluation: Evaluation) -> str:
    measured = evaluation.protocol.get("predictions")
    if measured is not None:
        return printable_utf8(Path(measured).resolve().name)
    settings = evaluation.protocol.get("settings") or {}
    return str(settings.get("backbone", "evaluation"))


def _matrix(confusion: Confusion, looks: ClassLooks, images: Counter[int]) -> dict[str, Any]:
    """Return the confusion matrix of the classes that occur; a row has shares of the true class's pixels."""
    occurs = confusion.true_pixels + confusion.predicted_pixels
    largest = np.argsort(-occurs, kind="stable")[:_MAX_CELLS]
    shown = sorted(int(index) for index in largest if occurs[index])
    columns = [(index, index, looks.name(index)) for index in shown]
    if confusion.matrix[:, -1].any():
        columns.append((confusion.matrix.shape[1] - 1, VOID_INDEX, "void"))
    rows = []
    for index in shown:
        total = int(confusion.true_pixels[index])
        cells = []
        for column, predicted, name in columns:
            pixels = int(confusion.matrix[index, column])
            cell = _cell(index, predicted)
            share = pixels / total if total else 0.0
            cells.append({"id": cell, "name": name, "pixels": pixels, "share": share, "images": images[cell]})
        rows.append({"id": index, "name": looks.name(index), "cells": cells})
    return {
        "columns": [name for *_, name in columns],
        "rows": rows,
        "hidden": int((occurs > 0).sum()) - len(shown),
    }
