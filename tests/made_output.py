"""Output directories made without a network, from label maps, with the files and records of a run."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.inputs.discovery import Source
from fcn_cli.outputs.record import Record, begin

Labels = NDArray[np.uint8]
VOC = list(VOC_CLASSES)
FINGERPRINT = "0123456789abcdef"


def make_output(output: Path, maps: Mapping[str, Labels], images: Path | None = None) -> Path:
    """Write masks, colours and a journal for label maps by image name; with `images`, images there too."""
    output.mkdir()
    classes = {
        str(index): {"name": name, "color": [index, 0, 0]} for index, name in [*enumerate(VOC), (255, "void")]
    }
    (output / "classes.json").write_text(json.dumps(classes))
    settings = {"fcn_settings": 2, "fingerprint": FINGERPRINT, "labels": {}, "names": {}}
    (output / "settings.json").write_text(json.dumps(settings))
    with (output / "manifest.jsonl").open("w") as journal:
        for image, labels in maps.items():
            journal.write(json.dumps(_in_utf8(_record(output, image, labels, images))) + "\n")
    return output


def plain_record(image: str, *outputs: str, **fields: Any) -> Record:
    """Return a record of an image with output files of one byte each."""
    source = Source(image, f"/photos/{image}", f"photos/{image}", "", 1, 2)
    begun = begin(source, FINGERPRINT)
    return replace(begun, outputs=outputs, output_bytes=(1,) * len(outputs), **fields)


def _in_utf8(record: dict[str, Any]) -> dict[str, Any]:
    """Write names that are not UTF-8 with escapes, and their bytes beside them."""
    for key in ("image", "source", "path"):
        text = os.fsencode(record[key]).decode("utf-8", "backslashreplace")
        if text != record[key]:
            record[f"{key}_bytes"] = base64.b64encode(os.fsencode(record[key])).decode()
            record[key] = text
    names = [os.fsencode(name) for name in record["outputs"]]
    record["outputs"] = [name.decode("utf-8", "backslashreplace") for name in names]
    if "image_bytes" in record:
        record["output_names_bytes"] = [base64.b64encode(name).decode() for name in names]
    return record


def failed_record(image: str) -> dict[str, Any]:
    """Return the record of an image that failed."""
    error = {"kind": "NotAnImage", "message": "not an image", "limit": None}
    return _fields(image, f"/nowhere/{image}", "failed") | {"error": error}


def _record(output: Path, image: str, labels: Labels, images: Path | None) -> dict[str, Any]:
    path = f"/nowhere/{image}"
    if images is not None:
        path = str(images / image)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.fromarray(np.stack([labels * 12, 255 - labels, labels], axis=2)).save(path)
    outputs = [f"{kind}/{os.path.splitext(image)[0]}.png" for kind in ("masks", "color")]
    for name in outputs:
        os.makedirs(os.path.dirname(output / name), exist_ok=True)
        picture = Image.fromarray(labels)
        if name.startswith("color"):
            picture.putpalette(palettes.hub().tobytes())
        picture.save(output / name)
    values, counts = np.unique(labels, return_counts=True)
    status = os.stat(path) if images is not None else None
    return _fields(image, path, "ok") | {
        "width": labels.shape[1],
        "height": labels.shape[0],
        "classes": {str(value): int(count) for value, count in zip(values, counts, strict=True)},
        "outputs": outputs,
        "output_bytes": [os.path.getsize(output / name) for name in outputs],
        "looks": {"color": "hub"},
        "size_bytes": status.st_size if status else 1,
        "mtime_ns": status.st_mtime_ns if status else 1,
    }


def _fields(image: str, path: str, status: str) -> dict[str, Any]:
    return {
        "image": image,
        "source": path,
        "path": path,
        "status": status,
        "width": None,
        "height": None,
        "classes": {},
        "outputs": [],
        "output_bytes": [],
        "looks": {},
        "device": "cpu",
        "precision": "fp32",
        "mean_confidence": None,
        "finished": "2026-11-24T03:00:00Z",
        "size_bytes": 1,
        "mtime_ns": 1,
        "seconds": 0.1,
        "notes": [],
        "error": None,
        "fingerprint": FINGERPRINT,
    }


def blobs(seed: int, height: int = 48, width: int = 60, classes: int = 4, step: int = 8) -> Labels:
    """Return a random label map of blocks with ragged edges, some of them void."""
    random = np.random.default_rng(seed)
    choice = np.array([0, *random.permutation(np.arange(1, 21))[:classes], 255], np.uint8)
    coarse = random.choice(choice, size=(-(-height // step), -(-width // step)))
    labels = np.kron(coarse, np.ones((step, step), np.uint8))[:height, :width]
    rows, columns = np.indices((height, width))
    ragged: Labels = labels[
        np.clip(rows + random.integers(-1, 2, (height, width)), 0, height - 1),
        np.clip(columns + random.integers(-1, 2, (height, width)), 0, width - 1),
    ]
    return ragged
