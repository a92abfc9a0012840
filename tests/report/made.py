"""Output directories of thousands of images, written without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.label_map import Segmentation
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.discovery import InputRequest, discover
from fcn_cli.outputs.directory import OutputDirectory
from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.looks import Style
from fcn_cli.outputs.output_store import LocalStore
from fcn_cli.outputs.record import begin
from fcn_cli.outputs.settings import LabelSettings, RequestedSettings
from fcn_cli.outputs.write_queue import WriteQueue

AREA = 500 * 375


def write_run(images: Path, output: Path) -> None:
    """Write what a run over images leaves; instead of a network's, the label maps are stripes."""
    folder = OutputDirectory(output, Style(palettes.hub(), "hub"))
    output.mkdir()
    settings = RequestedSettings(LabelSettings("efficientnet_lite0", "0" * 8, 64, "auto", "auto", None))
    settings.save(LocalStore(output), None)
    folder.write_classes(VOC_CLASSES)
    journal = Journal(output)
    with WriteQueue(folder, journal, lambda _record: None, DecodeOptions()) as writes:
        for source in discover(InputRequest((str(images),))).sources:
            with Image.open(source.path) as image:
                width, height = image.size
            labels = np.repeat(np.resize(np.array([0, 0, 8, 15], np.uint8), width)[None], height, 0)
            record = begin(source, settings.labels.fingerprint())
            writes.add(source, record, Segmentation(labels), ("masks", "color"))
        writes.commit(everything=True)
    journal.close()


def write_output(output: Path, count: int) -> list[dict[str, Any]]:
    """Write an output directory of so many records, without their images and masks; return the records."""
    output.mkdir()
    settings = {"fcn_settings": 2, "labels": {"backbone": "resnet50"}, "fingerprint": "f"}
    (output / "settings.json").write_text(json.dumps(settings))
    classes = {
        str(index): {"name": f"class {index}", "color": [7 * index, 255 - 5 * index, 40]}
        for index in range(21)
    }
    (output / "classes.json").write_text(json.dumps(classes))
    cats = np.random.default_rng(0).integers(0, 50_000, count).tolist()
    records = [_record(number, pixels) for number, pixels in enumerate(cats)]
    write_journal(output, records)
    return records


def write_journal(output: Path, records: list[dict[str, Any]]) -> None:
    (output / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _record(number: int, pixels: int) -> dict[str, Any]:
    name = f"folder{number // 1000:03}/photo{number:06}"
    return {
        "image": f"{name}.jpg",
        "source": f"photos/{name}.jpg",
        "path": f"/nowhere/{name}.jpg",
        "status": "ok",
        "width": 500,
        "height": 375,
        "classes": {"0": AREA - pixels, "8": pixels},
        "outputs": [f"masks/{name}.png"],
        "output_bytes": [100],
        "looks": {},
        "device": "cpu",
        "precision": "fp32",
        "mean_confidence": round(pixels / AREA, 4),
        "finished": f"2026-11-{1 + number % 28:02}T03:00:00Z",
        "size_bytes": 1,
        "mtime_ns": number,
        "seconds": 0.5,
        "notes": [],
        "error": None,
        "fingerprint": "f",
    }


def write_images(folder: Path, count: int) -> None:
    """Write images and the output directory of a run over them; N of 3,072 pixels of image N are class 8."""
    (folder / "photos").mkdir()
    records = write_output(folder / "out", count)
    (folder / "out/masks").mkdir()
    for number, record in enumerate(records):
        path = folder / f"photos/photo{number:06}.jpg"
        Image.new("RGB", (64, 48), (number % 256, number // 256 * 20, 90)).save(path)
        mask = np.zeros(64 * 48, np.uint8)
        mask[:number] = 8
        Image.fromarray(mask.reshape(48, 64)).save(folder / f"out/masks/photo{number:06}.png")
        status = path.stat()
        record |= {
            "image": path.name,
            "path": str(path),
            "width": 64,
            "height": 48,
            "classes": {index: pixels for index, pixels in (("0", 3072 - number), ("8", number)) if pixels},
            "outputs": [f"masks/photo{number:06}.png"],
            "size_bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
        }
    write_journal(folder / "out", records)
