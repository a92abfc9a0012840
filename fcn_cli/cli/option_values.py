"""What options take: parsers that say in one way what is right, and the shell's completions."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import typer

from ..common import output_layout
from ..common.errors import RequestError
from ..common.wording import alternatives

_LONGEST_SIDE = 16384
_Choices = TypeVar("_Choices", bound=StrEnum)


def refused(takes: str, text: object) -> typer.BadParameter:
    """Return the error for a value: what the option takes, and what was given."""
    return typer.BadParameter(f"takes {takes}, not {str(text)!r}")


def choice(choices: type[_Choices]) -> Callable[[str], _Choices]:
    """Return a parser for one of several names."""

    def parse(text: str) -> _Choices:
        try:
            return choices(text)
        except ValueError:
            raise refused(alternatives(choices), text) from None

    return parse


def _digits(text: str, least: int, most: int = 2**63 - 1) -> int | None:
    """Return a whole number within bounds that is written in plain digits, or None."""
    # Python refuses to convert thousands of digits; so many are out of any range.
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    return int(text) if least <= int(text) <= most else None


def whole(least: int, *, word: str = "") -> Callable[[Any], int | None]:
    """Return a parser for a whole number of at least `least`, or for a word that becomes None."""
    takes = f"{word} or a whole number of at least {least}" if word else f"a whole number of at least {least}"

    def parse(text: Any) -> int | None:
        if word and text == word:
            return None
        given = _digits(str(text), least)
        if given is None:
            raise refused(takes, text)
        return given

    return parse


def short_side(text: str) -> int | None:
    """Parse the short side that is fed to the network; ``none`` becomes None."""
    if text == "none":
        return None
    side = _digits(text, 1, _LONGEST_SIDE)
    if side is None:
        raise refused(f"none or a short side of 1 to {_LONGEST_SIDE} pixels", text)
    return side


def number(least: float, most: float | None = None) -> Callable[[Any], float]:
    """Return a parser for a number from `least` to `most`."""
    takes = f"a number of at least {least:g}" if most is None else f"a number from {least:g} to {most:g}"

    def parse(text: Any) -> float:
        try:
            given = float(text)
        except ValueError:
            given = math.nan
        if not math.isfinite(given) or given < least or (most is not None and given > most):
            raise refused(takes, text)
        return given

    return parse


def size(text: str) -> tuple[int, int]:
    """Parse a width and a height in pixels."""
    sides = [_digits(part, 1, _LONGEST_SIDE) for part in text.split("x")]
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        raise refused("WIDTHxHEIGHT in pixels, as 693x520", text)
    return sides[0], sides[1]


def kinds(text: str) -> tuple[str, ...]:
    """Parse the kinds of output to write, in the order in which they are written."""
    names = output_layout.kind_names()
    given = {part.strip() for part in text.split(",")} - {""}
    if not given or given - set(names):
        raise refused(f"one or more of {', '.join(names)}, separated by commas", text)
    return tuple(name for name in names if name in given)


def complete(*names: str) -> Callable[[str], list[str]]:
    """Return a shell completion from names; where none fits, the shell completes paths."""

    def matching(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return matching


def complete_kinds(incomplete: str) -> list[str]:
    """Complete the last of several kinds of output, leaving out those that are there."""
    given, comma, last = incomplete.rpartition(",")
    left = [kind for kind in output_layout.kind_names() if kind not in given.split(",")]
    return [f"{given}{comma}{kind}" for kind in left if kind.startswith(last)]


def complete_palettes(incomplete: str) -> list[str]:
    """Complete a built-in palette's name."""
    from ..common.palettes import BUILT_IN

    return [name for name in BUILT_IN if name.startswith(incomplete)]


def not_both(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> bool:
    """Refuse ``-q`` beside ``-v``, whichever comes first."""
    other = "verbose" if parameter.name == "quiet" else "quiet"
    if value and context.params.get(other):
        raise RequestError("--quiet and --verbose exclude each other; leave one of them out")
    return value
