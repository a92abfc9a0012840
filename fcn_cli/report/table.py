"""A table for the page, in parts that it loads when it needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .scripts import to_script


class Table:
    """Rows, written as columns in scripts of `PART` rows: ``photos-0.js``, ``photos-1.js``, ….

    Parameters
    ----------
    name
        The table's name.
    part
        The rows in a part. Scrolling through all of a large table loads part after part; sorting it loads
        all of them.
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
