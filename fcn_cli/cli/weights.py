"""``fcn weights``: list, download and verify the networks' weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import command_line, network_options, option_values, options
from .console import write_line

app = typer.Typer(
    help="List, download and verify the networks' weights.", cls=command_line.Group, rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_weights()


@app.command("list", cls=command_line.Command)
def list_weights() -> None:
    """List each backbone's weights: their file, or where to download it."""
    from ..models import registry, weights

    for name, backbone in registry.BACKBONES.items():
        if isinstance(backbone.weights, registry.BundledWeights):
            place = f"bundled ({backbone.weights.path})"
        else:
            found = weights.cached(backbone.weights)
            place = str(found) if found else f"not downloaded ({weights.download_url(backbone.weights)})"
        write_line(f"{name:14}{place}", sys.stdout)


@app.command("fetch", cls=command_line.Command)
def fetch(
    names: network_options.Backbones = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DIR",
            parser=option_values.local,
            help="Store them here, to copy to another machine's FCN_WEIGHTS_DIR.",
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Download official weights, verify them, and print their files."""
    from ..models import download, registry
    from .progress_bar import ProgressBar

    for name in names or registry.BACKBONES:
        official = registry.find(name).weights
        if isinstance(official, registry.BundledWeights):
            write_line(str(official.path), sys.stdout)
            continue
        path = download.fetch(
            official, Path(directory) if directory else None, progress=ProgressBar(quiet=quiet).downloading
        )
        write_line(str(path), sys.stdout)


@app.command("verify", cls=command_line.Command)
def verify() -> None:
    """Verify the hash of every weights file on this machine; exit with 2 if one is damaged."""
    from ..common.errors import WeightsError
    from ..models import registry, weights

    damaged = None
    for name, backbone in registry.BACKBONES.items():
        source = backbone.weights
        path = source.path if isinstance(source, registry.BundledWeights) else weights.cached(source)
        try:
            state = f"ok       {weights.verify(path, backbone.sha256).path}" if path else "not downloaded"
        except WeightsError as error:
            state, damaged = f"damaged  {path}", error
        write_line(f"{name:14}{state}", sys.stdout)
    if damaged:
        raise damaged
