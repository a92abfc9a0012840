"""The application. It registers the commands; each command is a plain function in its own module."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import __version__
from . import command_line
from .evaluate import compare, evaluate
from .machine import bench, info, weights_app
from .output_commands import export, list_images, merge, report, status, verify
from .segment import segment

app = typer.Typer(
    name="fcn",
    help="Segment directories of images with torchvision's Fully Convolutional Networks.",
    cls=command_line.Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(weights_app, name="weights")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"fcn {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


_BARE = {"--prune": "--prune=careful", "--crop": "--crop=0"}


class _BareOptions(command_line.Command):
    """Allows ``--prune`` and ``--crop`` without a value: Typer has no options with an optional value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after adding the values of bare options."""
        end = args.index("--") if "--" in args else len(args)
        completed = [_BARE.get(argument, argument) for argument in args[:end]]
        return super().parse_args(ctx, [*completed, *args[end:]])


app.command(cls=_BareOptions)(segment)
app.command(cls=command_line.Command)(evaluate)
app.command(cls=command_line.Command)(compare)
app.command(cls=_BareOptions)(export)
app.command(cls=command_line.Command)(merge)
app.command(cls=command_line.Command)(status)
app.command("list", cls=command_line.Command)(list_images)
app.command(cls=command_line.Command)(verify)
app.command(cls=command_line.Command)(report)
app.command(cls=command_line.Command)(bench)
app.command(cls=command_line.Command)(info)
