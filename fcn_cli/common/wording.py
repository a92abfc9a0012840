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


def duration(seconds: float) -> str:
    """Return a time as people say it, in one or two units: "45 s", "3 min", "2 h 5 min", "3 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
