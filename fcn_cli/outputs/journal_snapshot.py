"""The records of a directory that count, streamed, for commands that read a million without a lock."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..common.errors import RequestError
from ..inputs.collisions import folded
from .journal_files import are_current, open_journals, whole_lines
from .output_store import LocalStore
from .record import Record
from .replay import image_of_damaged, was_rewritten
from .settings import require_output_directory


class JournalSnapshot:
    """The records of an output directory at one moment, in the order of its journals.

    They are those of a `Journal`. This class keeps 64-bit hashes of names instead of lines (about 50 bytes
    for a photo, while it is made), and reads each record from the file when it is asked for. What a run
    appends later, or a rewritten file, does not change a snapshot. (Two of a million names have the same hash
    with a probability of less than 1 in a million.) `damaged` counts the damaged lines.

    Parameters
    ----------
    output
        The output directory.

    Raises
    ------
    RequestError
        It is no output directory of this version, or its journal cannot be read.
    """

    def __init__(self, output: Path) -> None:
        require_output_directory(output)
        self._output = output
        self._store = LocalStore(output)
        self._keys, self._key_lines = array("q"), array("q")
        self._line = self._last_unknown = -1
        self.damaged = 0
        self._gone = array("q")
        try:
            self._streams = open_journals(output)
            self._status = [os.fstat(stream.fileno()) for stream in self._streams]
            self._line_counts: list[int] = []
            self._live = self._find_live()
        except OSError as error:
            raise RequestError(f"{output}: its journal cannot be read ({error.strerror})") from None

    def __len__(self) -> int:
        """Return the number of records; a few of them may not count after damage to the journal."""
        return int(np.count_nonzero(self._live))

    def __iter__(self) -> Iterator[Record]:
        for number, (live, line) in enumerate(zip(self._live, self._lines(), strict=True)):
            if live:
                record = Record.from_line(line)
                if number > self._last_unknown or not was_rewritten(self._store, record):
                    yield record

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines that were read, again."""
        for stream, count in zip(self._streams, self._line_counts, strict=True):
            stream.seek(0)
            yield from (line for line, _ in itertools.islice(whole_lines(stream), count))

    def __enter__(self) -> JournalSnapshot:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.close()

    @property
    def is_current(self) -> bool:
        """Whether the journals are still as they were read."""
        return are_current(self._output, self._status)

    def _find_live(self) -> NDArray[np.bool_]:
        """Return for each line whether its record counts."""
        for stream in self._streams:
            before = self._line
            for line, _ in whole_lines(stream):
                self._line += 1
                self._read(line)
            self._line_counts.append(self._line - before)
        live = self._lines_with_last_keys()
        live[np.frombuffer(self._gone, np.int64)] = False
        del self._keys, self._key_lines, self._gone
        return live

    def _read(self, line: bytes) -> None:
        try:
            record = Record.from_line(line)
        except ValueError:
            self._lose(line)
            return
        self._add(f"\0{record.image}")
        if record.status == "gone":
            self._gone.append(self._line)
            return
        for output in {folded(output) for output in record.outputs}:
            self._add(output)

    def _lose(self, line: bytes) -> None:
        """Supersede the records of a damaged line's image; if it is unknown, remember that they may be."""
        self.damaged += 1
        image = image_of_damaged(line)
        if image is None:
            self._last_unknown = self._line
        else:
            self._add(f"\0{image}")
        self._gone.append(self._line)

    def _add(self, key: str) -> None:
        self._keys.append(hash(key))
        self._key_lines.append(self._line)

    def _lines_with_last_keys(self) -> NDArray[np.bool_]:
        """Return for each line whether no later line has one of its keys: its image, its output files.

        A later line with its image is a later record. A later line with one of its files belongs to another
        image, which has taken the file over.
        """
        keys, lines = np.frombuffer(self._keys, np.int64), np.frombuffer(self._key_lines, np.int64)
        # Stable, so that each key's lines stay in order.
        order = np.argsort(keys, kind="stable")
        is_last = np.ones(len(order), np.bool_)
        is_last[:-1] = keys[order][1:] != keys[order][:-1]
        live = np.ones(self._line + 1, np.bool_)
        live[lines[order[~is_last]]] = False
        return live
