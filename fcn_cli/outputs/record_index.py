"""The records of a directory in memory: the last one of each image, and which image owns which file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ..inputs.collisions import folded
from .record import Record


class RecordIndex:
    """The last record of each image in memory, and which image owns which output file.

    An image leaves the index when its output file is written for another image. Names of output files are
    compared as a case-insensitive file system does.
    """

    def __init__(self) -> None:
        # Lines take less memory than records, and a night's run has hundreds of thousands of them.
        self._lines: dict[str, bytes] = {}
        self._owners: dict[str, str] = {}
        self._gone: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Record]:
        for image in sorted(self._lines):
            yield Record.from_json(json.loads(self._lines[image]))

    def images(self) -> Iterable[str]:
        """Return the names of all images."""
        return self._lines.keys()

    def lines(self, *, in_order: bool) -> Iterable[bytes]:
        """Return the last line of each image, without line ends, in order of images or as they came."""
        return (self._lines[image] for image in sorted(self._lines)) if in_order else self._lines.values()

    def get(self, image: str) -> Record | None:
        """Return the last record of an image, or None when there is none or the photo was pruned."""
        line = self._lines.get(image)
        return Record.from_json(json.loads(line)) if line is not None else None

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""
        return self._owners.get(folded(output))

    def orphans(self) -> list[str]:
        """Return output files of pruned photos that no other record names."""
        return [name for names in self._gone.values() for name in names if self.owner(name) is None]

    def remember(self, record: Record, line: bytes) -> None:
        """Add a record and its line."""
        if record.status == "gone":
            self.forget(record.image)
            self._gone[record.image] = record.outputs
            return
        for output in record.outputs:
            previous = self.owner(output)
            if previous is not None and previous != record.image:
                self.forget(previous)
        self.forget(record.image)
        self._gone.pop(record.image, None)
        self._lines[record.image] = line
        for output in record.outputs:
            self._owners[folded(output)] = record.image

    def forget(self, image: str) -> None:
        """Remove an image."""
        line = self._lines.pop(image, None)
        if line is not None:
            for output in Record.from_json(json.loads(line)).outputs:
                if self.owner(output) == image:
                    del self._owners[folded(output)]

    def forget_gone(self) -> None:
        """Forget the output files of pruned photos."""
        self._gone.clear()
