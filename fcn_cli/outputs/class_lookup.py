"""Find classes that are given by name or index, as options take them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ..common.wording import alternatives

_SHOWN_NAMES = 30


def find_class(text: str, names: Sequence[str]) -> int | None:
    """Return the index of a class, or None if there is none.

    Parameters
    ----------
    text
        A name: as it is, in upper or lower case, or without the underscores around it; or an index.
    names
        The names of all classes in index order. Of several classes of one name, the first is meant.
    """
    ways = (str, str.casefold, lambda name: name.strip("_").casefold())
    for way in ways:
        for index, name in enumerate(names):
            if way(name) == way(text):
                return index
    is_index = text.isascii() and text.isdigit() and len(text) <= len(str(len(names)))
    return int(text) if is_index and int(text) < len(names) else None


def hint(text: str, names: Sequence[str]) -> str:
    """Return what to say of a class that is not there: names like it, or those that there are."""
    folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(text.casefold(), folded, n=3)
    if close:
        return f"did you mean {alternatives(folded[name] for name in close)}?"
    shown = names[:_SHOWN_NAMES]
    return f"the classes are {', '.join(shown)}{', …' if len(names) > len(shown) else ''}"
