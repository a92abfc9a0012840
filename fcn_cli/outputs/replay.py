"""Reads the journals of an output directory into an index of records."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..common import resources
from .journal_files import open_journals, whole_lines
from .output_store import OutputStore
from .record import Record
from .record_index import RecordIndex

_IMAGE = re.compile(rb'\{"image": ("(?:[^"\\]|\\.)*"), "source"')
# A record's time has whole seconds, and file systems keep times in steps of up to two.
_TIME_SLACK_SECONDS = 3.0


@dataclass(slots=True)
class ReplayedJournal:
    """One journal: its number in the index, and the bytes and number of its whole lines."""

    number: int | None = None
    whole_bytes: int = 0
    line_count: int = 0


@dataclass(slots=True)
class Replayed:
    """The records of a directory, its journals by path, and the number of damaged lines."""

    index: RecordIndex = field(default_factory=RecordIndex)
    journals: dict[str, ReplayedJournal] = field(default_factory=dict)
    damaged: int = 0


@resources.without_cycle_collection()
def replay(store: OutputStore, journals: Path) -> Replayed:
    """Read all journals of a directory, in the order in which they count.

    Parameters
    ----------
    store
        The output directory.
    journals
        The local directory that has its journals.

    Raises
    ------
    OSError
        A journal cannot be read.
    """
    result = Replayed()
    doubtful: set[str] = set()
    for stream in open_journals(journals):
        journal = ReplayedJournal(result.index.add_file(stream))
        result.journals[stream.name] = journal
        _replay_one(stream, journal, result, doubtful)
    for image in doubtful:
        found = result.index.get(image)
        if found is not None and was_rewritten(store, found):
            result.index.forget(image)
    return result


def _replay_one(stream: BinaryIO, journal: ReplayedJournal, result: Replayed, doubtful: set[str]) -> None:
    index, number = result.index, journal.number
    assert number is not None  # noqa: S101 - the index has given it
    for line, end in whole_lines(stream):
        begin, reads = journal.whole_bytes, index.read_count
        journal.whole_bytes = end
        journal.line_count += 1
        try:
            record = Record.from_line(line)
        except ValueError:
            result.damaged += 1
            doubtful |= _lose(line, index)
        else:
            doubtful.discard(record.image)
            index.remember(record, number, begin)
        if index.read_count != reads:
            # The record that this one supersedes was read again, perhaps from this file.
            stream.seek(journal.whole_bytes)


def _lose(line: bytes, index: RecordIndex) -> set[str]:
    """Remove the image of a damaged line; if it is unknown, return all images the line may be of."""
    image = image_of_damaged(line)
    if image is None:
        return set(index.images())
    index.forget(image)
    return set()


def image_of_damaged(line: bytes) -> str | None:
    """Return the image that a damaged line is of, or None when that cannot be told."""
    named = _IMAGE.match(line)
    with contextlib.suppress(ValueError):
        if named is not None:
            image: str = json.loads(named[1])
            return image
    return None


def was_rewritten(store: OutputStore, record: Record) -> bool:
    """Say whether a file of a record was written after the record, for another one that is lost."""
    finished = record.finished_seconds()
    for name in record.outputs:
        with contextlib.suppress(OSError):
            if store.modified(name) > finished + _TIME_SLACK_SECONDS:
                return True
    return False
