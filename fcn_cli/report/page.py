"""Write a page: HTML from a template, with its assets and its data beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..common import files
from ..common.errors import OutputLost, RequestError
from ..common.output_layout import REPORT_DIRECTORY, REPORT_FILE
from ..outputs.output_store import LocalStore
from .image_store import GRACE_SECONDS, ImageStore
from .scripts import to_json

_HERE = Path(__file__).parent
_ASSETS = ("report.css", "core.js", "table.js", "filters.js", "grid.js", "viewer.js", "main.js")
"""In the order in which the page loads them."""
_IMAGES = "images"
_EDITION = re.compile(r"page-[0-9a-f]{16}")
_FILE_OF_EDITION = re.compile(r"[a-z]+(-[0-9]+)?\.(css|js)")
"""An asset, or a part of a table."""
_MARK = b'<meta name="generator" content="fcn '


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
        foreign = foreign or next(
            (folder / name for name in names if name != _IMAGES and not _EDITION.fullmatch(name)), None
        )
    if foreign is not None:
        raise RequestError(f"{foreign}: not written by fcn, and in the way of a report; move it away")


class Page:
    """A report below a directory: ``report.html``, and ``report/`` with all that it needs.

    ``report/images`` has the pictures. ``report/page-…`` has the style, the scripts and the data of one
    edition of the page; its name is the hash of its content, so that a page never meets the data of another
    one, and two reports that are written at once do not disturb each other. The HTML is written last.

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
        self._store = LocalStore(directory)
        refuse_foreign(directory)
        self.images = ImageStore(self._store, f"{REPORT_DIRECTORY}/{_IMAGES}")

    def write(
        self, template: str, context: Mapping[str, Any], data: Mapping[str, Any], parts: Mapping[str, bytes]
    ) -> None:
        """Write an edition, then the HTML that refers to it; delete editions that are old.

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
        content = {name: (_HERE / "assets" / name).read_bytes() for name in _ASSETS} | dict(parts)
        edition = f"page-{_digest(content)}"
        base = f"{REPORT_DIRECTORY}/{edition}"
        html = (
            _environment()
            .get_template(template)
            .render(
                **context,
                base=base,
                scripts=[name for name in _ASSETS if name.endswith(".js")],
                # Nothing is decoded in a script element, and nothing in this text can end it; see `to_json`.
                data=Markup(to_json({**data, "base": base, "images": f"{REPORT_DIRECTORY}/{_IMAGES}"})),  # noqa: S704
            )
        )
        written = {f"{base}/{name}": text for name, text in content.items()}
        with OutputLost.when_refused(self._store / base):
            with contextlib.suppress(FileNotFoundError):
                # One that is used again is new: no other report shall delete it now.
                os.utime(self._store.safe_path(next(iter(written))).parent)
            for name, text in written.items():
                if not self._store.has_size(name, len(text)):
                    self._store.write_bytes(name, text)
            self._store.sync(written)
        with OutputLost.when_refused(self.path):
            self._store.write_text(REPORT_FILE, html)
        with contextlib.suppress(OSError):
            self._sweep(keep=edition)

    def _sweep(self, keep: str) -> None:
        """Delete the files of old editions, and what this leaves empty; nothing that fcn did not write."""
        old = time.time() - GRACE_SECONDS
        for edition in self._store.entries(REPORT_DIRECTORY):
            if not _EDITION.fullmatch(edition.name) or edition.name == keep:
                continue
            base = f"{REPORT_DIRECTORY}/{edition.name}"
            with contextlib.suppress(OSError):
                if edition.stat(follow_symlinks=False).st_mtime < old:
                    for file in self._store.entries(base):
                        ours = _FILE_OF_EDITION.fullmatch(file.name) or files.is_temporary(file.name)
                        if ours and file.is_file(follow_symlinks=False):
                            self._store.remove(f"{base}/{file.name}")
                    self._store.remove_directory(base)


def _digest(content: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(content.items()):
        digest.update(f"{name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()[:16]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    environment.filters["percent"] = percent
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
