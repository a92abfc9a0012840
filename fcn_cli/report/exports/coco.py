"""COCO: one JSON file of images and annotations.

Each class in an image is one annotation with run lengths, and ``iscrowd`` is 0: see "Stuff Segmentation" in
COCO's data format (cocodataset.org/#format-data). Or each connected part of a class is one. The category's id
is the class index.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...common import files
from ...common.errors import OutputLost, RequestError
from ...common.label_map import VOID_INDEX, LabelMap
from ...common.output_layout import WRITTEN_BY_EXPORT
from ...common.regions import Regions
from ...common.run_lengths import Encoded, encode
from ...outputs.json_text import name_fields
from ...outputs.record import Record
from .files import Destination, Results
from .polygons import outline

_Result = tuple[dict[str, Any], list[dict[str, Any]]]


class CocoExporter:
    """Writes a COCO file; see `Exporter`."""

    def __init__(self, destination: Destination) -> None:
        self._path, self._overwrite = destination.path, destination.overwrite
        self._check_destination()
        self._names, self._background = destination.class_names, destination.background
        self._parts, self._polygons = destination.parts, destination.polygons

    def _check_destination(self) -> None:
        path = self._path
        if path.is_dir():
            raise RequestError(f"--output {path}: is a directory; give the JSON file to write")
        if path.exists() and not _is_ours(path):
            raise RequestError(f"--output {path}: not written by fcn export; give another file")
        if path.exists() and not self._overwrite:
            raise RequestError(f"--output {path}: exists; give another one, or --overwrite to replace it")

    def job(self, record: Record) -> Callable[[LabelMap], _Result]:
        """Return what makes an image's entry and annotations, without their numbers; see `Exporter`."""
        return partial(self._encode, record)

    def write(self, results: Results) -> None:
        """Write the file; see `Exporter`."""
        with OutputLost.when_refused(self._path), contextlib.closing(results):
            files.make_directories(self._path.parent)
            with tempfile.TemporaryFile(dir=self._path.parent) as images:
                files.write_whole(self._path, partial(self._write, results, images))
            files.sync_directories([self._path.parent])

    def _write(self, results: Iterable[_Result], images: BinaryIO, stream: BinaryIO) -> None:
        """Write annotations as they come; images go into a file of their own, and follow at the end."""
        categories = [
            {"id": index, "name": name, "supercategory": ""}
            for index, name in enumerate(self._names)
            if index != self._background
        ]
        each = "connected part" if self._parts else "class in an image"
        info = {"description": f"{WRITTEN_BY_EXPORT}: one region for each {each}"}
        stream.write(b'{"info": %s,\n"licenses": [],\n"categories": ' % _dumped(info))
        stream.write(_dumped(categories) + b',\n"annotations": [')
        annotation_id = 0
        for image_id, (image, regions) in enumerate(results, start=1):
            images.write((b"\n" if image_id == 1 else b",\n") + _dumped({"id": image_id, **image}))
            for region in regions:
                annotation_id += 1
                stream.write(b"\n" if annotation_id == 1 else b",\n")
                stream.write(_dumped({"id": annotation_id, "image_id": image_id, **region}))
        stream.write(b'],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, stream)
        stream.write(b"]}\n")
        # As with directories, see `building`: something may have come there meanwhile.
        self._check_destination()

    def _encode(self, record: Record, labels: LabelMap) -> _Result:
        height, width = labels.shape
        image = {**name_fields("file_name", record.image), "width": width, "height": height}
        annotations = [
            {
                "category_id": index,
                "segmentation": segmentation,
                "area": encoded.area,
                "bbox": list(encoded.bbox),
                "iscrowd": 0,
            }
            for index, encoded, segmentation in self._regions(labels)
        ]
        return image, annotations

    def _regions(self, labels: LabelMap) -> Iterator[tuple[int, Encoded, object]]:
        """Yield the class of each region to export, the region, and its segmentation as COCO has it."""
        regions = Regions.of(labels) if self._parts else None
        for encoded in encode(labels if regions is None else regions.image):
            index = encoded.value if regions is None else int(regions.values[encoded.value])
            if index in {self._background, VOID_INDEX}:
                continue
            segmentation: object = {"size": list(labels.shape), "counts": encoded.counts}
            if regions is not None and self._polygons:
                left, top, width, height = encoded.bbox
                box = regions.image[top : top + height, left : left + width]
                polygon = outline(box == encoded.value)
                if polygon is not None:
                    segmentation = [(polygon + np.array([left, top])).ravel().tolist()]
            yield index, encoded, segmentation


def _is_ours(path: Path) -> bool:
    try:
        return WRITTEN_BY_EXPORT.encode() in files.read_start(path)
    except OSError:
        return False


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode("ascii")
