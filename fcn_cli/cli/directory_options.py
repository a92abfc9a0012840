"""The arguments and options of the commands that read an output directory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import option_values


class RecordStatus(StrEnum):
    """The values of ``--status``."""

    OK = "ok"
    FAILED = "failed"


OutputDirectory = Annotated[
    Path, typer.Argument(metavar="OUT", help="The output directory of an fcn segment command.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Only photos that show this class, by name or index. Repeatable: photos that show all of them.",
    ),
]
Minimum = Annotated[
    Any,
    typer.Option(
        "--min",
        metavar="SHARE",
        parser=option_values.share,
        help="Least share of the photo's pixels that each class has: 5% or 0.05. "
        "With 0, also photos without the class.",
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
        help="Photos with a mask (ok), or those without (failed).",
    ),
]
NullOutput = Annotated[bool, typer.Option("--null", help="End each path with a NUL byte, for xargs -0.")]
