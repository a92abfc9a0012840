"""Tables of figures for people: drawn on a terminal, plain columns anywhere else; no figure is ever cut."""

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

_NARROWEST_NAME = 8
"""Columns that a name needs at least; in fewer a table is not readable any more."""


class _Terminal(Console):
    """A console that leaves it to its caller what a reader who went away means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def write_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    to: TextIO,
    swatches: Sequence[Color] | None = None,
) -> None:
    """Write a table whose first column is names and whose others are figures.

    On a terminal it is drawn at its width, where long names wrap; where that is too narrow for the figures,
    each row becomes a paragraph. In a file or a pipe, and on a terminal that can only print (TERM=dumb), it
    is columns of plain text, however wide, without lines or colours.

    Parameters
    ----------
    headings
        The columns' headings.
    rows
        The cells of each row, as many as there are headings.
    to
        Where to write.
    swatches
        A colour for each row, which is shown before it where there are colours.
    """
    if not draws(to):
        _plain(headings, rows, to)
        return
    console = _Terminal(file=to, highlight=False)
    colored = swatches is not None and console.color_system is not None and not console.no_color
    widths = _widths(headings, rows)
    # A name and each figure have a border and two spaces, and there is one border more.
    frame = 3 * len(widths) + 1 + (6 if colored else 0)
    if console.width < frame + min(widths[0], _NARROWEST_NAME) + sum(widths[1:]):
        _paragraphs(headings, rows, to, console.width)
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


def draws(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can draw, not only print."""
    return stream.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]


def _plain(headings: Sequence[str], rows: Sequence[Sequence[str]], to: TextIO) -> None:
    widths = _widths(headings, rows)
    for name, *figures in (headings, *rows):
        padded = [
            " " * (width - cell_len(figure)) + figure
            for figure, width in zip(figures, widths[1:], strict=True)
        ]
        write_line("  ".join([name + " " * (widths[0] - cell_len(name)), *padded]), to)


def _paragraphs(headings: Sequence[str], rows: Sequence[Sequence[str]], to: TextIO, width: int) -> None:
    for name, *figures in rows:
        write_line(name, to)
        for heading, figure in zip(headings[1:], figures, strict=True):
            # The terminal would wrap a longer line in the middle of the figure.
            between = " " if cell_len(f"  {heading} {figure}") <= width else "\n    "
            write_line(f"  {heading}{between}{figure}", to)
