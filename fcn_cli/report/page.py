"""Write a page: HTML from a template, with assets and data beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..common import files
from ..common.errors import OutputLost, RequestError
from ..common.output_layout import REPORT_DIRECTORY, REPORT_FILE
from ..outputs.output_store import LocalStore

PER_PAGE = 200
"""Images that the page shows at a time, and failures."""
PICTURES = f"{REPORT_DIRECTORY}/images"

_HERE = Path(__file__).parent
_ASSETS = ("report.css", "core.js", "table.js", "filters.js", "grid.js", "viewer.js", "main.js")
"""In the order in which the page loads them."""
_PAGE = re.compile(r"page-[0-9a-f]{16}")
_FILE = re.compile(r"[a-z]+(-[0-9]+)?\.(css|js)")
"""An asset, or a part of a table."""
_MARK = b'<meta name="generator" content="fcn '
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def to_json(value: Any) -> str:
    r"""Return compact ASCII JSON without ``<``, ``>`` and ``&``.

    Such text can stand in a script element: nothing in it ends the element or begins a comment. In ASCII, the
    line separators U+2028 and U+2029 are escaped too.
    """
    # Outside of strings JSON has none of the three characters.
    return json.dumps(value, separators=(",", ":")).translate(_ESCAPES)


def to_script(name: str, value: Any) -> bytes:
    """Return a script that hands a value to the page: from ``file://`` it can load nothing else on demand."""
    return f"fcnReport.receive({to_json(name)},{to_json(value)});\n".encode("ascii")


class Table:
    """Rows, as columns in scripts of `part` rows each: ``images-0.js``, ``images-1.js``, ….

    The page loads those that it needs: part after part while one turns its pages, all of them to sort.
    """

    def __init__(self, name: str, part: int) -> None:
        self.name = name
        self.part = part
        self.rows = 0
        self.files: dict[str, bytes] = {}
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; all rows have the same keys."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == self.part:
            self._write()

    def finish(self) -> dict[str, bytes]:
        """Return file name → content of all parts."""
        if self._waiting:
            self._write()
        return self.files

    def describe(self) -> dict[str, Any]:
        """Return what the page must know to load the table."""
        return {"name": self.name, "rows": self.rows, "part": self.part}

    def _write(self) -> None:
        name = f"{self.name}-{len(self.files)}"
        columns = {key: [row[key] for row in self._waiting] for key in self._waiting[0]}
        self.files[f"{name}.js"] = to_script(name, columns)
        self._waiting.clear()


def is_page(path: Path) -> bool:
    """Say whether a file is a page of ours."""
    try:
        return _MARK in files.read_start(path)
    except OSError:
        return False


def refuse_foreign(directory: Path) -> None:
    """Raise RequestError where somebody else's ``report.html`` or ``report/`` is in the way of a report."""
    page, folder = directory / REPORT_FILE, directory / REPORT_DIRECTORY
    foreign = page if os.path.lexists(page) and not is_page(page) else None
    with contextlib.suppress(OSError):
        names = (entry.name for entry in os.scandir(folder) if entry.name[:1] != ".")
        pictures = os.path.basename(PICTURES)
        foreign = foreign or next(
            (folder / name for name in names if name != pictures and not _PAGE.fullmatch(name)), None
        )
    if foreign is not None:
        raise RequestError(f"{foreign}: not written by fcn, and in the way of a report; move it away")


class Page:
    """A report below a directory: ``report.html``, and ``report/`` with all that it needs.

    Style, scripts and data are built beside those of the page that is there, in a directory of a name that
    nobody can foresee; replacing ``report.html`` puts them in its place, and the old ones go. So there is
    always one whole page, and nothing that lay there before is run.

    Parameters
    ----------
    directory
        Where ``report.html`` goes.

    Raises
    ------
    RequestError
        Something there is not ours.
    OutputLost
        The directory cannot be listed, or is a link to elsewhere.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / REPORT_FILE
        self.store = LocalStore(directory)
        refuse_foreign(directory)
        with OutputLost.when_refused(directory / REPORT_DIRECTORY):
            entries = self.store.entries(REPORT_DIRECTORY)
        self._before = [entry.name for entry in entries if _PAGE.fullmatch(entry.name)]

    def write(
        self, template: str, context: Mapping[str, Any], data: Mapping[str, Any], parts: Mapping[str, bytes]
    ) -> None:
        """Write style, scripts and data, then the HTML that refers to them; delete those of earlier pages.

        Parameters
        ----------
        template
            The name of the template.
        context
            What the template shows.
        data
            What the scripts start with.
        parts
            File name → content of the data that the page loads later.

        Raises
        ------
        OutputLost
            A file cannot be written. The earlier page is unchanged then.
        """
        base = f"{REPORT_DIRECTORY}/page-{secrets.token_hex(8)}"
        html = (
            _environment()
            .get_template(template)
            .render(
                **context,
                base=base,
                scripts=[name for name in _ASSETS if name.endswith(".js")],
                # Nothing is decoded in a script element, and nothing in this text can end it; see `to_json`.
                data=Markup(to_json({**data, "base": base, "pictures": PICTURES})),  # noqa: S704
            )
        )
        content = {name: (_HERE / "assets" / name).read_bytes() for name in _ASSETS} | dict(parts)
        try:
            with OutputLost.when_refused(self.store / base):
                for name, text in content.items():
                    self.store.write_bytes(f"{base}/{name}", text)
                self.store.sync(f"{base}/{name}" for name in content)
            with OutputLost.when_refused(self.path):
                self.store.write_text(REPORT_FILE, html)
        except BaseException:
            self._remove(base)
            raise
        # What has come since this report began is that of another one.
        for name in self._before:
            self._remove(f"{REPORT_DIRECTORY}/{name}")

    def _remove(self, base: str) -> None:
        """Delete the files of a page, and what this leaves empty; nothing that fcn did not write."""
        with contextlib.suppress(OSError):
            for file in self.store.entries(base):
                ours = _FILE.fullmatch(file.name) or files.is_temporary(file.name)
                if ours and file.is_file(follow_symlinks=False):
                    self.store.remove(f"{base}/{file.name}")
            self.store.remove_directory(base)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # As the page's scripts and the command line write them.
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["percent"] = percent
    environment.filters["three_digits"] = lambda number: (
        f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
    )
    return environment


def percent(share: float | None) -> str:
    """Return a fraction from 0 to 1 as a percentage that is never 0 or 100 by rounding; a dash for None."""
    if share is None:
        return "\N{EN DASH}"
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share:.1%}".replace("%", " %")
