"""The journal, ``manifest.jsonl``: one record a line; the last record of an image counts."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..common import files
from ..common.output_layout import JOURNAL_FILE
from ..inputs.collisions import folded
from .json_text import to_line
from .record import Record

_IMAGE = re.compile(rb'\{"image": ("(?:[^"\\]|\\.)*"), "source"')
# A record's time has whole seconds, and file systems keep times in steps of up to two.
_TIME_SLACK_SECONDS = 3.0


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

    def lines(self) -> Iterable[bytes]:
        """Return the last line of each image, without line ends, in the order of the journal."""
        return self._lines.values()

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


class Journal:
    """The journal of an output directory, replayed into memory and appended to by its one holder.

    A torn last line is dropped. `damaged` counts the damaged lines elsewhere; their images are lost. An
    earlier record of such an image does not count either, nor does an earlier record of any image whose files
    were written again since.

    Raises
    ------
    OSError
        The journal cannot be read.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / JOURNAL_FILE
        self.index = RecordIndex()
        self.damaged = 0
        self._whole_bytes = 0
        self._line_count = 0
        self._stream: BinaryIO | None = None
        self._replay()

    def __iter__(self) -> Iterator[Record]:
        return iter(self.index)

    def __len__(self) -> int:
        return len(self.index)

    def get(self, image: str) -> Record | None:
        """Return the last record of an image."""
        return self.index.get(image)

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""
        return self.index.owner(output)

    @property
    def size_bytes(self) -> int:
        """The length of the journal's whole lines."""
        return self._whole_bytes

    def mend(self) -> None:
        """Delete damaged lines and files of pruned photos; only the holder of the directory's lock may.

        Rewrites the file when most of its lines are superseded. From then on it only grows: ``run.json`` has
        its length when the work began.
        """
        for name in self.index.orphans():
            with contextlib.suppress(OSError):
                (self.path.parent / name).unlink()
        if self.damaged or self._line_count > 2 * len(self.index) + 100:
            self._compact()
        with contextlib.suppress(FileNotFoundError), self.path.open("r+b") as stream:
            if stream.seek(0, os.SEEK_END) > self._whole_bytes:
                stream.truncate(self._whole_bytes)
                os.fsync(stream.fileno())

    def set_aside(self) -> None:
        """Begin anew: the file, of another schema, is renamed; it is kept but never read again."""
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(self.path.with_name(f"{JOURNAL_FILE}.old"))
            files.sync_directories([self.path.parent])
        self.index = RecordIndex()
        self.damaged = self._whole_bytes = self._line_count = 0

    def append(self, records: Iterable[Record]) -> None:
        """Append records and fsync them; their output files must be on disk before."""
        pairs = [(record, to_line(record.as_json()).encode("ascii")) for record in records]
        if not pairs:
            return
        data = b"".join(line + b"\n" for _, line in pairs)
        self._stream = self._stream or self._open()
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._whole_bytes += len(data)
        self._line_count += len(pairs)
        for record, line in pairs:
            self.index.remember(record, line)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            # A last flush can fail on a full disk; `append` has flushed and fsynced all records.
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None

    def _open(self) -> BinaryIO:
        """Open the file for appending."""
        new = not self.path.exists()
        stream = self.path.open("ab")
        if new:
            files.sync_directories([self.path.parent])
        return stream

    def _replay(self) -> None:
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        doubtful: set[str] = set()
        with stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._whole_bytes += len(line)
                self._line_count += 1
                try:
                    record = Record.from_json(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.damaged += 1
                    doubtful |= self._lose(line)
                    continue
                doubtful.discard(record.image)
                self.index.remember(record, line.rstrip(b"\n"))
        for image in doubtful:
            found = self.index.get(image)
            if found is not None and was_rewritten(self.path.parent, found):
                self.index.forget(image)

    def _lose(self, line: bytes) -> set[str]:
        """Remove the image of a damaged line; if it is unknown, return all images the line may be of."""
        image = image_of_damaged(line)
        if image is None:
            return set(self.index.images())
        self.index.forget(image)
        return set()

    def _compact(self) -> None:
        lines = [line + b"\n" for line in self.index.lines()]
        files.write_whole(self.path, lambda stream: stream.writelines(lines))
        files.sync_directories([self.path.parent])
        self.index.forget_gone()
        self._whole_bytes = sum(map(len, lines))
        self._line_count = len(lines)


def image_of_damaged(line: bytes) -> str | None:
    """Return the image that a damaged line is of, or None when that cannot be told."""
    named = _IMAGE.match(line)
    with contextlib.suppress(ValueError):
        if named is not None:
            image: str = json.loads(named[1])
            return image
    return None


def was_rewritten(output: Path, record: Record) -> bool:
    """Say whether a file of a record was written after the record, for another one that is lost."""
    finished = record.finished_seconds()
    for name in record.outputs:
        with contextlib.suppress(OSError):
            if (output / name).lstat().st_mtime > finished + _TIME_SLACK_SECONDS:
                return True
    return False
