"""The journals of an output directory: ``manifest.jsonl``, and one for each shard that is not merged yet.

The journals are read in one order: ``manifest.jsonl`` first, then those of shards. The last record of an
image in that order counts. No clock decides, because times of several machines do not compare. It holds:

- The photos of one number of shards are divided, so that only one shard's journal grows for an image.
- While journals of shards exist, nothing is appended to ``manifest.jsonl``: a run without ``--shard`` moves
  their records there before it begins, and so does the first shard of another number of shards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..common import files
from ..common.output_layout import JOURNAL_FILE
from ..common.shard import Shard, shard_file, shard_files

MAX_LINE_BYTES = 1 << 20
"""Far more than any record has."""


def journal_path(output: Path, shard: Shard | None = None) -> Path:
    """Return the path of the journal that a run appends to."""
    return output / shard_file(JOURNAL_FILE, shard)


def open_journals(output: Path) -> list[BinaryIO]:
    """Open all journals of an output directory for reading, in the order in which they count.

    The caller needs no lock: when other processes merge the journals meanwhile, they are opened again.

    Raises
    ------
    OSError
        A journal cannot be read, or the directory cannot be listed.
    """
    while True:
        streams: list[BinaryIO] = []
        with contextlib.ExitStack() as undo:
            for path in _paths(output):
                with contextlib.suppress(FileNotFoundError):
                    streams.append(undo.enter_context(open_for_reading(path)))
            opened = [os.fstat(stream.fileno()) for stream in streams]
            if _identities(opened) == _identities(_on_disk(output)):
                undo.pop_all()
                return streams


def open_for_reading(path: Path) -> BinaryIO:
    """Open a journal; `files.UnfitFile`, an OSError, where it is a link or no file."""
    return open(path, "rb", opener=files.open_regular)


def whole_lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each line of a journal from where its stream is, and where the line ends in the file.

    A torn last line is left out. Of a line with more than `MAX_LINE_BYTES` the beginning comes: it can tell
    its image, and ends so that the line is damaged.
    """
    end = stream.tell()
    while line := stream.readline(MAX_LINE_BYTES):
        end += len(line)
        if not line.endswith(b"\n"):
            rest = line
            while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES)
                end += len(rest)
            if not rest.endswith(b"\n"):
                return
            line += b"\0"
        yield line, end


def are_current(output: Path, before: list[os.stat_result]) -> bool:
    """Say whether the journals of a directory are still the same files, of the same sizes."""

    def state(found: list[os.stat_result]) -> list[tuple[int, int, int]]:
        return [(status.st_dev, status.st_ino, status.st_size) for status in found]

    return state(before) == state(_on_disk(output))


def _paths(output: Path) -> list[Path]:
    return [journal_path(output), *(path for _, path in shard_files(output, JOURNAL_FILE))]


def _on_disk(output: Path) -> list[os.stat_result]:
    found = []
    for path in _paths(output):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.lstat())
    return found


def _identities(found: list[os.stat_result]) -> list[tuple[int, int]]:
    return [(status.st_dev, status.st_ino) for status in found]
