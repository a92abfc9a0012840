"""The layout of ``--help`` at any width, without breaking words."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

MIN_WIDTH = 40
MAX_WIDTH = 200
_MIN_WIDTH_BESIDE = 60
"""On narrower terminals descriptions are printed below the options' names, not beside them."""
_NAME_COLUMNS = 28
"""The width of the options' column; longer names have their description on the next line."""


def render(command: Any, context: Any, columns: int) -> str:
    """Return the help of a command or group of commands.

    Parameters
    ----------
    command
        Typer's command.
    context
        Typer's context of the call.
    columns
        The terminal's width; the text's width is limited to 40 to 200 columns.
    """
    width = min(max(columns, MIN_WIDTH), MAX_WIDTH)
    shown = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    commands = _commands(command, context) if hasattr(command, "list_commands") else []
    usage = ["[OPTIONS]", *(["COMMAND ..."] if commands else [_name(param) for param in arguments])]
    lines = _wrap(f"Usage: {context.command_path} {' '.join(usage)}", width, hanging=" " * len("Usage: "))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += ["", *_wrap(paragraph, width)]
    for heading, rows in (
        ("Arguments", [(_name(param), param.help or "") for param in arguments]),
        ("Commands", commands),
        ("Options", [(_name(param), _describe(param, context)) for param in options]),
    ):
        if rows:
            lines += ["", f"{heading}:", *_table(rows, width)]
    return "\n".join(lines)


def _commands(group: Any, context: Any) -> list[tuple[str, str]]:
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [
        (name, inspect.cleandoc(command.help or "").split("\n\n")[0])
        for name, command in found
        if not command.hidden
    ]


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar)
    # Short names first, as -o, --output.
    names = ", ".join(sorted([*param.opts, *param.secondary_opts], key=lambda name: name.startswith("--")))
    return names if param.is_flag else f"{names} {param.metavar}"


def _describe(param: Any, context: Any) -> str:
    """Return an option's help with its default and environment variable."""
    default = param.show_default if isinstance(param.show_default, str) else None
    if default is None and param.show_default and not param.is_flag:
        value = param.get_default(context, call=False)
        value = value.value if isinstance(value, Enum) else value
        default = (
            f"{value:g}" if isinstance(value, int | float) else value if isinstance(value, str) else None
        )
    extra = [
        *([f"default: {default}"] if default else []),
        *([f"env: {param.envvar}"] if param.envvar else []),
    ]
    return f"{param.help or ''} [{'; '.join(extra)}]" if extra else param.help or ""


def _table(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    rows = list(rows)
    beside = width >= _MIN_WIDTH_BESIDE
    column = min(max(len(name) for name, _ in rows), _NAME_COLUMNS) + 4 if beside else 6
    for name, text in rows:
        lines = [" " * column + line for line in _wrap(text, width - column)]
        if beside and len(name) + 4 <= column and lines:
            lines[0] = f"  {name}".ljust(column) + lines[0][column:]
        else:
            yield f"  {name}"
        yield from lines


def _wrap(text: str, width: int, hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=hanging
    )
