"""docs/options.md is what docs/options.py writes from the command line, and it is complete."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from ..conftest import Fcn, run_line

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "options.md"


def section(heading: str) -> str:
    """Return what the page says of one command."""
    return PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_option_table_in_the_repository_is_what_the_command_line_says() -> None:
    written = runpy.run_path(str(DOCS / "options.py"))["page"]()
    assert PAGE.read_text(encoding="utf-8") == written, "run `make docs` and commit docs/options.md"


@pytest.mark.parametrize(
    "name", ["segment", "evaluate", "compare", "report", "bench", "info", "weights fetch"]
)
def test_every_option_that_the_help_names_has_a_row(fcn: Fcn, name: str) -> None:
    text = fcn(*name.split(), "--help").stdout
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)
    assert "--help" in options
    rows = section(f"fcn {name}")
    for option in options:
        assert re.search(rf"^\| `(?:-\w, )?{option}[ `]", rows, re.MULTILINE), option


def test_the_script_writes_the_page_beside_itself(tmp_path: Path) -> None:
    script = tmp_path / "options.py"
    script.write_text((DOCS / "options.py").read_text(encoding="utf-8"), encoding="utf-8")
    run_line([sys.executable, script])
    assert (tmp_path / "options.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
