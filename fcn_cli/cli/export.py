"""``fcn export``: an output directory in another tool's format."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import typer

from ..common.limits import MOST_MASK_PIXELS
from ..common.wording import counted
from . import directory_options, network_options, options
from .console import print_message

if TYPE_CHECKING:
    from ..report.exports.export import Export

_SHOWN_FAILURES = 10


def export(
    output: directory_options.OutputDirectory,
    format_name: directory_options.FormatOption,
    destination: directory_options.ExportDestination,
    classes: directory_options.Classes = None,
    minimum: directory_options.Minimum = None,
    maximum: directory_options.Maximum = None,
    status: directory_options.StatusOption = directory_options.RecordStatus.OK,
    overwrite: directory_options.ReplaceExport = False,
    max_image_pixels: network_options.MaxMaskPixels = MOST_MASK_PIXELS,
    quiet: options.Quiet = False,
) -> None:
    """Export the masks of an output directory in another tool's format.

    coco: a JSON file with run lengths. voc: a tree with JPEGs and paletted masks. yolo: a directory with
    JPEGs and polygons. An export appears under its name when it is whole. It takes no lock and needs no
    network. An image that is gone or has changed is reported, and not exported to voc and yolo. --class,
    --min, --max and --status select images as in fcn list.

    Exit codes: 0 every selected image with a mask is exported; 1 some are not, the rest are; 2 the request is
    wrong; 5 DEST cannot be written; 129, 130 and 143 ended by a signal, with nothing written.
    """
    from ..outputs.selection import Selection
    from ..report.exports import export as exporting
    from .progress_bar import ProgressBar

    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = exporting.export(
            output,
            format_name,
            destination,
            progress,
            overwrite=overwrite,
            selection=Selection(status, classes or (), minimum, maximum),
            max_pixels=max_image_pixels,
        )
    _sum_up(result, show=not quiet)
    raise typer.Exit(result.exit_code)


def _sum_up(result: Export, *, show: bool) -> None:
    for image, failure in result.failures[:_SHOWN_FAILURES]:
        print_message(f"not exported: {image}: {failure.message}")
    if len(result.failures) > _SHOWN_FAILURES:
        print_message(f"and {len(result.failures) - _SHOWN_FAILURES} more that are not exported")
    parts = [f"{result.exported} exported"]
    if result.skipped:
        parts.append(f"{result.skipped} without a mask skipped")
    if result.unselected:
        parts.append(f"{result.unselected} not selected")
    if result.failures:
        parts.append(f"{len(result.failures)} failed")
    print_message(
        f"{counted(result.records, 'record')}: {', '.join(parts)}; see {result.destination}", show=show
    )
