"""Network cards: TOML files beside a checkpoint that describe its classes and its preprocessing."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..common import files
from ..common.errors import RequestError
from ..common.limits import LONGEST_SIDE
from ..common.wording import alternatives
from .registry import MAX_CLASSES

SUFFIX = ".toml"

NO_BACKGROUND: Final = "none"
_LARGEST = 1e6
"""No mean, deviation or value of a pixel is larger."""

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from RGB in [0, 1], and what the rest is divided by."""

    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)


IMAGENET = Normalisation()
"""ImageNet's statistics; torchvision trained its weights with them."""


@dataclass(frozen=True)
class Card:
    """What a card says; None is what it does not say.

    `background` is a class's index or name, or ``none``. `input_size` is a short side in pixels, or a width
    and a height. `keys` are those in the file.
    """

    class_names: tuple[str, ...] | None = None
    background: int | str | None = None
    normalisation: Normalisation = IMAGENET
    input_size: int | tuple[int, int] | None = None
    licence: str | None = None
    keys: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card.

        Raises
        ------
        RequestError
            It cannot be read, or says what no card says; the message names the key.
        """
        try:
            content = tomllib.loads(files.read_small(path, follow=True).decode())
        except OSError as error:
            raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
        # Beside its own error, the parser has Python's for numbers of thousands of digits and deep nesting.
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{path}: not TOML ({error})") from None
        return _Reader(path, content).card()

    def background_index(self, names: Sequence[str] | None, path: Path) -> int | None:
        """Return the index of the background among classes of these names, or None where there is none."""
        given = self.background
        if given is None or given == NO_BACKGROUND:
            return None
        if isinstance(given, int) and (names is None or given < len(names)):
            return given
        if isinstance(given, str) and names is not None and given in names:
            return names.index(given)
        known = "it has no class_names" if names is None else f"the classes are {', '.join(names)}"
        raise RequestError(f"{path}: background = {given!r} is not one of the classes; {known}")


class _Reader:
    """Takes the keys of a card one by one."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self._path, self._content = path, content

    def card(self) -> Card:
        known = ("class_names", "background", "mean", "std", "value_range", "input_size", "licence")
        for key in self._content:
            if key not in known:
                raise RequestError(
                    f"{self._path}: {key:.60} is not a key of a card; the keys are {alternatives(known)}"
                )
        return Card(
            self._take("class_names", _names, "different names in quotes, at least 2"),
            self._take("background", _background, 'the index or the name of a class, or "none"'),
            self._normalisation(),
            self._take(
                "input_size", _size, f"a short side, or [width, height], of 1 to {LONGEST_SIDE} pixels"
            ),
            self._take(
                "licence", lambda value: value if isinstance(value, str) else None, "a text in quotes"
            ),
            tuple(self._content),
        )

    def _take(self, key: str, parse: Callable[[Any], Any], takes: str) -> Any:
        if key not in self._content:
            return None
        parsed = parse(self._content[key])
        if parsed is None:
            raise RequestError(f"{self._path}: {key} takes {takes}, not {self._content[key]!r:.80}")
        return parsed

    def _normalisation(self) -> Normalisation:
        mean = self._take("mean", _numbers(3), "three numbers, for red, green and blue")
        std = self._take("std", _numbers(3, above=0), "three numbers above 0, for red, green and blue")
        low, high = self._take("value_range", _range, "two numbers, the values of black and white") or (0, 1)
        if (mean is None) != (std is None) or ("value_range" in self._content and mean is None):
            raise RequestError(
                f"{self._path}: mean and std belong together, and value_range to both; without them, "
                "RGB from 0 to 1 is normalised by ImageNet's"
            )
        if mean is None:
            return IMAGENET
        red, green, blue = ((value - low) / (high - low) for value in mean)
        of_red, of_green, of_blue = (value / (high - low) for value in std)
        return Normalisation((red, green, blue), (of_red, of_green, of_blue))


def _names(value: Any) -> tuple[str, ...] | None:
    is_right = isinstance(value, list) and all(
        isinstance(name, str) and name.strip() and name.isprintable() for name in value
    )
    return tuple(value) if is_right and 2 <= len({*value}) == len(value) <= MAX_CLASSES else None


def _background(value: Any) -> int | str | None:
    if isinstance(value, str):
        return value
    return value if _is_whole(value) and 0 <= value < MAX_CLASSES else None


def _size(value: Any) -> int | tuple[int, int] | None:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    if not all(_is_whole(side) and 1 <= side <= LONGEST_SIDE for side in sides):
        return None
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def _range(value: Any) -> tuple[float, ...] | None:
    ends = _numbers(2)(value)
    return ends if ends is not None and ends[0] < ends[1] else None


def _numbers(count: int, above: float = float("-inf")) -> Callable[[Any], tuple[float, ...] | None]:
    def parse(value: Any) -> tuple[float, ...] | None:
        is_right = (
            isinstance(value, list)
            and len(value) == count
            and all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
            and all(above < number <= _LARGEST and number >= -_LARGEST for number in value)
        )
        return tuple(map(float, value)) if is_right else None

    return parse


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
