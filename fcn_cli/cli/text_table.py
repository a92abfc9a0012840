"""Tables of figures: drawn on a terminal, plain columns elsewhere; figures are never truncated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .console import write_line

Color = tuple[int, int, int]

_MIN_NAME_COLUMNS = 8
"""The minimum width of the names; narrower tables are unreadable."""


class _Terminal(Console):
    """A console that leaves the handling of a closed pipe to its caller."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def write_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    stream: TextIO,
    swatches: Sequence[Color] | None = None,
) -> None:
    """Write a table with names in the first column and figures in the others.

    On a terminal the table is drawn at the terminal's width and long names wrap; if the terminal is too
    narrow for the figures, each row becomes a paragraph. In a file or a pipe, and on a terminal that cannot
    draw (TERM=dumb), the table is plain text of any width, without lines and colours.

    Parameters
    ----------
    headings
        The columns' headings.
    rows
        The cells of each row, one per heading.
    stream
        The stream to write to.
    swatches
        A colour for each row, shown before the row on terminals with colours.
    """
    if not can_draw(stream):
        _write_plain(headings, rows, stream)
        return
    console = _Terminal(file=stream, highlight=False)
    colored = swatches is not None and console.color_system is not None and not console.no_color
    widths = _widths(headings, rows)
    # Each column has two spaces and a border, and the table has one more border.
    frame = 3 * len(widths) + 1 + (6 if colored else 0)
    if console.width < frame + min(widths[0], _MIN_NAME_COLUMNS) + sum(widths[1:]):
        _write_paragraphs(headings, rows, stream, console.width)
        return
    table = Table(header_style="bold")
    if colored:
        table.add_column("", width=3, no_wrap=True)
    table.add_column(headings[0], overflow="fold")
    for heading, width in zip(headings[1:], widths[1:], strict=True):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for row, color in zip(rows, swatches or [(0, 0, 0)] * len(rows), strict=True):
        swatch = [Text("   ", style="on rgb({},{},{})".format(*color))] if colored else []
        table.add_row(*swatch, *map(Text, row))
    console.print(table)


def can_draw(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor, not only print."""
    return stream.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]


def _write_plain(headings: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    widths = _widths(headings, rows)
    for name, *figures in (headings, *rows):
        padded = [
            " " * (width - cell_len(figure)) + figure
            for figure, width in zip(figures, widths[1:], strict=True)
        ]
        write_line("  ".join([name + " " * (widths[0] - cell_len(name)), *padded]), stream)


def _write_paragraphs(
    headings: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO, width: int
) -> None:
    for name, *figures in rows:
        write_line(name, stream)
        for heading, figure in zip(headings[1:], figures, strict=True):
            # The terminal would wrap a longer line inside the figure.
            between = " " if cell_len(f"  {heading} {figure}") <= width else "\n    "
            write_line(f"  {heading}{between}{figure}", stream)
