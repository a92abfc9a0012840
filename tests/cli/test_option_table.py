"""docs/options.md is what docs/options.py writes from the command line, and it is complete."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from ..conftest import Fcn

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "options.md"


def options_of(command: str) -> set[str]:
    """Return the options that the page describes for a command, or says to be as for another one."""
    start, *sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    section = next(text for text in sections if text.startswith(f"{command}\n"))
    described = re.findall(r"^- `(?:-\w, )?(--[a-z-]+)[^`]*`.*: .*\.$", start + section, re.MULTILINE)
    for other, names in re.findall(r"^As for `(.*)`: (.*)\.$", section, re.MULTILINE):
        elsewhere = set(re.findall(r"`(--[a-z-]+)`", names))
        assert elsewhere <= options_of(other)
        described += elsewhere
    return set(described)


def test_the_option_table_in_the_repository_is_what_the_command_line_says() -> None:
    written = runpy.run_path(str(DOCS / "options.py"))["page"]()
    assert PAGE.read_text(encoding="utf-8") == written, "run `make docs` and commit docs/options.md"


@pytest.mark.parametrize(
    "name", ["segment", "evaluate", "compare", "report", "bench", "info", "weights fetch"]
)
def test_every_option_that_the_help_names_is_described(fcn: Fcn, name: str) -> None:
    text = fcn(*name.split(), "--help").stdout
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)
    assert "--help" in options
    assert set(options) == options_of(f"fcn {name}")
