"""The layout of an output directory: its output types, and the names of its files and directories.

To add an output type, add an entry to `OUTPUT_TYPES` and a writer to `outputs.writers.WRITERS`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import files

SETTINGS_FILE = "settings.json"
SETTINGS_MARK = "fcn_settings"
"""The key that makes a ``settings.json`` ours, and its directory an output directory."""
JOURNAL_FILE = "manifest.jsonl"
JOURNAL_PARTS = "manifest.parts"
"""The directory of the journal's parts in an object store, where nothing can be appended to."""
CLASSES_FILE = "classes.json"
STATS_FILE = "stats.csv"
SUMMARY_FILE = "summary.json"
SUMMARY_BYTES = 32 << 20
"""What ``summary.json`` or a shard's ``run.json`` has at most: it lists the images that were refused."""
RUN_FILE = "run.json"
LOCK_FILE = ".fcn.lock"
HOLDER_FILE = ".fcn.holder.json"


@dataclass(frozen=True, slots=True)
class OutputType:
    """One output type.

    `name` is its directory and its name in ``--write``; `suffix` ends the names of its files. A type made
    `from_labels` needs only the label map and the image, so that it can be added without the network.
    `is_label_map` says that its files are label maps, from which other types can be made; `shows_image` that
    they have pixels of the image.
    """

    name: str
    suffix: str
    from_labels: bool = True
    is_label_map: bool = False
    shows_image: bool = False


CUTOUT = "cutout"
GEOTIFF, CONFIDENCE, LOGITS = "geotiff", "confidence", "logits"
OUTPUT_TYPES = (
    OutputType("masks", ".png", is_label_map=True),
    OutputType("color", ".png", is_label_map=True),
    OutputType("overlay", ".jpg", shows_image=True),
    OutputType(CONFIDENCE, ".png", from_labels=False),
    OutputType(CUTOUT, ".png", shows_image=True),
    OutputType(GEOTIFF, ".tif"),
    OutputType(LOGITS, ".npy", from_labels=False),
)
"""All output types in the order in which they are written; of label maps, the better one comes first."""

DEFAULT_OUTPUT_TYPES = ("masks", "color")

WRITTEN_BY_EXPORT = "Written by fcn export"
"""With what the description in an exported COCO file begins."""

REPORT_FILE = "report.html"
REPORT_DIRECTORY = "report"

IMAGE_DIRECTORIES = frozenset({output_type.name for output_type in OUTPUT_TYPES} | {REPORT_DIRECTORY})
"""The directories of an output directory that hold images."""

_NO_NAMES = frozenset({"", ".", ".."})
_SUFFIXES = {output_type.name: output_type.suffix for output_type in OUTPUT_TYPES}


def output_type_names() -> tuple[str, ...]:
    """Return the names of all output types in the order in which they are written."""
    return tuple(output_type.name for output_type in OUTPUT_TYPES)


def label_types() -> tuple[str, ...]:
    """Return the output types from which a label map can be read back, the better one first."""
    return tuple(output_type.name for output_type in OUTPUT_TYPES if output_type.is_label_map)


def find_output_type(name: str) -> OutputType:
    """Return the output type of a name; KeyError when there is none."""
    for output_type in OUTPUT_TYPES:
        if output_type.name == name:
            return output_type
    raise KeyError(name)


def output_file(output: str, output_type: str) -> str:
    """Return the path, relative to the output directory, of an image's output of one type.

    Parameters
    ----------
    output
        The image's output name, which ends in ``.png``: its mask is ``masks/<output>``.
    output_type
        The name of an output type.
    """
    # Without pathlib, which is slow: a plan asks this for every image and type.
    return f"{output_type}/{output.removesuffix('.png')}{_SUFFIXES[output_type]}"


def output_type_of(path: str) -> str:
    """Return the type of an output file from its path relative to the output directory."""
    return path.partition("/")[0]


def is_output_file(name: str) -> bool:
    """Say whether a recorded name is one of `output_file`: below the directory of its type, and not above.

    A journal may come from anybody; names in it are opened and removed.
    """
    output_type, _, rest = name.partition("/")
    suffix = _SUFFIXES.get(output_type)
    if suffix is None or not rest.endswith(suffix) or "\0" in rest or (os.sep != "/" and os.sep in rest):
        return False
    # Without a list of the parts for nearly every name: a reader asks this for every file.
    return ("/." not in name and "//" not in name) or _NO_NAMES.isdisjoint(rest.split("/"))


def is_output_directory(directory: str) -> bool:
    """Say whether a directory is the output directory of some run; its settings file tells."""
    try:
        return are_settings(files.read_small(Path(directory, SETTINGS_FILE)))
    except (OSError, ValueError):
        return False


def are_settings(content: bytes) -> bool:
    """Say whether this is the content of the settings file of some run."""
    try:
        settings = files.parse_json(content)
    except ValueError:
        return False
    return isinstance(settings, dict) and SETTINGS_MARK in settings
