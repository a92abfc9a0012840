"""Options that say what is taken as input, and what a name may not be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import RequestError

Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Of what is found by searching, take only paths below the directory that a pattern matches: "
        "* stops at /, ** does not, as in '**/*.jpg'. Repeatable.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Leave out what a pattern matches, included or not: 'raw/**' is all below raw. Repeatable.",
    ),
]


def not_empty(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse an empty name: it is an unset variable in somebody's script."""
    if value is not None and not value.strip():
        raise RequestError(f"{parameter.opts[0]}: the name is empty; is a variable in your script not set?")
    return value


def not_a_file(parameter: typer.CallbackParam, value: str) -> str:
    """Refuse an output that can be no directory, as a file has its name or that of a directory above it."""
    not_empty(parameter, value)
    if value == "-" or "://" in value:
        return value
    for place in (Path(value), *Path(value).parents):
        if os.path.isdir(place):
            break
        if os.path.lexists(place):
            which = "this" if place == Path(value) else place
            raise RequestError(f"{parameter.opts[0]} {value}: {which} is a file, not a directory")
    return value
