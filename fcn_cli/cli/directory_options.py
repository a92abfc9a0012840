"""The arguments and options of the commands that read an output directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OutputDirectory = Annotated[
    Path, typer.Argument(metavar="OUT", help="The output directory of an fcn segment command.")
]
