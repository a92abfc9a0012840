"""``fcn compare``: how the masks of two directories agree."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .figures import print_figures


def compare(
    dir_a: Annotated[Path, typer.Argument(metavar="DIR_A", help="An output directory, or any of masks.")],
    dir_b: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another one.")],
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say how the masks of two directories agree: equal pixels, IoU, the images that differ most.

    Exit codes: 0 all were compared; 1 some could not be; 2 the request is wrong; 3 no name is in both.
    """
    from ..evaluation import comparison
    from . import tables
    from .progress_bar import Progress

    progress = Progress(quiet=quiet)
    with contextlib.closing(progress):
        result = comparison.compare(dir_a, dir_b, progress)
    print_figures(result.as_json(), tables.comparison, as_json=as_json)
    raise typer.Exit(result.exit_code)
