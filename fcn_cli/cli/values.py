"""Parsers of option values, whose errors have one form, and shell completions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ..common import output_layout, store_urls
from ..common.class_map import ClassMap
from ..common.errors import RequestError
from ..common.limits import LONGEST_SIDE, MOST_SHARDS
from ..common.shard import Shard
from ..common.wording import alternatives
from ..models import registry

if TYPE_CHECKING:
    from ..models.request import ModelRequest

ALL = "all"
_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_Choices = TypeVar("_Choices", bound=StrEnum)


def refused(takes: str, text: object) -> typer.BadParameter:
    """Return the error for a wrong value: what the option takes, and what was given."""
    return typer.BadParameter(f"takes {takes}, not {str(text)!r}")


def in_any_case(text: str, words: Iterable[str]) -> str:
    """Return the one of some words that a text is, in upper or lower case; else the text."""
    return next((word for word in words if word.casefold() == text.casefold()), text)


def device(text: str) -> str:
    """Parse a device's name, ``cuda:1`` for example; PyTorch says later whether there is one."""
    return text.lower()


def choice(choices: type[_Choices]) -> Callable[[str], _Choices]:
    """Return a parser for the names of an enumeration."""

    def parse(text: str) -> _Choices:
        try:
            return choices(in_any_case(text, choices))
        except ValueError:
            raise refused(alternatives(choices), text) from None

    return parse


def backbone(*others: str) -> Callable[[str], str]:
    """Return a parser for the names of the networks, and for some other words."""
    known = (*registry.BACKBONES, *others)

    def parse(text: str) -> str:
        word = in_any_case(text, (*known, *registry.REPLACED))
        if word in registry.REPLACED:
            raise typer.BadParameter(f"takes {registry.REPLACED[word]} in place of {word}")
        if word not in known:
            raise refused(alternatives(known), text)
        return word

    return parse


def _whole_number(text: str, minimum: int, maximum: int) -> int | None:
    """Return the whole number that `text` writes in ASCII digits, or None if it is out of range."""
    # Python refuses to convert thousands of digits; 19 exceed any range here.
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text) if minimum <= int(text) <= maximum else None


def age(text: str) -> float:
    """Parse a time such as 26h; return it in seconds."""
    number, unit = text[:-1], text[-1:].lower()
    if unit not in _UNITS or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise refused("a whole number and a unit (s, m, h or d), as in 26h", text)
    return int(number) * _UNITS[unit]


def whole(minimum: int, maximum: int, *, word: str = "") -> Callable[[Any], int | None]:
    """Return a parser for a whole number from `minimum` to `maximum`; `word` becomes None."""
    takes = f"a whole number from {minimum} to {maximum}"
    if word:
        takes = f"{word} or {takes}"

    def parse(text: Any) -> int | None:
        if word and str(text).casefold() == word:
            return None
        value = _whole_number(str(text), minimum, maximum)
        if value is None:
            raise refused(takes, text)
        return value

    return parse


def short_side(text: str) -> int | None:
    """Parse the short side of the network's input in pixels; ``none`` becomes None."""
    if text.casefold() == "none":
        return None
    side = _whole_number(text, 1, LONGEST_SIDE)
    if side is None:
        raise refused(f"none or a short side of 1 to {LONGEST_SIDE} pixels", text)
    return side


def scales(text: Any) -> tuple[float, ...]:
    """Parse a list of factors of the network's input size; return them in ascending order."""
    from ..inputs.decode_options import check_scales

    try:
        return check_scales(_number(part) for part in str(text).split(","))
    except (ValueError, RequestError):
        raise refused("numbers from 0.25 to 4, separated by commas", text) from None


def number(minimum: float, maximum: float) -> Callable[[Any], float]:
    """Return a parser for a number from `minimum` to `maximum`."""
    takes = f"a number from {minimum:.15g} to {maximum:.15g}"

    def parse(text: Any) -> float:
        try:
            value = _number(str(text))
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise refused(takes, text)
        return value

    return parse


def min_confidence(text: Any) -> Any:
    """Parse a probability, or several by class: ``cat=0.7,0.5``."""
    from ..inference.options import MinConfidence

    given: dict[str, float] = {}
    for part in str(text).split(","):
        name, equals, value = (side.strip() for side in part.rpartition("="))
        try:
            probability = _number(value)
        except ValueError:
            probability = math.nan
        if bool(name) != bool(equals) or name in given or not 0 <= probability <= 1:
            several = ", or several by class such as cat=0.7,0.5" if "=" in str(text) else ""
            raise refused(f"a number from 0 to 1{several}", text)
        given[name] = probability
    others = given.pop("", 0.0)
    return MinConfidence(others, tuple(given.items()))


def _number(text: str) -> float:
    """Return the number that a text writes in ASCII, which `float` does not ask for."""
    if not text.isascii():
        raise ValueError(text)
    return float(text)


def share(text: str) -> float:
    """Parse a share, as a percentage or a fraction; return the fraction."""
    percent = text.strip().endswith("%")
    try:
        value = _number(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise refused("a percentage (5%) or a fraction from 0 to 1 (0.05)", text)
    return value


def size(text: str) -> tuple[int, int]:
    """Parse a (width, height) in pixels."""
    sides = [_whole_number(part, 1, LONGEST_SIDE) for part in text.split("x")]
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        raise refused("WIDTHxHEIGHT in pixels, as 693x520", text)
    return sides[0], sides[1]


def shard(text: str) -> Shard:
    """Parse a shard: its number, which counts from 1, a slash, and the number of shards."""
    index, _, count = (_whole_number(part, 0, MOST_SHARDS) for part in text.partition("/"))
    if index is None or count is None or "/" not in text or not 1 <= index <= count:
        raise refused(
            f"I/N, shard I of N, with I from 1 to N and N up to {MOST_SHARDS} (if your scheduler counts "
            "from 0, add 1)",
            text,
        )
    return Shard(index, count)


def local_file(text: Any) -> Path:
    """Parse the path of a file on this machine; see `local`."""
    return Path(local(text))


def local(text: Any) -> str:
    """Parse a path on this machine: a URL would be taken for a strange one."""
    path = store_urls.local_path(str(text))
    if store_urls.is_url(path):
        raise refused("a path on this machine", text)
    return path


def palette(text: Any) -> str:
    """Parse the name of a built-in palette, or the path of a file."""
    from ..common.palettes import BUILT_IN

    return _word_or_file(text, BUILT_IN)


def class_names(text: Any) -> str:
    """Parse ``voc``, or the path of a file."""
    from ..common.class_names import VOC_NAMES

    return _word_or_file(text, (VOC_NAMES,))


def _word_or_file(text: Any, words: Iterable[str]) -> str:
    path = local(text)
    return path if os.path.exists(path) else in_any_case(path, words)


def ray_address(text: str) -> str:
    """Parse where Ray runs: ``local``, or HOST:PORT; return the text."""
    from ..cluster.session import parse_address

    text = in_any_case(text, ("local",))
    try:
        parse_address(text)
    except ValueError:
        raise refused("local, or HOST:PORT of a cluster's head node", text) from None
    return text


def output_types(text: str) -> tuple[str, ...]:
    """Parse a list of output types; return them in the order of writing."""
    names = output_layout.output_type_names()
    given = {in_any_case(part.strip(), names) for part in text.split(",")} - {""}
    if not given or given - set(names):
        raise refused(f"one or more of {', '.join(names)}, separated by commas", text)
    return tuple(name for name in names if name in given)


def classes(text: str) -> tuple[str, ...]:
    """Parse a list of class names or indices; ``all`` becomes an empty one."""
    given = tuple(part for part in (part.strip() for part in text.split(",")) if part)
    if not given:
        raise refused("all, or names or indices of classes, separated by commas", text)
    return () if len(given) == 1 and given[0].casefold() == ALL else given


def color(text: str) -> tuple[int, int, int] | None:
    """Parse a colour; ``none`` becomes None."""
    from ..outputs.looks import read_color

    if text.casefold() == "none":
        return None
    try:
        return read_color(text)
    except ValueError:
        raise refused("a colour such as white or #ffffff, or none", text) from None


def class_map(text: str) -> ClassMap:
    """Parse a map of classes."""
    try:
        return ClassMap.parse(text)
    except ValueError:
        raise refused(ClassMap.TAKES, text) from None


def complete(*names: str) -> Callable[[str], list[str]]:
    """Return a shell completion of names; if no name matches, the shell completes paths."""

    def matching(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return matching


def complete_output_types(incomplete: str) -> list[str]:
    """Complete the last output type of a list, without those that the list has already."""
    given, comma, last = incomplete.rpartition(",")
    left = [
        output_type
        for output_type in output_layout.output_type_names()
        if output_type not in given.split(",")
    ]
    return [f"{given}{comma}{output_type}" for output_type in left if output_type.startswith(last)]


def complete_palettes(incomplete: str) -> list[str]:
    """Complete a built-in palette's name."""
    from ..common.palettes import BUILT_IN

    return [name for name in BUILT_IN if name.startswith(incomplete)]


def not_both(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> bool:
    """Refuse ``-q`` together with ``-v``, in any order."""
    other = "verbose" if parameter.name == "quiet" else "quiet"
    if value and context.params.get(other):
        raise RequestError("--quiet and --verbose exclude each other; leave one of them out")
    return value


def not_empty(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse an empty name, which usually comes from an unset variable in a script."""
    if value is not None and not value.strip():
        raise RequestError(f"{parameter.opts[0]}: the name is empty; is a variable in your script not set?")
    return value


def not_a_file(parameter: typer.CallbackParam, value: str) -> str:
    """Refuse an output path that is a file or lies below a file."""
    not_empty(parameter, value)
    if value == "-" or store_urls.is_url(value):
        return value
    for place in (Path(value), *Path(value).parents):
        if os.path.isdir(place):
            break
        if os.path.lexists(place):
            file = "this" if place == Path(value) else place
            raise RequestError(f"{parameter.opts[0]} {value}: {file} is a file, not a directory")
    return value


def image_file(output: str) -> str | None:
    """Return the file that ``-o cat.png`` names, or None where an output names a directory."""
    file = store_urls.local_path(output)
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in _IMAGE_SUFFIXES or store_urls.is_url(file) or os.path.isdir(file):
        return None
    return file


def output_place(parameter: typer.CallbackParam, value: str) -> str:
    """Refuse an output that can be neither a directory nor a PNG."""
    file = image_file(value)
    if file is None:
        return not_a_file(parameter, value)
    option, stem = parameter.opts[0], os.path.splitext(file)[0]
    if not file.lower().endswith(".png"):
        raise RequestError(
            f"{option} {file}: an image is written as PNG; use {stem}.png, or {file}/ for a directory"
        )
    if not os.path.isdir(os.path.dirname(file) or "."):
        raise RequestError(f"{option} {file}: there is no directory {os.path.dirname(file)}")
    if os.path.lexists(file) and not os.path.isfile(file):
        raise RequestError(f"{option} {file}: exists and is not a regular file")
    return file


def no_file_or_none(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse a file where a directory is wanted; None is nothing."""
    return None if value is None else not_a_file(parameter, value)


def export_path(parameter: typer.CallbackParam, value: str) -> Path:
    """Refuse an empty name, which `Path` would take for the current directory, and stdout."""
    if value == "-":
        raise RequestError("--output -: an export goes into a file or a directory, not to stdout")
    return local_directory(not_empty(parameter, value) or "")


def local_directory(value: str) -> Path:
    """Refuse a URL: commands about what is done work on local directories only."""
    if store_urls.is_url(store_urls.local_path(value)):
        raise RequestError(f"{value}: this command needs a local directory; copy it here first")
    return Path(store_urls.local_path(value))


def input_size(
    context: typer.Context, resize: int | None, tile: int | None, model: ModelRequest
) -> int | tuple[int, int] | None:
    """Return the value of ``--resize``; where it is not given, tiles have the image's own scale.

    Without tiles, the size on the network's card comes before the default.
    """
    source = context.get_parameter_source("resize")
    is_given = source is not None and source.name != "DEFAULT"
    if is_given:
        return resize
    return None if tile is not None else model.input_size() or resize
