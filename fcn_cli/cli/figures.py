"""Print the figures of a command on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..common.errors import OutputLost
from ..outputs.json_text import to_line
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
    with writing_stdout():
        if as_json:
            print_object(figures)
        else:
            table(figures)


def print_object(value: Mapping[str, Any]) -> None:
    """Print a line of JSON on stdout; call it inside `writing_stdout`."""
    sys.stdout.write(to_line(value) + "\n")


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Flush stdout at the end; when the reader closes the pipe, discard the rest of the output.

    Raises
    ------
    OutputLost
        Stdout cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if reason := redirect_stdout_to_null(error):
            raise OutputLost(f"stdout: cannot be written ({reason})") from None
