"""Figures that a command was asked for, on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from ..common.errors import OutputLost
from .console import print_message, redirect_stdout_to_null


def print_figures(figures: dict[str, Any], table: Callable[[dict[str, Any]], None], *, as_json: bool) -> None:
    """Print what was asked for on stdout, and what failed on stderr."""
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
