"""The options of an output directory: what is written where, and what is done about what is there."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ..common import limits
from . import option_values
from .input_options import not_a_file


class PruneMode(StrEnum):
    """The values of ``--prune``; without a value it means `CAREFUL`."""

    CAREFUL = "careful"
    FORCE = "force"


Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        envvar="FCN_OUTPUT",
        callback=not_a_file,
        help="Output directory, or a URL: s3://BUCKET/NAME, gs://BUCKET/NAME. '-' writes one image as PNG to "
        "stdout.",
    ),
]
Write = Annotated[
    Any,
    typer.Option(
        envvar="FCN_WRITE",
        metavar="LIST",
        parser=option_values.kinds,
        autocompletion=option_values.complete_kinds,
        show_default="masks,color; masks with -o -",
        help="Output kinds, separated by commas: masks, color, overlay, confidence, cutout.",
    ),
]
Palette = Annotated[
    str,
    typer.Option(
        envvar="FCN_PALETTE",
        metavar="NAME",
        parser=option_values.palette,
        autocompletion=option_values.complete_palettes,
        help="Class colours: hub (as on the PyTorch Hub page), voc, bright (easy to tell apart, also for "
        "colour-blind people), or a JSON file of [r, g, b] triples.",
    ),
]
Opacity = Annotated[
    float,
    typer.Option(
        envvar="FCN_OPACITY",
        metavar="P",
        parser=option_values.number(0, 1),
        help="Opacity of the colours in overlays, 0 to 1.",
    ),
]
Legend = Annotated[
    bool,
    typer.Option(
        "--legend", envvar="FCN_LEGEND", help="Add the names of the classes present below each overlay."
    ),
]
Classes = Annotated[
    Any,
    typer.Option(
        envvar="FCN_CLASSES",
        metavar="LIST",
        parser=option_values.classes,
        show_default="all but background",
        help="Classes that cutouts keep, by name or index, separated by commas: person,dog.",
    ),
]
KeepExtension = Annotated[
    bool,
    typer.Option(
        "--keep-extension", envvar="FCN_KEEP_EXTENSION", help="Name outputs cat.jpg.png instead of cat.png."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo finished images; allow changed settings.")]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Also retry unchanged images that failed because of their content."),
]
Prune = Annotated[
    PruneMode | None,
    typer.Option(
        "--prune",
        metavar="[=force]",
        case_sensitive=False,
        help="Remove the outputs and records of photos that no longer exist in the input directories. "
        "Refused if a directory has no photo or more than half of the records would go, as with an unmounted "
        "disk; --prune=force removes them anyway.",
    ),
]
Report = Annotated[
    bool,
    typer.Option(
        "--report",
        envvar="FCN_REPORT",
        help="At the end write report.html, a page to look at all photos and masks; see fcn report.",
    ),
]
ShardOption = Annotated[
    Any,
    typer.Option(
        "--shard",
        envvar="FCN_SHARD",
        metavar="I/N",
        parser=option_values.shard,
        help="Take share I (from 1 to N) of the photos; other processes take the others, into the same "
        "--output. The last one to end merges.",
    ),
]
RayOption = Annotated[
    Any,
    typer.Option(
        "--ray",
        envvar="FCN_RAY",
        metavar="local|HOST:PORT",
        parser=option_values.ray_address,
        help="Segment on Ray: local uses all GPUs, or CPUs, of this machine; HOST:PORT is the head of a "
        "cluster that this machine belongs to.",
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        envvar="FCN_WAIT",
        metavar="SECONDS",
        parser=option_values.number(0, limits.MOST_SECONDS),
        help="Maximum time to wait for another run in the output directory; then exit with 4.",
    ),
]
