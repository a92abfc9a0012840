"""Print the figures of a command on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..outputs.json_text import to_line
from .console import print_message


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
    """
    for failure in figures.get("failures", ()):
        print_message(f"{failure['image']}: {failure['message']}")
    if as_json:
        print_object(figures)
    else:
        table(figures)


def print_object(value: Mapping[str, Any]) -> None:
    """Print a line of JSON on stdout."""
    sys.stdout.write(to_line(value) + "\n")
