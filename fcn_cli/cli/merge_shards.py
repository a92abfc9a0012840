"""``fcn segment --merge``: merge what the shards of an output directory have written."""

from __future__ import annotations

import typer

from ..common.errors import RequestError
from .command_line import given_besides

_PARAMETERS = frozenset({"merge", "output", "wait", "log_file", "quiet", "verbose", "as_json"})


def merge_shards(context: typer.Context, output: str, wait: float, *, quiet: bool, as_json: bool) -> None:
    """Merge, print the counts, and end with their exit code.

    Raises
    ------
    RequestError
        Another option was given, or there is nothing to merge.
    typer.Exit
        With the exit code of the merged run.
    """
    from ..outputs.request import OutputRequest
    from ..runs import merging
    from .run_display import Display

    if other := given_besides(context, _PARAMETERS):
        raise RequestError(f"--merge segments nothing, it takes the --output only; leave {other} out")
    display = Display(quiet=quiet, as_json=as_json)
    summary = merging.merge(OutputRequest(output).store, wait, display.note)
    display.merged(summary)
    raise typer.Exit(summary.exit_code)
