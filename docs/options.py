"""Write options.md: every command, argument and option, taken from the command line itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from fcn_cli.cli import command_line
from fcn_cli.cli.app import app
from fcn_cli.common import limits

PAGE = Path(__file__).with_suffix(".md")
_INTRODUCTION = f"""\
# All commands and options

`make docs` writes this page from the command line; do not edit it by hand. `fcn COMMAND --help` prints
the first sentence of each.

The last column names the environment variable that sets an option:
`FCN_BACKBONE=resnet101 fcn segment photos/`. The command line wins over the environment. `--overwrite`,
`--prune` and other options that redo or delete something have no variable.

Numbers have largest values, beyond which a command exits with 2 at once: {limits.MOST_THREADS} threads,
{limits.MOST_WORKERS} workers, batches of {limits.MOST_IN_A_BATCH}, {limits.LONGEST_SIDE} pixels for a side
of the network's input or of a tile, {limits.MOST_PIXELS:,} pixels for an image,
{limits.MOST_SECONDS:,} seconds, {limits.MOST_SHARDS:,} shards."""


def page() -> str:
    """Return the text of options.md."""
    group = typer.main.get_command(app)
    lines = [_INTRODUCTION]
    for command, context in _commands(group, typer.Context(group, info_name="fcn")):
        lines += _section(command, context)
    return "\n".join(lines) + "\n"


def _commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a command and its context, then those below it."""
    yield command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        subcommand = command.get_command(context, name)
        yield from _commands(subcommand, typer.Context(subcommand, info_name=name, parent=context))


def _section(command: Any, context: Any) -> list[str]:
    """Return the lines about one command."""
    arguments, options = command_line.parameters(command, context)
    lines = ["", f"## {context.command_path}", "", inspect.cleandoc(command.help or "")]
    if arguments:
        rows = [[_code(param.metavar), _text(param.help or "")] for param in arguments]
        lines += ["", *_table(("argument", "meaning"), rows)]
    for group, grouped in command_line.groups(options):
        rows = [_option_row(param, context) for param in grouped]
        lines += ["", *_table((group, "meaning", "default", "variable"), rows)]
    return lines


def _option_row(option: Any, context: Any) -> list[str]:
    return [
        _code(command_line.written_name(option)),
        _text(option.help or ""),
        _text(command_line.shown_default(option, context)),
        _code(option.envvar) if option.envvar else "",
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]


def _code(text: str) -> str:
    # A bar ends a table's cell, in code too, unless it is escaped.
    return "`" + text.replace("|", r"\|") + "`"


def _text(text: str) -> str:
    """Return plain text for a table's cell, in one line, with Markdown's own characters escaped."""
    text = " ".join(text.split())
    return "".join(f"\\{character}" if character in "\\`|*[]<>_" else character for character in text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
