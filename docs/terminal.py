"""Record a terminal session for the README: docs/terminal.svg. Needs a Unix system."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
COLUMNS = 92
# rich's own page, without the fonts that it would load from elsewhere.
SVG = """\
<svg class="{unique_id}" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Run the command on a terminal, and write what it shows."""
    sys.path.insert(0, str(ROOT))
    from tests.conftest import command
    from tests.terminal import BAR, COLORS, on_a_terminal

    arguments = ["segment", "sample_images", "--backbone", "efficientnet_lite0", "-o", "out"]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "sample_images", Path(folder, "sample_images"))
        environment = {"PYTHONPATH": str(ROOT), "COLORTERM": "truecolor"}
        shown = on_a_terminal(command(*arguments), COLUMNS, cwd=Path(folder), environment=environment)
    bars = [bar.strip("\r").removesuffix("\x1b[J") for bar in BAR.findall(shown)]
    # The bar is gone at the end; the picture has it as it was last drawn.
    last = [bar for bar in bars if COLORS.sub("", bar).strip()][-1]
    kept = BAR.sub("", shown).replace("\r", "").rstrip("\n")
    note, _, rest = kept.partition("\n")
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ fcn {' '.join(arguments)}", style="bold"))
    for line in (note, last, *rest.split("\n")):
        console.print(Text.from_ansi(line))
    svg = console.export_svg(title="fcn", theme=MONOKAI, code_format=SVG, unique_id="fcn")
    (ROOT / "docs/terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
