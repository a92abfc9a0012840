"""Label Studio: tasks with brush labels as predictions, and the labelling configuration.

Label Studio packs the four channels of a brush's RGBA pixels, one after the other, in runs of equal bytes
(the format "rle-pack" of github.com/thi-ng/umbrella).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...common import palettes, store_urls
from ...common.class_names import class_name
from ...common.label_map import VOID_INDEX, LabelMap, count_classes
from ...outputs.json_text import printable_utf8
from ...outputs.record import Record
from .files import Destination, Results, building, check_destination

_TAG, _IMAGE = "tag", "image"
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4


class LabelStudioExporter:
    """Writes ``tasks.json`` and ``labels.xml``; see `Exporter`.

    Images are named by their paths, for Label Studio's local files with the document root ``/``; images in
    stores by their URLs.
    """

    def __init__(self, destination: Destination) -> None:
        check_destination(destination.path, overwrite=destination.overwrite)
        self._path, self._overwrite = destination.path, destination.overwrite
        self._class_names, self._background = destination.class_names, destination.background

    def job(self, record: Record) -> Callable[[LabelMap], bytes]:
        """Return what makes an image's task; see `Exporter`."""
        return partial(self._task, record)

    def write(self, results: Results) -> None:
        """Write the directory; see `Exporter`."""
        with (
            building(self._path, "labelstudio", overwrite=self._overwrite) as new,
            contextlib.closing(results),
        ):
            (new / "labels.xml").write_text(self._configuration(), encoding="utf-8")
            with (new / "tasks.json").open("wb") as tasks:
                tasks.write(b"[")
                for number, task in enumerate(results):
                    tasks.write((b",\n" if number else b"\n") + task)
                tasks.write(b"]\n")

    def _task(self, record: Record, labels: LabelMap) -> bytes:
        url = record.path
        if not store_urls.is_url(url):
            url = f"/data/local-files/?d={quote(printable_utf8(url).lstrip('/'))}"
        height, width = labels.shape
        regions = [
            {
                "id": f"class_{index}",
                "type": "brushlabels",
                "from_name": _TAG,
                "to_name": _IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": pack(labels == index),
                    "brushlabels": [class_name(self._class_names, index)],
                },
            }
            for index in count_classes(labels)
            if index not in {self._background, VOID_INDEX}
        ]
        prediction: dict[str, Any] = {"model_version": f"fcn {__version__}", "result": regions}
        return json.dumps({"data": {_IMAGE: url}, "predictions": [prediction]}).encode("ascii")

    def _configuration(self) -> str:
        colors = palettes.bright()
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{bytes(colors[index].tolist()).hex()}"/>\n'
            for index, name in enumerate(self._class_names)
            if index != self._background
        )
        return (
            f'<View>\n  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>\n'
            f'  <BrushLabels name="{_TAG}" toName="{_IMAGE}">\n{labels}  </BrushLabels>\n</View>\n'
        )


def pack(region: NDArray[np.bool_]) -> list[int]:
    """Return a region (bool, (height, width)) as Label Studio's run lengths, a list of bytes."""
    flat = region.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    # Head: the number of bytes, and the bits of a word and of each kind of length, less one.
    bits = [f"{flat.size * _CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for start, length in zip((ends - np.diff(ends, prepend=0)).tolist(), lengths.tolist(), strict=True):
        value = "1" * 8 if flat[start] else "0" * 8
        left = length
        while left:
            part = min(left, 1 << _LENGTH_BITS[-1])
            kind = next(kind for kind, size in enumerate(_LENGTH_BITS) if part <= 1 << size)
            bits.append(f"1{kind:02b}{part - 1:0{_LENGTH_BITS[kind]}b}{value}")
            left -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8))
