"""Masks in a directory of their own: label maps, black and white ones for each class, cutouts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from typing_extensions import override

from ...common import files, palettes
from ...common.class_names import class_name
from ...common.errors import FailureKind, ImageError, OutputLost
from ...common.label_map import VOID_INDEX, LabelMap, count_classes, most_pixels
from ...common.output_layout import CLASSES_FILE
from ...inputs import workers
from ...outputs import geotiff
from ...outputs.directory import classes_text
from ...outputs.overlay import cutout
from ...outputs.record import Record
from ...outputs.writers import RLE_PNG
from .files import Destination, Results, building, check_destination, decode_unchanged

_MOST_NAME_BYTES = 200


class MasksExporter:
    """Writes ``REL.png``, 8-bit class indices as in ``masks/``, and ``classes.json``; see `Exporter`."""

    name, suffix = "masks", ".png"

    def __init__(self, destination: Destination) -> None:
        check_destination(destination.path, overwrite=destination.overwrite)
        self._path, self._overwrite = destination.path, destination.overwrite
        self._class_names, self._background = destination.class_names, destination.background
        self._root = Path()

    def job(self, record: Record) -> Callable[[LabelMap], None]:
        """Return what writes an image's masks; see `Exporter`."""
        return partial(self._write_all, record)

    def write(self, results: Results) -> None:
        """Write the directory; see `Exporter`."""
        with building(self._path, self.name, overwrite=self._overwrite) as new, contextlib.closing(results):
            self._root = new
            for _ in results:
                pass
            self._write_classes(new)

    def _masks(self, relative: str, labels: LabelMap) -> Iterator[tuple[str, LabelMap]]:
        """Yield the paths of an image's masks without their suffix, and their pixels."""
        yield relative, labels

    def _write(self, record: Record, pixels: LabelMap, path: Path) -> None:  # noqa: ARG002 - others need it
        Image.fromarray(pixels).save(path, **RLE_PNG)

    def _write_all(self, record: Record, labels: LabelMap) -> None:
        # Its outputs are called alike in every output type.
        relative = record.outputs[0].partition("/")[2].rpartition(".")[0]
        for name, pixels in self._masks(relative, labels):
            path = self._root / f"{name}{self.suffix}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise ImageError(
                    FailureKind.OUTPUT_REFUSED,
                    f"{name}: a file of another image has its directory's name",
                ) from None
            with OutputLost.when_refused(path):
                self._write(record, pixels, path)

    def _write_classes(self, new: Path) -> None:
        text = classes_text(self._class_names, palettes.hub(), self._background)
        (new / CLASSES_FILE).write_text(text, encoding="utf-8")


class BinaryExporter(MasksExporter):
    """Writes ``REL/person.png`` for each class in an image: 255 where it is, else 0; see `Exporter`."""

    name = "binary"

    def __init__(self, destination: Destination) -> None:
        super().__init__(destination)
        taken: set[str] = set()
        self._files = []
        for index, name in enumerate(destination.class_names):
            file = re.sub(r"[^\w.+-]|^[.-]", "_", name).encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
            file = f"{file}_{index}" if file.casefold() in taken or not file else file
            taken.add(file.casefold())
            self._files.append(file)

    @override
    def _masks(self, relative: str, labels: LabelMap) -> Iterator[tuple[str, LabelMap]]:
        for index in count_classes(labels):
            if index not in {self._background, VOID_INDEX}:
                file = self._files[index] if index < len(self._files) else class_name((), index)
                yield f"{relative}/{file}", np.where(labels == index, 255, 0).astype(np.uint8)


class GeotiffExporter(MasksExporter):
    """Writes ``REL.tif``, masks with their images' georeference, and ``classes.json``; see `Exporter`."""

    name, suffix = "geotiff", ".tif"

    def __init__(self, destination: Destination) -> None:
        geotiff.require()
        super().__init__(destination)

    @override
    def _write(self, record: Record, pixels: LabelMap, path: Path) -> None:
        with path.open("wb") as stream:
            geotiff.write_beside(stream, pixels, workers.measure(record.path, most_pixels()))


class CutoutExporter(MasksExporter):
    """Writes ``REL.png``, images cut out as by ``segment --write cutout``; see `Exporter`."""

    name = "cutout"

    def __init__(self, destination: Destination) -> None:
        super().__init__(destination)
        self._style, self._rendering = destination.cutout, destination.rendering

    @override
    def _write(self, record: Record, pixels: LabelMap, path: Path) -> None:
        picture = cutout(decode_unchanged(record, self._rendering), pixels, self._style)
        with files.create(path, files.permissions_of(record.path)) as stream:
            picture.save(stream, **RLE_PNG)

    @override
    def _write_classes(self, new: Path) -> None:
        pass
