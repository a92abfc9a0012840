"""``fcn compare``: compare the masks of two directories."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from ..common.limits import MOST_MASK_PIXELS
from . import network_options, options
from .figures import print_figures
from .option_values import local


def compare(
    dir_a: Annotated[
        str,
        typer.Argument(
            metavar="DIR_A", parser=local, help="An output directory, or a directory of index PNGs."
        ),
    ],
    dir_b: Annotated[
        str, typer.Argument(metavar="DIR_B", parser=local, help="The directory to compare it with.")
    ],
    max_image_pixels: network_options.MaxMaskPixels = MOST_MASK_PIXELS,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the masks of two directories: equal pixels, IoU, the images that differ most.

    Exit codes: 0 all pairs were compared; 1 some failed; 2 the request is wrong; 3 no name is in both.
    """
    from ..evaluation import comparison
    from . import tables
    from .progress_bar import ProgressBar

    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = comparison.compare(Path(dir_a), Path(dir_b), progress, max_image_pixels)
    print_figures(result.as_json(), tables.comparison, as_json=as_json)
    raise typer.Exit(result.exit_code)
