"""Tables of figures: drawn on a terminal, plain columns elsewhere; figures are never truncated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .console import write_line

Color = tuple[int, int, int]

_MIN_NAME_COLUMNS = 8
"""The minimum width of the names; narrower tables are unreadable."""

_MIN_BAR_COLUMNS, _MAX_BAR_COLUMNS = 8, 24


def write_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    stream: TextIO,
    swatches: Sequence[Color] | None = None,
    shares: Sequence[float] | None = None,
) -> None:
    """Write a table with names in the first column and figures in the others.

    On a terminal the table is drawn at the terminal's width and long names wrap. If the terminal is too
    narrow for the frame, the table has none; if it is too narrow for the figures, each row becomes a
    paragraph. In a file or a pipe, and on a terminal that cannot draw (TERM=dumb), the table is plain text of
    any width, without lines and colours.

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
    shares
        A number from 0 to 1 for each row, shown as a bar behind the row where there is room.
    """
    if not can_draw(stream):
        _write_plain(headings, rows, stream)
        return
    console = Console(file=stream, highlight=False)
    colored = swatches is not None and console.color_system is not None and not console.no_color
    colors = swatches if colored and swatches is not None else None
    widths = _widths(headings, rows)
    # Each column has two spaces and a border, and the table has one more border.
    framed = 3 * len(widths) + 1 + (6 if colored else 0)
    frameless = len(widths) + (4 if colored else 0)
    # Whole names matter more than a frame.
    for names in (widths[0], min(widths[0], _MIN_NAME_COLUMNS)):
        columns = names + sum(widths[1:])
        if console.width >= framed + columns:
            room = console.width - framed - sum(widths) - 3
            console.print(_drawn(headings, rows, colors, _bars(shares, colors, room, stream), framed=True))
            return
        if console.width >= frameless + columns:
            console.print(_drawn(headings, rows, colors, None, framed=False))
            return
    _write_paragraphs(headings, rows, stream, console.width)


def _drawn(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    colors: Sequence[Color] | None,
    bars: Sequence[Bar] | None,
    *,
    framed: bool,
) -> Table:
    table = (
        Table(header_style="bold") if framed else Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    )
    if colors is not None:
        table.add_column("", width=3, no_wrap=True)
    table.add_column(headings[0], overflow="fold")
    for column, heading in enumerate(headings[1:], 1):
        width = max(cell_len(row[column]) for row in (headings, *rows))
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    if bars is not None:
        table.add_column("", no_wrap=True)
    for place, row in enumerate(rows):
        swatch = [Text("   ", style=f"on {_rgb(colors[place])}")] if colors is not None else []
        table.add_row(*swatch, *map(Text, row), *([bars[place]] if bars is not None else []))
    return table


def _bars(
    shares: Sequence[float] | None, colors: Sequence[Color] | None, room: int, stream: TextIO
) -> list[Bar] | None:
    """Return a bar for each share, the longest for the largest; None where they cannot be shown."""
    width = min(room, _MAX_BAR_COLUMNS)
    if shares is None or width < _MIN_BAR_COLUMNS or "utf" not in (stream.encoding or "").lower():
        return None
    largest = max(shares, default=0) or 1
    return [
        Bar(largest, 0, share, width=width, color=_bar_color(colors[place]) if colors else "default")
        for place, share in enumerate(shares)
    ]


def _bar_color(color: Color) -> str:
    # Black, the background's colour in most palettes, cannot be seen on a dark terminal.
    return _rgb(color) if any(color) else "bright_black"


def _rgb(color: Color) -> str:
    return "rgb({},{},{})".format(*color)


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
