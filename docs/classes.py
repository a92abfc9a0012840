"""Draw classes.svg, the README's table of classes with their colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES, class_name
from fcn_cli.common.label_map import VOID_INDEX

PICTURE = Path(__file__).with_suffix(".svg")
COLUMNS, WIDTH, LINE = 3, 230, 26
SHOWN = (*range(len(VOC_CLASSES)), VOID_INDEX)


def picture() -> str:
    """Return the table: index, colour in hub, colour in bright, and name of each class."""
    rows = -(-len(SHOWN) // COLUMNS)
    width, height = COLUMNS * WIDTH, (rows + 1) * LINE + 12
    cells = [cell for column in range(COLUMNS) for cell in _column(column, rows)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
            ' font-family="sans-serif" font-size="14">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *cells,
            "</svg>\n",
        ]
    )


def _column(column: int, rows: int) -> Iterator[str]:
    left = column * WIDTH
    for text, x in (("hub", left + 54), ("bright", left + 92)):
        yield f'<text x="{x}" y="20" text-anchor="middle" font-size="12" fill="#57606a">{text}</text>'
    colors = (palettes.hub(), palettes.bright())
    for row, index in enumerate(SHOWN[column * rows : (column + 1) * rows]):
        top = (row + 1) * LINE + 2
        yield f'<text x="{left + 34}" y="{top + 15}" text-anchor="end" fill="#57606a">{index}</text>'
        for x, palette in zip((left + 44, left + 82), colors, strict=True):
            color = "#" + bytes(palette[index]).hex()
            yield f'<rect x="{x}" y="{top}" width="20" height="20" fill="{color}" stroke="#8c959f"/>'
        yield f'<text x="{left + 114}" y="{top + 15}" fill="#1f2328">{class_name(VOC_CLASSES, index)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
