"""``fcn verify``: check every file of an output directory."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import typer

from ..common.limits import MOST_MASK_PIXELS
from ..common.wording import counted
from . import directory_options, network_options, options
from .console import one_line, print_message, write_line
from .figures import print_object

if TYPE_CHECKING:
    from ..outputs.verification import Verification

_SHOWN_ORPHANS = 10


def verify(
    output: directory_options.OutputDirectory,
    max_image_pixels: network_options.MaxMaskPixels = MOST_MASK_PIXELS,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Check every file of an output directory against its record.

    Each file is there with its recorded size, decodes, and has the photo's width and height; masks and
    colours have the recorded number of pixels of each class. Every byte of a PNG counts. Prints one line per
    problem on stdout. It takes no lock and changes nothing. While a run is going on, it checks what was
    recorded when the check began.

    Exit codes: 0 all files are as recorded; 1 some are not; 2 OUT is no output directory.
    """
    from ..outputs import verification
    from .progress_bar import ProgressBar

    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = verification.verify(output, progress, max_image_pixels)
    if as_json:
        print_object(result.as_json())
    else:
        for problem in result.problems:
            write_line(one_line(f"{output / problem.file}: {problem.damage}; {problem.remedy}"), sys.stdout)
    _sum_up(result, show=not quiet)
    raise typer.Exit(result.exit_code)


def _sum_up(result: Verification, *, show: bool) -> None:
    for name in result.orphans[:_SHOWN_ORPHANS]:
        print_message(f"{result.output / name}: no record names it; nothing reads it", show=show)
    if len(result.orphans) > _SHOWN_ORPHANS:
        more = len(result.orphans) - _SHOWN_ORPHANS
        print_message(f"and {more} more that no record names; --json lists them", show=show)
    if result.run is not None:
        print_message(
            f"a run is going on ({result.run}): checked is what was recorded when this began, and files "
            "without a record are not listed",
            show=show,
        )
    problems = counted(len(result.problems), "problem") if result.problems else "no problem"
    print_message(
        f"{counted(result.files, 'file')} of {counted(result.photos, 'photo')} checked: {problems}", show=show
    )
