"""Options that select the input, and checks of names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..common import store_urls
from ..common.errors import RequestError
from .option_values import local

Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Of the photos found by searching, take only those whose path below the directory matches the "
        "pattern. * does not match /, ** does: '**/*.jpg'. Repeatable.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Ignore photos whose path matches the pattern, also included ones: 'raw/**' ignores "
        "everything below raw. Repeatable.",
    ),
]

IgnoreCase = Annotated[
    bool,
    typer.Option("--ignore-case", help="--include and --exclude match in upper and lower case."),
]


def not_empty(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse an empty name, which usually comes from an unset variable in a script."""
    if value is not None and not value.strip():
        raise RequestError(f"{parameter.opts[0]}: the name is empty; is a variable in your script not set?")
    return value


def not_a_file(parameter: typer.CallbackParam, value: str) -> str:
    """Refuse an output path that is a file or lies below a file."""
    not_empty(parameter, value)
    if value == "-" or store_urls.is_url(value):
        return value
    for place in (Path(value), *Path(value).parents):
        if os.path.isdir(place):
            break
        if os.path.lexists(place):
            file = "this" if place == Path(value) else place
            raise RequestError(f"{parameter.opts[0]} {value}: {file} is a file, not a directory")
    return value


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Image files, directories (searched recursively), quoted glob patterns; the same by URL "
        "(s3://, gs://; files by https://); '-' is one image on stdin.",
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        callback=not_empty,
        parser=local,
        help="Read image files or URLs from a list, one per line; '-' is stdin.",
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Segment the photos in the directories, then those that come, until Ctrl-C or SIGTERM. A photo "
        "is taken when it has not changed for 2 s; one that is replaced is done again.",
    ),
]
Null = Annotated[
    bool, typer.Option("--null", "-0", help="NUL bytes separate the list, as from find -print0.")
]
Root = Annotated[
    str | None,
    typer.Option(
        callback=not_empty,
        metavar="DIR",
        envvar="FCN_ROOT",
        show_default="current directory",
        help="The output names of listed files are relative to this directory or URL.",
    ),
]
