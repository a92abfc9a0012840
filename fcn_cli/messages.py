"""One line for people, on stderr; light, since every command starts with it."""

from __future__ import annotations

import sys


def one_line(text: str) -> str:
    """Return a text with everything that is not printable (line ends, escape codes, odd bytes) escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def say(text: str) -> None:
    """Print one line for people."""
    print(f"fcn: {one_line(text)}", file=sys.stderr, flush=True)  # noqa: T201
