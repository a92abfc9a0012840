"""Counts and lists in messages: "1 image", "2 images", "a, b or c"."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, noun: str, plural: str | None = None, *, grouped: bool = False) -> str:
    """Return a count with its noun in the singular or plural.

    Parameters
    ----------
    count
        The number.
    noun
        The noun in the singular.
    plural
        The noun in the plural, if it is not `noun` with an "s".
    grouped
        Separate thousands with commas.
    """
    number = f"{count:,}" if grouped else str(count)
    return f"{number} {noun if count == 1 else plural or noun + 's'}"


def alternatives(names: Iterable[str]) -> str:
    """Return one or more names as "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
