"""``fcn merge``: merge what the shards of an output directory have left."""

from __future__ import annotations

import typer

from ..common.wording import counted
from . import directory_options, options, output_options
from .console import print_message
from .figures import print_object


def merge(
    output: directory_options.MergedDirectory,
    wait: output_options.Wait = 0.0,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge what shards have left into manifest.jsonl, stats.csv and summary.json; segment nothing.

    The last shard to end merges by itself: this is for after you gave up on one. It needs no inputs and no
    network, and waits for shards that work, or is refused.

    Exit codes: 0 every image is done; 1 some have no mask or were not reached; 2 OUT is no output directory;
    4 a run holds it; 5 it cannot be written.
    """
    from ..outputs.bucket_store import open_store
    from ..runs import shards

    def note(text: str) -> None:
        print_message(text, show=not quiet)

    merged = shards.merge(open_store(output), wait, note)
    if merged.not_ended:
        names = ", ".join(map(str, merged.not_ended[:10])) + (" …" if len(merged.not_ended) > 10 else "")
        note(f"{len(merged.not_ended)} of {merged.shards} shards have not ended: {names}")
    left = f", {merged.left} left" if merged.left else ""
    images = counted(merged.done + merged.failed + merged.left, "image")
    note(f"merged: {images}: {merged.done} done, {merged.failed} failed{left}; see {merged.output}")
    if as_json:
        print_object(merged.as_json())
    raise typer.Exit(merged.exit_code)
