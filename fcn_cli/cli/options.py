"""The options that most commands have: what is printed, and how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common import limits
from . import option_values

Rounds = Annotated[
    int, typer.Option(metavar="N", parser=option_values.whole(1, limits.MOST_ROUNDS), help="Timed rounds.")
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        envvar="FCN_LOG_FILE",
        metavar="FILE",
        parser=option_values.local_file,
        help="Append the messages of -v to this file, also with -q.",
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed image.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print each image's record on stdout as a line of JSON.")
]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=option_values.not_both, help="Print only errors on stderr.")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        callback=option_values.not_both,
        help="Print details on stderr: one line per image.",
    ),
]
