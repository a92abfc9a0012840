"""Typer's commands with help of our own layout, and its usage errors as one line."""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..common.wording import alternatives
from . import help_page

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What a wrong command line raises; Typer has no public name for it."""

_BOOLEANS = "1, true, yes or on, or 0, false, no or off"


class _Page:
    """What commands and groups share."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help at the terminal's width; click stops at 80 columns and cuts words below 50."""
        formatter.write(help_page.render(self, ctx, shutil.get_terminal_size().columns) + "\n")


class Command(_Page, TyperCommand):
    """A command; its usage errors know which one it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of this command."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            _belongs_to(error, ctx)
            raise


class Group(_Page, TyperGroup):
    """A command with commands below it; without any argument it shows its help, as an error."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of this group, up to the command's name."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(2)
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            _belongs_to(error, ctx)
            raise


def _belongs_to(error: Any, context: Any) -> None:
    # The parser does not know whose options it parses.
    if error.ctx is None:
        error.ctx = context


def usage_message(error: Any) -> str:
    """Return one line for a usage error: what is wrong, and whose help says what is right."""
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
        # Only from the environment can a flag have a wrong value.
        if variable and getattr(parameter, "is_flag", False):
            text = f"takes {_BOOLEANS}, not {os.environ[variable]!r}"
        return f"{variable or name} {text}" if text.startswith("takes ") else f"{variable or name}: {text}"
    possible = getattr(error, "possibilities", None)
    if possible and hasattr(error, "option_name"):
        return f"no such option: {error.option_name} (did you mean {alternatives(sorted(possible))}?)"
    text = " ".join(error.format_message().split())
    text = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", text)
    text = re.sub(r"^Got unexpected extra argument[s()]* \((.*)\)$", r"too many arguments: \1", text)
    return text[:1].lower() + text[1:].rstrip(".")


def _variable(error: Any) -> str | None:
    """Return the environment variable that the wrong value came from."""
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx is not None else None
    return error.param.envvar if source is not None and source.name == "ENVIRONMENT" else None
