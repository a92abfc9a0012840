"""Typer's command classes, with help in groups at any width and usage errors of one line."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator
from difflib import SequenceMatcher
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..common.wording import alternatives
from .options import GROUPS, MESSAGES

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The exception for a wrong command line; Typer has no public name for it."""

MIN_WIDTH = 40
MAX_WIDTH = 200
_MIN_WIDTH_BESIDE = 60
"""On narrower terminals descriptions are printed below the options' names, not beside them."""
_NAME_COLUMNS = 24
"""The width of the options' column; longer names have their description on the next line."""

_BOOLEANS = "1, true, yes or on, or 0, false, no or off"


class _HelpPage:
    """The help layout that commands and groups share."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help at the terminal's width; click's own stops at 80 columns and breaks long words."""
        formatter.write(render(self, ctx, shutil.get_terminal_size().columns) + "\n")


class Command(_HelpPage, TyperCommand):
    """A command whose usage errors refer to it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; usage errors get this command's context."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            _set_context(error, ctx)
            raise


class Group(_HelpPage, TyperGroup):
    """A command with subcommands. Without an argument it prints its help on stderr and exits with 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the subcommand; usage errors get this group's context."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(2)
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            _set_context(error, ctx)
            raise


def _set_context(error: Any, context: Any) -> None:
    # Errors from the option parser have no context.
    if error.ctx is None:
        error.ctx = context


def usage_message(error: Any) -> str:
    """Return one line for a usage error: the problem, and the command whose ``--help`` to read."""
    path = error.ctx.command_path if error.ctx is not None else "fcn"
    return f"{_problem(error)}; see {path} --help"


def _problem(error: Any) -> str:
    parameter = getattr(error, "param", None)
    if parameter is not None:
        option = parameter.param_type_name == "option"
        name = parameter.opts[0] if option else parameter.metavar.strip("[].")
        if not error.message:
            return f"{name} is missing"
        variable = _variable(error)
        text = error.message
        # A flag can have a wrong value only if it comes from the environment.
        if variable and getattr(parameter, "is_flag", False):
            text = f"takes {_BOOLEANS}, not {os.environ[variable]!r}"
        return f"{variable or name} {text}" if text.startswith("takes ") else f"{variable or name}: {text}"
    if (option := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        return f"no such option: {option}{_hint(option, error.possibilities or ())}"
    text = " ".join(error.format_message().split())
    if guess := re.fullmatch(r"No such command '(.*)'\. Did you mean (.*)\?", text):
        hint = _hint(guess[1], re.findall(r"'(.*?)'", guess[2]), quote="'")
        return f"no such command '{guess[1]}'{hint}"
    text = re.sub(r"^Got unexpected extra argument[s()]* \((.*)\)$", r"too many arguments: \1", text)
    return text[:1].lower() + text[1:].rstrip(".")


def _hint(given: str, possible: Iterable[str], quote: str = "") -> str:
    """Return the names that are meant for sure, out of those that click finds alike; empty without any."""
    close = [f"{quote}{name}{quote}" for name in sorted(possible) if _is_close(given, name)]
    return f" (did you mean {alternatives(close)}?)" if close else ""


def _is_close(given: str, name: str) -> bool:
    """Say whether a name is the given one with a slip, cut short, or with something added."""
    one, other = (text.replace("-", "").casefold() for text in (given, name))
    begins = one.startswith(other) or other.startswith(one)
    return (begins and min(len(one), len(other)) >= 3) or SequenceMatcher(None, one, other).ratio() >= 0.8


def _variable(error: Any) -> str | None:
    """Return the environment variable with the wrong value, or None if it was an argument."""
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx is not None else None
    return error.param.envvar if source is not None and source.name == "ENVIRONMENT" else None


def given_besides(context: Any, allowed: Collection[str]) -> str | None:
    """Return a parameter, as users write it, that is on the command line and not among those allowed.

    Variables of the environment do not count: they are for all calls.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name)
        if parameter.name not in allowed and source is not None and source.name == "COMMANDLINE":
            return max(parameter.opts, key=len) if parameter.param_type_name == "option" else "INPUT"
    return None


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
    arguments, options = parameters(command, context)
    commands = _commands(command, context) if hasattr(command, "list_commands") else []
    usage = ["[OPTIONS]", *(["COMMAND ..."] if commands else [written_name(param) for param in arguments])]
    lines = _wrap(f"Usage: {context.command_path} {' '.join(usage)}", width, hanging=" " * len("Usage: "))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += ["", *_wrap(paragraph, width)]
    tables = [
        ("Arguments", [(written_name(param), _line(param)) for param in arguments]),
        ("Commands", commands),
    ]
    for group, grouped in groups(options):
        tables.append((group, [(written_name(param), _describe(param, context)) for param in grouped]))
    for heading, rows in tables:
        if rows:
            lines += ["", f"{heading}:", *_table(rows, width)]
    return "\n".join(lines)


def parameters(command: Any, context: Any) -> tuple[list[Any], list[Any]]:
    """Return the arguments and the options of a command."""
    shown = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    return (
        [param for param in shown if param.param_type_name == "argument"],
        [param for param in shown if param.param_type_name == "option"],
    )


def groups(options: Iterable[Any]) -> list[tuple[str, list[Any]]]:
    """Return the groups that some options are in, each with its options, in the order of ``--help``."""
    named = {id(param): getattr(param, "rich_help_panel", None) for param in options}
    # Typer's own, such as --help.
    others = MESSAGES if any(named.values()) else "Options"
    found: dict[str, list[Any]] = {name: [] for name in (*GROUPS, others)}
    for param in options:
        found[named[id(param)] or others].append(param)
    return [(name, params) for name, params in found.items() if params]


def _line(param: Any) -> str:
    """Return the first paragraph of a help text."""
    return (param.help or "").partition("\n\n")[0]


def _commands(group: Any, context: Any) -> list[tuple[str, str]]:
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [
        (name, inspect.cleandoc(command.help or "").split("\n\n")[0])
        for name, command in found
        if not command.hidden
    ]


def written_name(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar)
    # Short names first, as -o, --output.
    names = ", ".join(sorted([*param.opts, *param.secondary_opts], key=lambda name: name.startswith("--")))
    return names if param.is_flag else f"{names} {param.metavar}"


def _describe(param: Any, context: Any) -> str:
    """Return what an option does in a line, with its default."""
    default = shown_default(param, context)
    return f"{_line(param)} [{default}]" if default else _line(param)


def shown_default(param: Any, context: Any) -> str:
    """Return an option's default as people write it; empty for flags, and where there is none."""
    if isinstance(param.show_default, str):
        return param.show_default
    value = param.get_default(context, call=False)
    if param.is_flag or value is None or not param.show_default:
        return ""
    value = value.value if isinstance(value, Enum) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


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
