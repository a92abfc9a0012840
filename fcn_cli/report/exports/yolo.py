"""YOLO's segmentation labels, as Ultralytics reads them: one polygon a line, in fractions of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...common.errors import OutputLost
from ...common.label_map import VOID_INDEX, LabelMap, count_classes
from ...outputs.record import Record
from .files import (
    Destination,
    Results,
    UniqueNames,
    building,
    check_destination,
    write_upright_jpeg,
)
from .polygons import Points, trace

_INSET_PIXELS = 0.01
"""How far the polygons lie inside the edges of their pixels. Ultralytics cuts coordinates off to whole pixels
and fills these inclusively: so it gets exactly the region's pixels, and not a row and a column more."""

_IMAGES, _LABELS = "images/train", "labels/train"


class YoloExporter:
    """Writes ``data.yaml``, and for each image an upright JPEG and a text file; see `Exporter`.

    A class's number is its class index; that of the background is never used. An image without regions has an
    empty text file.
    """

    def __init__(self, destination: Destination) -> None:
        check_destination(destination.path, overwrite=destination.overwrite)
        self._path, self._overwrite = destination.path, destination.overwrite
        self._class_names, self._background = destination.class_names, destination.background
        self._rendering = destination.rendering
        self._names = UniqueNames()
        self._root = Path()

    def job(self, record: Record) -> Callable[[LabelMap], None]:
        """Return what writes an image and its polygons; see `Exporter`."""
        return partial(self._write_one, record, self._names.unique(record.image))

    def write(self, results: Results) -> None:
        """Write the directory; see `Exporter`."""
        with building(self._path, "yolo", overwrite=self._overwrite) as new, contextlib.closing(results):
            self._root = new
            for directory in (_IMAGES, _LABELS):
                (new / directory).mkdir(parents=True)
            for _ in results:
                pass
            (new / "data.yaml").write_text(self._description(), encoding="utf-8")

    def _write_one(self, record: Record, name: str, labels: LabelMap) -> None:
        write_upright_jpeg(record, self._root / _IMAGES / f"{name}.jpg", self._rendering)
        path = self._root / _LABELS / f"{name}.txt"
        with OutputLost.when_refused(path), path.open("w", encoding="ascii") as stream:
            stream.writelines(_lines(labels, self._background))

    def _description(self) -> str:
        """Return ``data.yaml``. Ultralytics wants a ``val`` too."""
        lines = [f"train: {_IMAGES}", f"val: {_IMAGES}", "names:"]
        lines += [f"  {index}: {_quoted(name)}" for index, name in enumerate(self._class_names)]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as YAML writes it between quotation marks, in ASCII.

    JSON's strings are not always YAML's: of a character beyond U+FFFF JSON makes two escapes, which YAML does
    not join, and YAML allows no DEL.
    """

    def escaped(character: str) -> str:
        if character in '"\\':
            return f"\\{character}"
        code = ord(character)
        return character if 32 <= code < 127 else f"\\U{code:08X}" if code > 0xFFFF else f"\\u{code:04X}"

    return f'"{"".join(map(escaped, text))}"'


def _lines(labels: LabelMap, background: int | None) -> Iterator[str]:
    """Yield a line for each region of a class: the class index, then x and y of its corners."""
    height, width = labels.shape
    for index in count_classes(labels):
        if index in {background, VOID_INDEX}:
            continue
        region = labels == index
        rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        for polygon in trace(region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]):
            corners = _inset(polygon) + np.array([columns[0], rows[0]])
            fractions = corners / np.array([width, height])
            yield f"{index} {' '.join(f'{value:.8f}' for value in fractions.ravel().tolist())}\n"


def _inset(polygon: Points) -> NDArray[np.float64]:
    """Return a polygon of `trace` moved into its region by `_INSET_PIXELS`."""
    steps = np.sign(np.roll(polygon, -1, axis=0) - polygon)
    # The region lies to the right of each step, where y points down.
    inward = np.column_stack([-steps[:, 1], steps[:, 0]])
    inward = np.clip(inward + np.roll(inward, 1, axis=0), -1, 1)
    corners: NDArray[np.float64] = polygon + _INSET_PIXELS * inward
    return corners
