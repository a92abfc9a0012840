"""Tables for people: drawn on a terminal, plain columns elsewhere; figures are never truncated."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common.class_names import class_name
from ..common.wording import counted
from .console import one_line, write_line

if TYPE_CHECKING:
    from ..runs.report import Summary

Color = tuple[int, int, int]

_SHOWN_NAMES = 5
_MIN_NAME_COLUMNS = 8
"""The minimum width of the names; narrower tables are unreadable."""

_MIN_BAR_COLUMNS, _MAX_BAR_COLUMNS = 8, 24


def run(summary: Summary) -> None:
    """Print the classes that a run found, on stderr."""
    totals = summary.totals
    rows: list[tuple[str, ...]] = []
    swatches: list[Color] = []
    shares: list[float] = []
    for index, pixels in totals.class_pixels.most_common():
        red, green, blue = summary.palette[index].tolist() if summary.palette is not None else (0, 0, 0)
        swatches.append((red, green, blue))
        shares.append(pixels / totals.pixels)
        rows.append(
            (
                class_name(summary.class_names, index),
                f"{totals.class_images[index]:,}",
                f"{pixels:,}",
                f"{pixels / totals.pixels:.1%}",
            )
        )
    write_table(("class", "images", "pixels", "share"), rows, sys.stderr, swatches, shares)


def _print_line(text: str) -> None:
    write_line(text, sys.stdout)


def bench(figures: dict[str, Any]) -> None:
    """Print the figures of a benchmark."""
    _print_line(
        f"{figures['backbone']}, {figures['width']}x{figures['height']}, batches of {figures['batch_size']}, "
        f"{figures['device']} {figures['precision']}, {figures['kernels']} kernels, "
        f"{counted(figures['threads'], 'thread')}; median of {counted(figures['rounds'], 'round')} in turn"
    )
    _print_line(f"{figures['machine']}, torch {figures['torch']}")
    rows = [
        (
            name,
            contender["precision"],
            f"{contender['images_per_second']:.3f}",
            f"{1 / contender['images_per_second']:.3f}",
            f"{contender['ratio_to_torchvision']:.2f}",
        )
        for name, contender in figures["contenders"].items()
    ]
    write_table(("", "precision", "images/s", "s/image", "of torchvision"), rows, sys.stdout)
    own = figures["contenders"].get("fcn, its own kernels")
    if own is not None:
        ratio = own["images_per_second"] / figures["contenders"]["fcn"]["images_per_second"]
        faster, times = ("its own", ratio) if ratio > 1 else ("PyTorch's", 1 / ratio)
        _print_line(
            f"fcn's own kernels have not been measured on this kind of processor: {faster} are "
            f"{times:.2f} times as fast here; please report this table (--kernels fast uses fcn's)"
        )


def tile_bench(figures: dict[str, Any]) -> None:
    """Print what a megapixel costs in tiles."""
    per_megapixel = figures["seconds_per_megapixel"]
    alone = figures["seconds_per_megapixel_of_a_tile_alone"]
    _print_line(
        f"{figures['backbone']}, {figures['width']}x{figures['height']} in "
        f"{counted(figures['tiles'], 'tile')} of {figures['tile_width']}x{figures['tile_height']} that "
        f"overlap by {figures['overlap']} pixels, batches of {figures['batch_size']}, {figures['device']} "
        f"{figures['precision']}, {figures['kernels']} kernels, {counted(figures['threads'], 'thread')}; "
        f"median of {counted(figures['rounds'], 'round')} in turn"
    )
    _print_line(f"{figures['machine']}, torch {figures['torch']}")
    _print_line(
        f"{per_megapixel:.3f} s per megapixel, {per_megapixel / alone:.2f} times that of a tile alone "
        f"({alone:.3f} s); 12 megapixels take about {12 * per_megapixel:.0f} s"
    )


def evaluation(figures: dict[str, Any]) -> None:
    """Print the figures by class, the means, notes and the protocol."""
    rows = [
        (
            entry["name"],
            *(_percent(entry[figure]) for figure in ("iou", "dice", "precision", "recall")),
            f"{entry['truth_pixels']:,}",
            f"{entry['predicted_pixels']:,}",
            f"{entry['truth_images']:,}",
        )
        for entry in figures["classes"].values()
        if entry["iou"] is not None
    ]
    headings = ("class", "IoU", "Dice", "precision", "recall", "true pixels", "predicted", "images")
    write_table(headings, rows, sys.stdout)
    absent = len(figures["classes_absent"])
    counted_classes = counted(figures["classes_in_mean"], "class", "classes")
    _print_line(
        f"mean IoU {_percent(figures['mean_iou'])} over {counted_classes}"
        + (
            f" ({absent} in neither ground truth nor prediction {'is' if absent == 1 else 'are'} left out)"
            if absent
            else ""
        )
        + f", pixel accuracy {_percent(figures['pixel_accuracy'])}, "
        f"mean accuracy {_percent(figures['mean_accuracy'])}, mean Dice {_percent(figures['mean_dice'])}, "
        f"frequency-weighted IoU {_percent(figures['frequency_weighted_iou'])}"
    )
    _print_line(
        f"{figures['images']} of {counted(figures['images_given'], 'image')}; "
        f"{figures['images_without_truth']} without ground truth, {figures['images_failed']} failed; "
        f"{figures['truth_without_image']} ground truth masks without an image; "
        f"{figures['void_fraction']:.2%} of the ground truth's pixels are ignored"
    )
    for line in _image_notes(figures) + _truth_notes(figures):
        _print_line(line)
    protocol = figures["protocol"]
    _print_line(
        f"protocol {protocol['name']}: {protocol['compared']}; ground truth: {protocol['truth']}; "
        f"{protocol['void']}"
    )


def _image_notes(figures: dict[str, Any]) -> list[str]:
    """Return the notes on the images of an evaluation; empty without any."""
    lines = []
    turned = figures["orientation"]
    if turned["images_turned"]:
        line = (
            f"EXIF rotates {turned['images_turned']} of the images: {turned['taken_upright']} compared "
            f"upright, {turned['taken_as_stored']} as stored (--orientation {turned['asked']})"
        )
        if turned["fit_both_ways"]:
            line += f"; {turned['fit_both_ways']} fit the ground truth in both orientations"
        lines.append(line)
    if figures["images_fed_smaller"]:
        lines.append(
            f"{figures['images_fed_smaller']} long and thin, with a smaller network input than the others"
        )
    lines += [
        f"note on {counted(number, 'image')}: {note}" for note, number in figures["notes_by_kind"].items()
    ]
    return lines


def _truth_notes(figures: dict[str, Any]) -> list[str]:
    """Return the notes on the truth of an evaluation, without which its figures may be misread."""
    lines = []
    true = [entry["name"] for entry in figures["classes"].values() if entry["truth_pixels"]]
    if len(true) == 1 and figures["void_fraction"]:
        lines.append(f"the ground truth has no class except {true[0]}")
    if counts := figures["truth_counts"]:
        lines.append(
            f"annotations: {counts['annotations_used']} used, "
            f"{counts['annotations_of_other_categories']} of other categories (background), "
            f"{counts['annotations_of_unknown_images']} of images that the file does not list, "
            f"{counts['annotations_without_segmentation']} without a segmentation (left out)"
        )
        if missing := counts["categories_missing"]:
            ellipsis = ", …" if len(missing) > _SHOWN_NAMES else ""
            shown = ", ".join(missing[:_SHOWN_NAMES])
            lines.append(f"the ground truth has no category for {len(missing)} classes: {shown}{ellipsis}")
    return lines


def comparison(figures: dict[str, Any]) -> None:
    """Print the figures of a comparison."""
    for name, (in_a, in_b) in figures["settings"].items():
        _print_line(f"{name}: {in_a} in A, {in_b} in B")
    rows = [
        (entry["name"], _percent(entry["iou"]), f"{entry['pixels_a']:,}", f"{entry['pixels_b']:,}")
        for entry in figures["classes"].values()
    ]
    write_table(("class", "IoU", "pixels in A", "pixels in B"), rows, sys.stdout)
    for entry in figures["most_different"]:
        pixels = counted(entry["pixels"], "pixel", grouped=True)
        differ = "differs" if entry["pixels"] == 1 else "differ"
        _print_line(f"{entry['image']}: {pixels} {differ} ({entry['fraction']:.3%})")
    _print_line(
        f"{counted(figures['images'], 'image')}, {figures['images_identical']} identical, "
        f"{figures['images_failed']} failed; "
        f"{figures['only_in_a']} only in A, {figures['only_in_b']} only in B"
    )
    equal = figures["pixels_equal"]
    _print_line(
        f"pixels equal {'none' if equal is None else format(equal, '.4%')}, "
        f"mean IoU of A against B {_percent(figures['mean_iou'])}"
    )


def _percent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{fraction:.2%}"


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
    # Before anything is measured: what an escape takes counts.
    rows = [tuple(map(one_line, row)) for row in rows]
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
            whole = f"  {heading} {figure}"
            for line in [whole] if cell_len(whole) <= width else [f"  {heading}", f"    {figure}"]:
                write_line(line, stream)
