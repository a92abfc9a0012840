"""``fcn list``: the paths of images or of their outputs, for the next command."""

from __future__ import annotations

import os
import sys

from . import directory_options
from .console import print_message


def list_images(
    output: directory_options.OutputDirectory,
    classes: directory_options.Classes = None,
    minimum: directory_options.Minimum = None,
    maximum: directory_options.Maximum = None,
    status: directory_options.StatusOption = directory_options.RecordStatus.OK,
    outputs: directory_options.OutputsOption = None,
    null: directory_options.NullOutput = False,
) -> None:
    """Print the paths of images, one per line, selected by the classes in their masks.

    The paths are absolute, so that the next command can run in any directory. Names that are not UTF-8 come
    out byte for byte. As in: fcn list OUT --class cat --min 5% -0 | xargs -0 -r cp --parents -t cats/

    Exit codes: 0 also when nothing is selected; 2 the request is wrong, or OUT is no output directory.
    """
    from ..outputs import selection

    wanted = selection.Selection(status, classes or (), minimum, maximum)
    found = broken = 0
    end = b"\0" if null else b"\n"
    for path in selection.paths(output, wanted, outputs):
        sys.stdout.buffer.write(os.fsencode(path) + end)
        found += 1
        broken += "\n" in path
    if not found:
        print_message(f"{output}: no image is selected" + (f" that has {outputs}" if outputs else ""))
    if broken and not null:
        print_message("some of these paths contain a line end; give --null, and xargs -0 or the like")
