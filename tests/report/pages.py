"""Read a report as a browser does: the HTML, the data in it, the scripts that it loads later."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in {"script", "style"} else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.data += data
        elif data.strip():
            self.text.append(" ".join(data.split()))


@dataclass
class Page:
    """What a page shows: `data` its scripts start with, `rows` are those of its table of images."""

    root: Path
    html: str
    tags: list[tuple[str, dict[str, str | None]]]
    text: str
    data: dict[str, Any]
    rows: list[dict[str, Any]]

    def row(self, name: str) -> dict[str, Any]:
        (found,) = (row for row in self.rows if row["name"] == name)
        return found

    def picture(self, row: dict[str, Any], what: str, suffix: str = "jpg") -> Path:
        """Return the ``small`` or ``large`` picture of a row, or another file of it."""
        key = str(row["key"])
        middle = f"{what}-{self.data['tags'][what]}" if what in self.data["tags"] else what
        return self.root / str(self.data["pictures"]) / key[:2] / f"{key}-{middle}-{row[what]}.{suffix}"

    def layer(self, row: dict[str, Any], layer: str = "labels") -> Path:
        return self.picture(row, layer, "png")

    def script(self, row: dict[str, Any]) -> Path:
        return self.picture(row, "grid", "js")

    def grid(self, row: dict[str, Any], layer: str = "labels") -> NDArray[np.uint8]:
        value = received(self.script(row), row["key"])
        return decoded(value["layers"][layer]).reshape(value["h"], value["w"])

    def table(self, name: str) -> list[dict[str, Any]]:
        return read_table(self.root / self.data["base"], self.data[name])


def received(path: Path, name: str) -> Any:
    """Return what a data script hands to the page."""
    text = path.read_text(encoding="ascii")
    assert "<" not in text
    start = f"fcnReport.receive({json.dumps(name)},"
    assert text.startswith(start)
    assert text.endswith(");\n")
    return json.loads(text[len(start) : -3])


def decoded(runs: list[int]) -> NDArray[np.uint8]:
    values, lengths = runs[::2], runs[1::2]
    return np.repeat(np.array(values, np.uint8), lengths)


def read_table(folder: Path, table: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in range(-(-table["rows"] // table["part"])):
        name = f"{table['name']}-{part}"
        columns = received(folder / f"{name}.js", name)
        rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    assert len(rows) == table["rows"]
    return rows


def read_page(directory: Path) -> Page:
    html = (directory / "report.html").read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(html)
    data = json.loads(reader.data)
    rows = read_table(directory / data["base"], data["images"])
    for _, attributes in reader.tags:
        # Everything is beside the page, and nothing runs but its scripts.
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            if (target := attributes.get(name)) is not None:
                assert target.startswith("#") or target == "data:," or (directory / target).is_file(), target
    return Page(directory, html, reader.tags, " ".join(reader.text), data, rows)


def percent_in(text: str) -> float:
    (number,) = re.findall(r"([\d.]+) %", text)
    return float(number) / 100
