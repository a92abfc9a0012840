"""``report.html`` of an evaluation: figures, the confusion matrix, and the photos, the worst one first."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..common import files, palettes
from ..common.errors import OutputLost, RequestError
from ..common.output_layout import REPORT_DIRECTORY, REPORT_FILE, is_output_directory
from ..evaluation.result import Evaluation
from ..inputs.decode_options import DecodeOptions
from ..outputs.json_text import printable_utf8
from ..runs.observers import ProgressObserver
from .compared_photos import WRONG_COLOR, ComparedPhotos
from .contents import ClassLooks
from .page import Page, is_page
from .table import Table

FIGURES_FILE = "evaluation.json"

_PER_PAGE = 200
_PART = 1000
_MAX_CELLS = 40
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


class EvaluationReport:
    """The report of an evaluation, from the first photo to the page.

    Parameters
    ----------
    directory
        Where ``report.html`` and ``evaluation.json`` go. It is created.
    images
        The photos that are measured.

    Raises
    ------
    RequestError
        The directory is an output directory, which has a report of its own, or holds what is not ours; or it
        lies among the photos, where the next run would take the report's pictures for photos.
    OutputLost
        It cannot be written. It is better to know that before the evaluation.
    """

    def __init__(self, directory: Path, images: str) -> None:
        self._directory = directory
        real, photos = directory.resolve(), Path(images).resolve()
        if is_output_directory(str(directory)):
            raise RequestError(f"--report {directory}: an output directory has its own report; name another")
        if real == photos or photos in real.parents:
            raise RequestError(
                f"--report {directory}: below {images} its pictures would be taken for photos; name another"
            )
        _refuse_foreign(directory)
        self._page = Page(directory)
        with OutputLost.when_refused(directory):
            files.make_directories(directory)
            probe = files.temporary_in(directory)
            probe.touch()
            probe.unlink()
        self._photos = ComparedPhotos(self._page.images)
        self.add = self._photos.add

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
        table = Table("photos", _PART)
        observer.begin(evaluation.confusion.images)
        for row in self._photos.rows(decoding):
            table.add(row)
            observer.step(failed=not row["has"] & 1)
        parts = table.finish()
        self._page.write(
            "evaluation.html", _context(evaluation, figures, looks), _data(table, looks, self._photos), parts
        )
        self._photos.pictures.sweep(self._photos.keys)
        return self._page.path


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


def _data(table: Table, looks: ClassLooks, photos: ComparedPhotos) -> dict[str, Any]:
    indices = [*sorted(looks.names), 255]
    return {
        "kind": "evaluation",
        "view": "wrong",
        "wipe": 0,
        "tableOrder": "iou",
        "perPage": _PER_PAGE,
        "photos": table.describe(),
        "classes": [
            {"id": index, "name": looks.name(index), "color": looks.color(index)} for index in indices
        ],
        "zero": {"name": looks.name(0), "color": looks.color(0)},
        "views": _VIEWS,
        "tags": photos.pictures.tags,
    }


def _context(evaluation: Evaluation, figures: dict[str, Any], looks: ClassLooks) -> dict[str, Any]:
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
        "matrix": _matrix(evaluation, looks),
        "protocol": {key: printable_utf8(str(value)) for key, value in protocol.items()},
        "settings": settings,
        "failures": [
            {**row, "name": printable_utf8(row["image"])} for row in figures["failures"][:_PER_PAGE]
        ],
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


def _matrix(evaluation: Evaluation, looks: ClassLooks) -> dict[str, Any]:
    """Return the confusion matrix of the classes that occur; a row has shares of the true class's pixels."""
    counts = evaluation.confusion
    occurs = counts.true_pixels + counts.predicted_pixels
    largest = np.argsort(-occurs, kind="stable")[:_MAX_CELLS]
    shown = sorted(int(index) for index in largest if occurs[index])
    void = bool(counts.matrix[:, -1].any())
    columns = [*shown, *([counts.matrix.shape[1] - 1] if void else [])]
    names = [looks.name(index) for index in shown] + (["void"] if void else [])
    rows = []
    for index in shown:
        total = int(counts.true_pixels[index])
        cells = [
            {"pixels": int(counts.matrix[index, column]), "right": index == column, "name": name}
            for column, name in zip(columns, names, strict=True)
        ]
        for cell in cells:
            cell["share"] = int(cell["pixels"]) / total if total else 0.0
        rows.append({"name": looks.name(index), "pixels": total, "cells": cells})
    return {"columns": names, "rows": rows, "hidden": int((occurs > 0).sum()) - len(shown)}
