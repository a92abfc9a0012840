"""Pascal VOC's tree: JPEGs, paletted masks, and lists of names."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...common import palettes
from ...common.errors import OutputLost
from ...common.label_map import VOID_INDEX, LabelMap
from ...outputs.overlay import colored
from ...outputs.record import Record
from ...outputs.statistics import path_cell
from ...outputs.writers import RLE_PNG
from .files import (
    Destination,
    Results,
    UniqueNames,
    building,
    check_destination,
    write_upright_jpeg,
)

_ROOT = "VOCdevkit/VOC2012"
_DIRECTORIES = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


class VocExporter:
    """Writes the tree that `torchvision.datasets.VOCSegmentation` reads; see `Exporter`.

    All names are in the list ``train``. ``labelmap.txt`` has class names and colours in CVAT's format, and
    ``images.csv`` says which image has which name.
    """

    def __init__(self, destination: Destination) -> None:
        check_destination(destination.path, overwrite=destination.overwrite)
        self._path, self._overwrite = destination.path, destination.overwrite
        self._class_names, self._background = destination.class_names, destination.background
        self._rendering = destination.rendering
        self._names = UniqueNames()
        self._palette = palettes.voc()
        self._root = Path()

    def job(self, record: Record) -> Callable[[LabelMap], tuple[str, Record]]:
        """Return what writes an image and its mask; see `Exporter`."""
        return partial(self._write_one, record, self._names.unique(record.image))

    def write(self, results: Results) -> None:
        """Write the tree; see `Exporter`."""
        with building(self._path, "voc", overwrite=self._overwrite) as new, contextlib.closing(results):
            self._root = new / _ROOT
            for directory in _DIRECTORIES:
                (self._root / directory).mkdir(parents=True)
            (self._root / "labelmap.txt").write_text(self._label_map(), encoding="utf-8")
            names = self._root / "ImageSets/Segmentation/train.txt"
            table = self._root / "images.csv"
            with names.open("w", encoding="utf-8") as listed, table.open("w", encoding="utf-8") as mapped:
                rows = csv.writer(mapped, lineterminator="\n")
                rows.writerow(("name", "image", "path"))
                for name, record in results:
                    listed.write(f"{name}\n")
                    rows.writerow((name, path_cell(record.image), path_cell(record.path)))

    def _write_one(self, record: Record, name: str, labels: LabelMap) -> tuple[str, Record]:
        write_upright_jpeg(record, self._root / "JPEGImages" / f"{name}.jpg", self._rendering)
        path = self._root / "SegmentationClass" / f"{name}.png"
        with OutputLost.when_refused(path):
            colored(labels, self._palette).save(path, **RLE_PNG)
        return name, record

    def _label_map(self) -> str:
        """Return the lines ``label:red,green,blue:parts:actions``; CVAT wants ``background`` for that."""
        names = [*enumerate(self._class_names), (VOID_INDEX, "ignored")]
        lines = ["# label:color_rgb:parts:actions"]
        for index, name in names:
            label = "background" if index == self._background else re.sub(r"[:\s]+", "_", name)
            lines.append(f"{label}:{','.join(map(str, self._palette[index].tolist()))}::")
        return "\n".join(lines) + "\n"
