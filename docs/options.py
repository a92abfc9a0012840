"""Write options.md: every command, argument and option, taken from the command line itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from fcn_cli.cli import command_line
from fcn_cli.cli.app import app
from fcn_cli.common import limits

PAGE = Path(__file__).with_suffix(".md")
_INTRODUCTION = f"""\
# All commands and options

`make docs` writes this page from the command line. `fcn COMMAND --help` prints the first sentence of each
option. In parentheses stand its default and its environment variable, which the command line overrides:
`FCN_BACKBONE=resnet101 fcn segment photos/`. Options that redo or delete something have no variable.

Limits: {limits.MOST_THREADS} threads, {limits.MOST_WORKERS} workers, batches of {limits.MOST_IN_A_BATCH},
{limits.LONGEST_SIDE:,} pixels for a side of the network's input or of a tile, {limits.MOST_PIXELS:,} pixels
for an image, {limits.MOST_SECONDS:,} seconds, {limits.MOST_SHARDS:,} shards.

Every command takes:
"""
_EVERYWHERE = {"--quiet", "--verbose", "--help"}


def page() -> str:
    """Return the text of options.md."""
    group: Any = typer.main.get_command(app)
    root = typer.Context(group, info_name="fcn", **group.context_settings)
    commands = list(_commands(group, root))
    everywhere = {
        _item(option, context): ""
        for command, context in commands
        for option in command_line.parameters(command, context)[1]
        if _EVERYWHERE & set(option.opts)
    }
    # An option that several commands have is described once: its text -> the command that has it first.
    described = dict(everywhere)
    lines = [_INTRODUCTION, *everywhere]
    for command, context in commands:
        lines += _section(command, context, described)
    return "\n".join(lines) + "\n"


def _commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a command and its context, then those below it."""
    yield command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        subcommand = command.get_command(context, name)
        yield from _commands(subcommand, typer.Context(subcommand, info_name=name, parent=context))


def _section(command: Any, context: Any, described: dict[str, str]) -> list[str]:
    """Return the lines about one command."""
    path = context.command_path
    arguments, options = command_line.parameters(command, context)
    lines = ["", f"## {path}", "", inspect.cleandoc(command.help or "")]
    if arguments:
        lines += ["", *(f"- {_code(param.metavar)}: {_text(param.help or '')}" for param in arguments)]
    elsewhere: dict[str, list[str]] = {}
    for group, grouped in command_line.groups(options):
        own = []
        for option in grouped:
            item = _item(option, context)
            if item not in described:
                own.append(item)
                described[item] = path
            elif described[item]:
                elsewhere.setdefault(described[item], []).append(_code(max(option.opts, key=len)))
        if own:
            lines += ["", f"**{group}**", "", *own]
    for other, names in elsewhere.items():
        lines += ["", f"As for `{other}`: {', '.join(names)}."]
    return lines


def _item(option: Any, context: Any) -> str:
    """Return the line about an option."""
    name = _code(command_line.written_name(option))
    default = command_line.shown_default(option, context)
    notes = "; ".join(filter(None, [_text(default), _code(option.envvar) if option.envvar else ""]))
    return f"- {name}{f' ({notes})' if notes else ''}: {_text(option.help or '')}"


def _code(text: str) -> str:
    return f"`{text}`"


def _text(text: str) -> str:
    """Return plain text in one line, with Markdown's own characters escaped."""
    text = " ".join(text.split())
    return "".join(f"\\{character}" if character in "\\`*[]<>_" else character for character in text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
