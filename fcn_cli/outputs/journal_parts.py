"""The journal of a store that cannot append: written in parts, which are put together at the end."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..common.errors import OutputLost
from ..common.output_layout import JOURNAL_FILE, JOURNAL_PARTS
from ..common.shard import Shard, shard_file, shards_with
from .journal_home import JournalHome

if TYPE_CHECKING:
    from .object_store import ObjectStore

_PART = re.compile(r"(\d{8})(?:-(\d{8}))?\.jsonl")
_FOLDED_AT_ONCE = 32
_MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Grouping:
    """How long (in seconds), and up to how many, records wait to go into one part."""

    seconds: float = 5.0
    count: int = 500


class Part(NamedTuple):
    """An object that holds the parts from `first` to `last`; an empty one says that they are in the journal.

    `begin` is where its lines begin in the whole journal, in bytes, and `level` how often it was folded;
    both are known for the parts of this run; those of earlier ones have level -1.
    """

    name: str
    first: int
    last: int
    size: int
    begin: int = 0
    level: int = -1


class PartedJournals(JournalHome):
    """The journals of an output directory in an object store, and local copies to work on.

    A journal is the object ``manifest.jsonl``, followed by its parts in order:

    - ``manifest.parts/00000007.jsonl`` holds what was appended at once. It is created only where there is
      none, so that two processes can never write one journal.
    - ``00000001-00000032.jsonl`` holds the parts of these numbers; they do not count, and go.
    - When the run ends, all is written as ``manifest.jsonl``. Then an empty ``00000001-00000050.jsonl`` says
      that these parts do not count; it stays, so that no number ever comes again.

    A kill between any two of these steps changes nothing: parts that are read after a journal that has their
    records already say the same again.

    Parameters
    ----------
    store
        The output directory.
    shard
        The shard whose journal is appended to, or None.
    grouping
        What goes into one part.

    Raises
    ------
    OSError
        A journal cannot be read.
    """

    is_grouped = True

    def __init__(self, store: ObjectStore, shard: Shard | None, grouping: Grouping) -> None:
        self._copies = tempfile.TemporaryDirectory(prefix="fcn-journal-", ignore_cleanup_errors=True)
        super().__init__(Path(self._copies.name))
        self._store = store
        self._grouping = grouping
        self._name = shard_file(JOURNAL_FILE, shard)
        self._prefix = shard_file(JOURNAL_PARTS, shard) + "/"
        found = _fetch(store, self.directory)
        self._parts = found.get(self._name, [])
        self._live = _counting(self._parts)
        self._next = max((part.last for part in self._parts), default=0) + 1
        self._waiting: list[bytes] = []
        self._count, self._written = 0, self._size()
        self._flushed = time.monotonic()
        self._mutex = threading.RLock()
        self._timer: threading.Timer | None = None
        self._failure: OSError | OutputLost | None = None

    def url_of(self, path: Path) -> object:
        """Return the URL of a journal."""
        return f"{self._store}/{path.name}"

    def appended(self, lines: bytes, count: int, *, at_once: bool) -> None:
        """Write lines as a part, now or with later ones."""
        with self._mutex:
            self._waiting.append(lines)
            self._count += count
            is_due = time.monotonic() - self._flushed >= self._grouping.seconds
            if at_once or is_due or self._count >= self._grouping.count:
                self._flush()
            elif self._failure is not None:
                raise self._failure
            elif self._timer is None:
                self._timer = threading.Timer(self._grouping.seconds, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    def mended(self, superseded: Iterable[Path] | None) -> None:
        """Put earlier parts together; see `JournalHome`."""
        if superseded is not None or any(part.size for part in self._live):
            self._put_together()
        self._remove(part for part in self._parts if part not in self._live)
        for path in superseded or ():
            path.unlink(missing_ok=True)
            _remove_journal(self._store, path.name)
        self._written = self._size()

    def set_aside(self, old: Path) -> None:
        """Rename ``manifest.jsonl``, and forget its parts."""
        self._store.write_bytes(old.name, old.read_bytes())
        self._store.remove(JOURNAL_FILE)
        self._supersede_parts()

    def end(self) -> None:
        """Write what waits, and put all parts together."""
        with self._mutex:
            self._flush()
            self._put_together()

    def close(self) -> None:
        """Delete the copies."""
        with self._mutex:
            self._cancel_timer()
        self._copies.cleanup()

    def _flush_late(self) -> None:
        """Write what has waited long enough; the timer's thread, whose error the next call raises."""
        with self._mutex:
            if self._timer is None:
                return
            try:
                self._flush()
            except (OSError, OutputLost) as error:
                self._failure = error

    def _flush(self) -> None:
        self._cancel_timer()
        if self._failure is not None:
            raise self._failure
        if not self._waiting:
            return
        data, number = b"".join(self._waiting), self._next
        part = Part(f"{self._prefix}{number:08}.jsonl", number, number, len(data), self._written, 0)
        try:
            self._store.create(part.name, data)
        except (OSError, OutputLost) as error:
            # Whether it was written is not known. Nothing is appended any more.
            self._failure = error
            raise
        self._next += 1
        self._written += len(data)
        self._waiting, self._count = [], 0
        self._flushed = time.monotonic()
        self._parts.append(part)
        self._live.append(part)
        self._fold()

    def _fold(self) -> None:
        """Make one object of the last parts once they are many; of such objects again one, and so on."""
        while True:
            last = self._live[-_FOLDED_AT_ONCE:]
            if len(last) < _FOLDED_AT_ONCE or {part.level for part in last} != {max(last[0].level, 0)}:
                return
            begin, size = last[0].begin, sum(part.size for part in last)
            with (self.directory / self._name).open("rb") as journal:
                journal.seek(begin)
                data = journal.read(size)
            first, final = last[0].first, last[-1].last
            folded = Part(
                f"{self._prefix}{first:08}-{final:08}.jsonl", first, final, size, begin, last[0].level + 1
            )
            self._store.write_bytes(folded.name, data)
            self._live[-_FOLDED_AT_ONCE:] = [folded]
            self._parts.append(folded)
            self._remove(last)

    def _put_together(self) -> None:
        """Write the whole journal as one object; then its parts do not count."""
        self._store.write_bytes(self._name, (self.directory / self._name).read_bytes())
        self._supersede_parts()

    def _supersede_parts(self) -> None:
        if any(part.size for part in self._live):
            last = self._next - 1
            mark = Part(f"{self._prefix}{1:08}-{last:08}.jsonl", 1, last, 0)
            self._store.write_bytes(mark.name, b"")
            self._remove(part for part in self._parts if part.name != mark.name)
            self._parts, self._live = [mark], [mark]

    def _remove(self, parts: Iterable[Part]) -> None:
        for part in list(parts):
            self._store.remove(part.name)
            self._parts.remove(part)

    def _size(self) -> int:
        own = self.directory / self._name
        return own.stat().st_size if own.exists() else 0

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _fetch(store: ObjectStore, directory: Path) -> dict[str, list[Part]]:
    """Copy all journals into a local directory; return the parts of each.

    It needs no lock: when another process puts parts together meanwhile, this begins again.
    """
    attempts = 0
    while True:
        found, attempts = _find(store), attempts + 1
        try:
            for journal, (names, _) in found.items():
                _copy(store, names, directory / journal)
        except FileNotFoundError:
            if attempts == _MAX_ATTEMPTS:
                raise
            for path in directory.iterdir():
                path.unlink()
            continue
        return {journal: parts for journal, (_, parts) in found.items()}


def _copy(store: ObjectStore, names: Sequence[str], path: Path) -> None:
    if not names:
        return
    with path.open("wb") as copy:
        for data in store.read_all(names):
            copy.write(data)
            if data and not data.endswith(b"\n"):
                # Somebody else cut it off: one damaged line, not two.
                copy.write(b"\n")


def _find(store: ObjectStore) -> dict[str, tuple[list[str], list[Part]]]:
    """Return for each journal the objects to read, in order, and all of its parts."""
    listed = {found.name: found.size or 0 for found in store.list(JOURNAL_FILE.partition(".")[0])}
    folders = {name.partition("/")[0] for name in listed if "/" in name}
    journals = {None, *(shard for shard, _ in shards_with(listed, JOURNAL_FILE))}
    journals |= {shard for shard, _ in shards_with(folders, JOURNAL_PARTS)}
    result = {}
    for shard in journals:
        name = shard_file(JOURNAL_FILE, shard)
        parts = _parts_among(listed, shard_file(JOURNAL_PARTS, shard))
        names = [name] if name in listed else []
        names += [part.name for part in _counting(parts) if part.size]
        if parts or names:
            result[name] = names, parts
    return result


def _parts_among(sizes: dict[str, int], folder: str) -> list[Part]:
    parts = []
    for name, size in sizes.items():
        below, _, number = name.rpartition("/")
        if below == folder and (match := _PART.fullmatch(number)) is not None:
            parts.append(Part(name, int(match[1]), int(match[2] or match[1]), size))
    return parts


def _counting(parts: Iterable[Part]) -> list[Part]:
    """Return the parts that no wider one holds, in order."""
    counting: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.first, -part.last)):
        if not counting or part.last > counting[-1].last:
            counting.append(part)
    return counting


def _remove_journal(store: ObjectStore, name: str) -> None:
    """Delete a journal so that what is left after a kill is what came last: that says the same again."""
    listed = {found.name: found.size or 0 for found in store.list(name.removesuffix(".jsonl"))}
    parts = _parts_among(listed, name.removesuffix(".jsonl") + ".parts")
    counting = _counting(parts)
    for dead in (part for part in parts if part not in counting):
        store.remove(dead.name)
    store.remove(name)
    for part in counting:
        store.remove(part.name)
