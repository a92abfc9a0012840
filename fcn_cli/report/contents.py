"""What is in an output directory: its settings, classes, last run and records, as a report needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common import files, palettes
from ..common.class_names import class_name
from ..common.errors import RequestError
from ..common.output_layout import CLASSES_FILE, SETTINGS_FILE, SUMMARY_BYTES, SUMMARY_FILE
from ..common.palettes import Palette
from ..outputs.journal import Journal
from ..outputs.record import Record
from ..outputs.settings import require_output_directory


@dataclass(frozen=True)
class ClassLooks:
    """The names and the colours of classes."""

    names: Mapping[int, str]
    palette: Palette

    def name(self, index: int) -> str:
        """Return the name of a label map value."""
        return self.names.get(index) or class_name((), index)

    def color(self, index: int) -> str:
        """Return the colour of a label map value as CSS has it, ``#rrggbb``."""
        return "#" + bytes(self.palette[index].tolist()).hex()


@dataclass(frozen=True)
class Contents:
    """An output directory as its files describe it; what is missing or damaged is empty.

    `labels` are the settings that shape label maps, `run` is what ``summary.json`` says of the last run.
    """

    output: Path
    looks: ClassLooks
    labels: dict[str, Any]
    run: dict[str, Any]
    fingerprint: str | None
    journal: Journal

    def records(self) -> Iterator[Record]:
        """Yield the records of this directory's settings, sorted by image.

        After ``--overwrite`` with other settings, the journal can hold records of photos that are no longer
        among the inputs, with the classes of another network.
        """
        for record in self.journal:
            if self.fingerprint in {None, record.fingerprint}:
                yield record


def read(output: Path) -> Contents:
    """Read an output directory; a run may be writing it.

    Raises
    ------
    RequestError
        It is not an output directory, it is one of another version, or its journal cannot be read.
    """
    require_output_directory(output)
    settings = _read_json(output / SETTINGS_FILE)
    try:
        journal = Journal(output)
    except OSError as error:
        raise RequestError(f"{output}: its journal cannot be read ({error.strerror})") from None
    labels, fingerprint = settings.get("labels"), settings.get("fingerprint")
    summary = _read_json(output / SUMMARY_FILE)
    run = summary.get("run")
    if isinstance(run, dict):
        # The last run may have had nothing to segment: how the images were computed, another one says.
        run |= segmented if isinstance(segmented := summary.get("segmented"), dict) else {}
    return Contents(
        output,
        _read_looks(output),
        labels if isinstance(labels, dict) else {},
        run if isinstance(run, dict) else {},
        fingerprint if isinstance(fingerprint, str) else None,
        journal,
    )


def _read_looks(output: Path) -> ClassLooks:
    palette = palettes.hub()
    names: dict[int, str] = {}
    for key, value in _read_json(output / CLASSES_FILE).items():
        try:
            palette[int(key)] = np.array(value["color"]).astype(np.uint8)
            names[int(key)] = str(value["name"])
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            continue
    return ClassLooks(names, palette)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = files.read_small_json(path, SUMMARY_BYTES)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
