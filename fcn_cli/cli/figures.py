"""Print the figures of a command on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from ..common.errors import OutputLost
from .console import print_message, redirect_stdout_to_null


def print_figures(figures: dict[str, Any], table: Callable[[dict[str, Any]], None], *, as_json: bool) -> None:
    """Print figures on stdout, and their failures on stderr.

    Parameters
    ----------
    figures
        The figures by name; `failures` holds what failed.
    table
        Prints them for people.
    as_json
        Print one line of JSON instead.

    Raises
    ------
    OutputLost
        Stdout cannot be written.
    """
    for failure in figures.get("failures", ()):
        print_message(f"{failure['image']}: {failure['message']}")
    try:
        if as_json:
            sys.stdout.write(json.dumps(figures) + "\n")
        else:
            table(figures)
        sys.stdout.flush()
    except OSError as error:
        if reason := redirect_stdout_to_null(error):
            raise OutputLost(f"stdout: cannot be written ({reason})") from None
