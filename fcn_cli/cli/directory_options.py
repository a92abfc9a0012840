"""The arguments and options of the commands that read an output directory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common import store_urls
from ..common.errors import RequestError
from ..common.wording import alternatives
from . import option_values
from .input_options import not_empty


class ExportFormat(StrEnum):
    """The values of ``--format``; a test holds them equal to the exporters' names."""

    COCO = "coco"
    VOC = "voc"
    YOLO = "yolo"


class OutputType(StrEnum):
    """The values of ``--outputs``; a test holds them equal to those of ``--write``."""

    MASKS = "masks"
    COLOR = "color"
    OVERLAY = "overlay"
    CONFIDENCE = "confidence"
    CUTOUT = "cutout"


class RecordStatus(StrEnum):
    """The values of ``--status``."""

    OK = "ok"
    FAILED = "failed"
    GONE = "gone"


def export_path(parameter: typer.CallbackParam, value: str) -> Path:
    """Refuse an empty name, which `Path` would take for the current directory, and stdout."""
    if value == "-":
        raise RequestError("--output -: an export goes into a file or a directory, not to stdout")
    return local_directory(not_empty(parameter, value) or "")


def local_directory(value: str) -> Path:
    """Refuse a URL: commands about what is done work on local directories only."""
    if store_urls.is_url(store_urls.local_path(value)):
        raise RequestError(f"{value}: this command works on local directories; copy this one here first")
    return Path(store_urls.local_path(value))


OutputDirectory = Annotated[
    Any,
    typer.Argument(
        metavar="OUT", parser=local_directory, help="The output directory of an fcn segment command."
    ),
]
MergedDirectory = Annotated[
    str,
    typer.Argument(
        metavar="OUT",
        callback=not_empty,
        help="The output directory of fcn segment commands with --shard, or its URL.",
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Only images that show this class, by name or index. Repeatable: images that show all of them.",
    ),
]
Minimum = Annotated[
    Any,
    typer.Option(
        "--min",
        metavar="SHARE",
        parser=option_values.share,
        help="Least share of the image's pixels that each class has: 5% or 0.05. "
        "With 0, also images without the class.",
    ),
]
Maximum = Annotated[
    Any,
    typer.Option(
        "--max", metavar="SHARE", parser=option_values.share, help="Largest share that each class has."
    ),
]
StatusOption = Annotated[
    Any,
    typer.Option(
        "--status",
        metavar="STATUS",
        parser=option_values.choice(RecordStatus),
        autocompletion=option_values.complete(*RecordStatus),
        help="Images with a mask (ok), without one (failed), or with one and gone themselves (gone).",
    ),
]
MaxAge = Annotated[
    Any,
    typer.Option(
        "--max-age",
        metavar="AGE",
        parser=option_values.age,
        help="Exit with 1 also when the last run ended longer ago: 26h, 90m, 2d.",
    ),
]
OutputsOption = Annotated[
    Any,
    typer.Option(
        "--outputs",
        metavar="TYPE",
        parser=option_values.choice(OutputType),
        autocompletion=option_values.complete(*OutputType),
        help=f"Print the paths of the images' outputs of this type instead: {alternatives(OutputType)} "
        "(only where something is kept).",
    ),
]
NullOutput = Annotated[
    bool, typer.Option("--null", "-0", help="End each path with a NUL byte, for xargs -0.")
]
FormatOption = Annotated[
    Any,
    typer.Option(
        "--format",
        metavar="FORMAT",
        parser=option_values.choice(ExportFormat),
        autocompletion=option_values.complete(*ExportFormat),
        help="The format: coco, voc or yolo.",
    ),
]
ExportDestination = Annotated[
    Any,
    typer.Option(
        "--output",
        "-o",
        metavar="DEST",
        callback=export_path,
        help="The file (coco) or new directory (voc, yolo) to write.",
    ),
]
ReplaceExport = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export at DEST.")]
