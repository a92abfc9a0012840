"""The journal of a run: one record a line; the last record of an image counts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..common import files
from ..common.errors import OutputLost
from ..common.output_layout import JOURNAL_FILE
from ..common.shard import Shard
from .journal_files import journal_path, open_for_reading
from .json_text import to_line
from .output_store import OutputStore, as_store
from .record import Record
from .record_index import RecordIndex
from .replay import ReplayedJournal, replay


class Journal:
    """The records of an output directory, replayed into memory, and the journal that a run appends to.

    The records are those of all journals of the directory; see `journal_files`. A torn last line is dropped.
    `damaged` counts the damaged lines elsewhere; their images are lost. An earlier record of such an image
    does not count either, nor does an earlier record of any image whose files were written again since.

    Parameters
    ----------
    output
        The output directory.
    shard
        The shard whose journal is appended to, or None for ``manifest.jsonl``.

    Raises
    ------
    OSError
        A journal cannot be read.
    """

    def __init__(self, output: Path | OutputStore, shard: Shard | None = None) -> None:
        self._store = as_store(output)
        self._home = self._store.journals(shard)
        self._file = journal_path(self._home.directory, shard)
        replayed = replay(self._store, self._home.directory)
        self.index = replayed.index
        self.damaged = replayed.damaged
        self._is_of_shard = shard is not None
        own = replayed.journals.pop(str(self._file), ReplayedJournal())
        self._number, self._whole_bytes, self._line_count = own.number, own.whole_bytes, own.line_count
        self._others = [Path(name) for name in replayed.journals]
        self._stream: BinaryIO | None = None

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
    def kinds(self) -> Collection[str]:
        """The kinds of output that records name."""
        return self.index.kinds

    @property
    def path(self) -> object:
        """What messages call the journal that is appended to: its path or URL."""
        return self._home.url_of(self._file)

    @property
    def size_bytes(self) -> int:
        """The length of the whole lines in the journal that is appended to."""
        return self._whole_bytes

    def mend(self) -> None:
        """Cut a torn last line off, before anything is appended.

        Without a shard also delete damaged lines and files of pruned photos, and take over the records of
        other journals; only the holder of all the directory's locks may. A kill in between loses nothing: the
        other journals go when all their records are here, and say the same as long as they exist. From then
        on the file only grows: ``run.json`` has its length when the work began.
        """
        superseded = None
        if not self._is_of_shard:
            for name in self.index.orphans():
                with contextlib.suppress(OSError):
                    self._store.remove(name)
            if self._others or self.damaged or self._line_count > 2 * len(self.index) + 100:
                self._compact()
                superseded, self._others = self._others, []
        if _cut(self._file, self._whole_bytes) and self._number is not None:
            # Its buffer has the torn line, in the place of the next one.
            self.index.replace_file(self._number, open_for_reading(self._file))
        self._home.mended(superseded)

    def set_aside(self) -> None:
        """Begin anew: the file, of another schema, is renamed; it is kept but never read again."""
        with contextlib.suppress(FileNotFoundError):
            path = self._file.with_name(JOURNAL_FILE)
            old = path.replace(path.with_name(f"{JOURNAL_FILE}.old"))
            files.sync_directories([path.parent])
            self._home.set_aside(old)
        self.index.close()
        self.index, self._number = RecordIndex(), None
        self.damaged = self._whole_bytes = self._line_count = 0

    def append(self, records: Iterable[Record]) -> None:
        """Append records and fsync them; their output files must be on disk before."""
        pairs = [(record, to_line(record.as_json()).encode("ascii") + b"\n") for record in records]
        if not pairs:
            return
        lines = b"".join(line for _, line in pairs)
        at_once = not self._home.is_grouped or _leave_files_out(pairs, self.index)
        self._stream = self._stream or open_for_appending(self._file)
        _append(self._stream, lines, self._whole_bytes)
        self._home.appended(lines, len(pairs), at_once=at_once)
        self._line_count += len(pairs)
        if self._number is None:
            self._number = self.index.add_file(open_for_reading(self._file))
        for record, line in pairs:
            self.index.remember(record, self._number, self._whole_bytes)
            self._whole_bytes += len(line)

    def end_appending(self) -> None:
        """Close the file that was appended to; records can still be read.

        Raises
        ------
        OSError
            In an object store: the last records cannot be written.
        """
        if self._stream is not None:
            # `append` has written and fsynced all records.
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None
            self._home.end()

    def close(self) -> None:
        """Close all files; call `end_appending` before, which says whether all records are written."""
        with contextlib.suppress(OSError, OutputLost):
            self.end_appending()
        self.index.close()
        self._home.close()

    def _compact(self) -> None:
        offsets: list[tuple[str, int]] = []

        def write(stream: BinaryIO) -> None:
            for image, line in self.index.lines(in_order=bool(self._others)):
                offsets.append((image, stream.tell()))
                stream.write(line)
            # Where the system does not replace open files.
            self.index.close()

        self._whole_bytes = files.write_whole(self._file, write)
        files.sync_directories([self._file.parent])
        self.index.move_to(open_for_reading(self._file), offsets)
        self._number, self._line_count = 0, len(offsets)


def open_for_appending(path: Path) -> BinaryIO:
    """Open a journal at its end, without a buffer; a new one's name survives a power cut."""
    new = not os.path.lexists(path)
    stream: BinaryIO = open(path, "ab", buffering=0, opener=files.open_regular)  # noqa: SIM115 - returned
    if new:
        files.sync_directories([path.parent])
    return stream


def _append(stream: BinaryIO, lines: bytes, whole_bytes: int) -> None:
    left = memoryview(lines)
    try:
        while left:
            left = left[stream.write(left) :]
    except OSError:
        # Whoever reads the file next finds whole lines, on a full disk too.
        with contextlib.suppress(OSError):
            stream.truncate(whole_bytes)
        raise
    os.fsync(stream.fileno())


def _cut(path: Path, whole_bytes: int) -> bool:
    """Cut a torn line off the end of a file; say whether there was one."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b", opener=files.open_regular) as stream:
        if stream.seek(0, os.SEEK_END) > whole_bytes:
            stream.truncate(whole_bytes)
            os.fsync(stream.fileno())
            return True
    return False


def _leave_files_out(pairs: Iterable[tuple[Record, bytes]], index: RecordIndex) -> bool:
    """Say whether records no longer name files that earlier ones do: these files may be changed next."""
    for record, _ in pairs:
        earlier = index.get(record.image)
        if record.status == "gone" or (earlier is not None and not {*earlier.outputs} <= {*record.outputs}):
            return True
    return False
