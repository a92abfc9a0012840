"""Counts and lists in messages: "1 image", "2 images", "a, b or c"."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, noun: str, plural: str | None = None, *, grouped: bool = False) -> str:
    """Return a count with its noun.

    Parameters
    ----------
    count
        How many there are.
    noun
        The noun for one of them.
    plural
        The noun for several, where it is not `noun` with an "s".
    grouped
        Separate thousands by commas.
    """
    number = f"{count:,}" if grouped else str(count)
    return f"{number} {noun if count == 1 else plural or noun + 's'}"


def alternatives(names: Iterable[str]) -> str:
    """Return names as "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
