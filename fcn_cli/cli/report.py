"""``fcn report``: write the report of an output directory again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..common import store_urls
from ..common.errors import FcnError, OutputLost, RequestError
from ..common.limits import MOST_MASK_PIXELS
from ..common.output_layout import is_output_directory
from . import directory_options, network_options, options
from .console import print_message

if TYPE_CHECKING:
    from ..runs.report import Summary


def report(
    output: directory_options.OutputDirectory,
    max_image_pixels: network_options.MaxMaskPixels = MOST_MASK_PIXELS,
    quiet: options.Quiet = False,
) -> None:
    """Write OUT/report.html: a page with all photos and masks, to look at in a browser.

    It needs no network, neither now nor in the browser. Pictures that an earlier report made are used again.

    Exit codes: 0 the report is written; 2 OUT is not an output directory; 5 the report cannot be written.
    """
    write_report(output, max_image_pixels, quiet=quiet)


def check_place(output: str) -> None:
    """Refuse ``--report`` where the run cannot write a report at its end."""
    if store_urls.is_url(store_urls.local_path(output)):
        raise RequestError(
            f"--report: a report is written into a local directory, not to {output}; leave it out, and use "
            "fcn report on a copy"
        )
    from ..report import page

    page.refuse_foreign(Path(store_urls.local_path(output)))


def report_after(summary: Summary, max_pixels: int, *, quiet: bool) -> None:
    """Write the report at the end of a run, also of one that had nothing to do.

    A run that ended early writes none: it was interrupted, or its output directory or device is lost.

    Raises
    ------
    OutputLost
        The report cannot be written. The masks are not affected.
    """
    if summary.stopped is not None:
        print_message(f"no report, because the run ended early; fcn report {summary.output} writes it")
        return
    if not is_output_directory(summary.output):
        print_message(f"no report: nothing is in {summary.output} yet", show=not quiet)
        return
    try:
        write_report(Path(summary.output), max_pixels, quiet=quiet)
    except FcnError as error:
        raise OutputLost(f"the masks are not affected, but there is no report: {error}") from None


def write_report(output: Path, max_pixels: int, *, quiet: bool) -> None:
    """Write the report of an output directory, show the progress, and say where the page is."""
    from ..common.wording import counted
    from ..report import output_report
    from .progress_bar import ProgressBar

    progress = ProgressBar(quiet=quiet)
    try:
        written = output_report.write_report(output, progress, max_pixels)
    finally:
        progress.close()
    text = f"report of {counted(written.photos, 'photo')}"
    if written.incomplete:
        text += f", {written.incomplete} of them without the photo or its label map"
    print_message(f"{text}: see {written.path}", show=not quiet)
