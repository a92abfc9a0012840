"""Typer's command classes with our help layout and one-line usage errors."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..common.wording import alternatives
from . import help_page

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The exception for a wrong command line; Typer has no public name for it."""

_BOOLEANS = "1, true, yes or on, or 0, false, no or off"


class _HelpPage:
    """The help layout that commands and groups share."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help at the terminal's width; click's own stops at 80 columns and breaks long words."""
        formatter.write(help_page.render(self, ctx, shutil.get_terminal_size().columns) + "\n")


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
