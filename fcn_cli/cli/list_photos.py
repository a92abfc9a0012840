"""``fcn list``: the paths of photos, for the next command."""

from __future__ import annotations

import os
import sys

from . import directory_options
from .console import print_message


def list_photos(
    output: directory_options.OutputDirectory,
    classes: directory_options.Classes = None,
    minimum: directory_options.Minimum = None,
    maximum: directory_options.Maximum = None,
    status: directory_options.StatusOption = directory_options.RecordStatus.OK,
    null: directory_options.NullOutput = False,
) -> None:
    """Print the paths of photos, one per line, selected by the classes in their masks.

    The paths are absolute, so that the next command can run in any directory. Names that are not UTF-8 come
    out byte for byte. As in: fcn list OUT --class cat --min 5% --null | xargs -0 cp -t cats/

    Exit codes: 0 also when no photo is selected; 2 the request is wrong, or OUT is no output directory.
    """
    from ..outputs import selection

    wanted = selection.Selection(status, classes or (), minimum, maximum)
    found = broken = 0
    end = b"\0" if null else b"\n"
    for record in selection.select(output, wanted):
        sys.stdout.buffer.write(os.fsencode(record.path) + end)
        found += 1
        broken += "\n" in record.path
    if not found:
        print_message(f"{output}: no photo is selected")
    if broken and not null:
        print_message("some of these paths contain a line end; give --null, and xargs -0 or the like")
