"""The journals of an output directory in an object store: one object each, followed by its parts."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from ..common.errors import OutputLost
from ..common.output_layout import JOURNAL_FILE, JOURNAL_PARTS
from ..common.shard import shard_file, shards_with
from ..common.stores import StoreObject
from ..common.swept_directory import SweptDirectory
from .output_store import JournalHome

if TYPE_CHECKING:
    from ..common.shard import Shard
    from .bucket_store import BucketStore

PART_BYTES = 4 << 20
"""The last part is written again, with more lines, until it has so many bytes."""

_FIRST = "new"
"""The generation of parts that follow no object."""
_PART = re.compile(r"([0-9A-Za-z]+)-(\d{4,})\.jsonl")
# Parts of 0.2 follow any version of the object; a range holds others, and an empty one what the object has.
_OLD_PART = re.compile(r"(\d{8})(?:-(\d{8}))?\.jsonl")
_MAX_ATTEMPTS = 20
_READS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Grouping:
    """How long (in seconds), and up to how many, records wait to be written together."""

    seconds: float = 5.0
    count: int = 500


@dataclass
class _Stored:
    """A journal in the store: its object, the names of its parts in order, and of all parts there are."""

    found: StoreObject | None = None
    parts: list[str] = field(default_factory=list)
    all_parts: list[str] = field(default_factory=list)

    @property
    def generation(self) -> str:
        """What the names of parts begin with that follow this version of the object."""
        if self.found is None:
            return _FIRST
        version = self.found.etag or f"{self.found.size}x{self.found.mtime_ns}"
        return re.sub("[^0-9A-Za-z]", "", version)


class BucketJournals(JournalHome):
    """The journals of an output directory in an object store, and local copies to work on.

    A journal is the object ``manifest.jsonl``, followed by the parts of its generation:
    ``manifest.parts/<ETag>-0001.jsonl`` and so on, named after the version of the object that they follow. A
    run appends to the last part by writing it again, until it has `PART_BYTES`. When it ends, and before it
    begins where parts are left, all becomes ``manifest.jsonl``: parts of other versions do not count and go,
    before that object changes once more, so no version that had parts ever comes again with them.

    Every write has a condition: that a part or object is not there yet, or still as this process knows it.
    So two processes never write one journal, and a write that hung and comes late changes nothing. (Google's
    store compares and writes in two steps: there a write that comes between them is lost.)

    Parameters
    ----------
    store
        The output directory.
    shard
        The shard whose journal is appended to, or None.
    grouping
        What is written together.

    Raises
    ------
    OSError
        A journal cannot be read.
    """

    is_grouped = True

    def __init__(self, store: BucketStore, shard: Shard | None, grouping: Grouping) -> None:
        self._copies = SweptDirectory()
        super().__init__(Path(self._copies.path))
        self._store = store
        self._grouping = grouping
        self._name = shard_file(JOURNAL_FILE, shard)
        self._folder = shard_file(JOURNAL_PARTS, shard)
        self._stored = _fetch(store, self.directory).get(self._name, _Stored())
        # Of the local copy: where the last part begins, and up to where all is in the store.
        self._part_begin = self._written = self._size()
        self._part_etag: str | None = None
        self._count = 0
        self._flushed = time.monotonic()
        self._mutex = threading.RLock()
        self._timer: threading.Timer | None = None
        self._failure: OSError | OutputLost | None = None

    @override
    def url_of(self, path: Path) -> object:
        return f"{self._store}/{path.name}"

    @override
    def appended(self, lines: bytes, count: int, *, at_once: bool) -> None:
        with self._mutex:
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

    @override
    def consolidated(self, superseded: Iterable[Path] | None) -> None:
        if superseded is not None or self._stored.parts:
            self._consolidate()
        self._remove_parts()
        for path in superseded or ():
            path.unlink(missing_ok=True)
            _remove_journal(self._store, path.name)

    @override
    def set_aside(self, old: Path) -> None:
        self._store.write_bytes(old.name, old.read_bytes())
        self._store.remove(JOURNAL_FILE)
        self._remove_parts()
        self._stored = _Stored()
        self._part_begin = self._written = 0
        self._part_etag = None

    @override
    def end(self) -> None:
        with self._mutex:
            self._flush()
            if self._stored.parts:
                self._consolidate()
                self._remove_parts()

    @override
    def close(self) -> None:
        with self._mutex:
            self._cancel_timer()
        self._copies.remove()

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
        end = self._size()
        if end == self._written:
            return
        try:
            self._write_part(end)
        except (OSError, OutputLost) as error:
            # Whether it was written is not known. Nothing is appended any more.
            self._failure = error
            raise
        self._written, self._count = end, 0
        self._flushed = time.monotonic()

    def _write_part(self, end: int) -> None:
        """Write the last part, up to a byte of the local copy."""
        if self._part_etag is None or self._written - self._part_begin >= PART_BYTES:
            # Numbers of one generation only rise, also where a killed run left gaps.
            number = max((_number(name) for name in self._stored.all_parts), default=0) + 1
            name = f"{self._folder}/{self._stored.generation}-{number:04}.jsonl"
            self._part_begin, self._part_etag = self._written, None
        else:
            name = self._stored.parts[-1]
        with (self.directory / self._name).open("rb") as journal:
            journal.seek(self._part_begin)
            data = journal.read(end - self._part_begin)
        etag = self._store.write_if(name, data, self._part_etag)
        if self._part_etag is None:
            self._stored.parts.append(name)
            self._stored.all_parts.append(name)
        self._part_etag = etag

    def _consolidate(self) -> None:
        """Write the whole journal as its object: a new generation, without parts."""
        data = (self.directory / self._name).read_bytes()
        before = self._stored.found
        self._store.write_if(self._name, data, before.etag if before is not None else None)
        self._stored.found = self._store.objects.info(self._name)
        self._stored.parts = []
        self._part_begin = self._written = len(data)
        self._part_etag = None

    def _remove_parts(self) -> None:
        """Remove the parts that do not count."""
        for name in [name for name in self._stored.all_parts if name not in self._stored.parts]:
            self._store.remove(name)
            self._stored.all_parts.remove(name)

    def _size(self) -> int:
        own = self.directory / self._name
        return own.stat().st_size if own.exists() else 0

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _fetch(store: BucketStore, directory: Path) -> Mapping[str, _Stored]:
    """Copy all journals into a local directory; return what there is of each.

    It needs no lock: when another process changes a journal's object meanwhile, this begins again.
    """
    attempts = 0
    while True:
        found, attempts = _find(store), attempts + 1
        try:
            for journal, stored in found.items():
                _copy(store, stored, journal, directory / journal)
        except FileNotFoundError:
            if attempts == _MAX_ATTEMPTS:
                raise
            for path in directory.iterdir():
                path.unlink()
            continue
        return found


def _copy(store: BucketStore, stored: _Stored, journal: str, path: Path) -> None:
    names = [*([journal] if stored.found is not None else []), *stored.parts]
    if not names:
        return
    with path.open("wb") as copy, ThreadPoolExecutor(_READS_AT_ONCE, "fcn-read") as threads:
        for content in threads.map(store.objects.read, names):
            if content.object.name == journal and stored.found is not None:
                if content.object.etag != stored.found.etag:
                    raise FileNotFoundError(journal)
                stored.found = content.object
            copy.write(content.data)
            if content.data and not content.data.endswith(b"\n"):
                # Somebody else cut it off: one damaged line, not two.
                copy.write(b"\n")


def _find(store: BucketStore) -> dict[str, _Stored]:
    """Return for each journal what there is of it."""
    listed = {found.name: found for found in store.list(JOURNAL_FILE.partition(".")[0])}
    folders = {name.partition("/")[0] for name in listed if "/" in name}
    journals = {None, *(shard for shard, _ in shards_with(listed, JOURNAL_FILE))}
    journals |= {shard for shard, _ in shards_with(folders, JOURNAL_PARTS)}
    result = {}
    for shard in journals:
        stored = _Stored(listed.get(shard_file(JOURNAL_FILE, shard)))
        below = shard_file(JOURNAL_PARTS, shard) + "/"
        sizes = {name.removeprefix(below): listed[name].size for name in listed if name.startswith(below)}
        following = {
            int(match[2]): name
            for name in sizes
            if (match := _PART.fullmatch(name)) is not None and match[1] == stored.generation
        }
        parts = [*_old_parts(sizes), *(following[number] for number in sorted(following))]
        stored.parts = [below + name for name in parts]
        stored.all_parts = [below + n for n in sizes if _PART.fullmatch(n) or _OLD_PART.fullmatch(n)]
        if stored.found is not None or stored.all_parts:
            result[shard_file(JOURNAL_FILE, shard)] = stored
    return result


def _old_parts(sizes: Mapping[str, int | None]) -> Iterator[str]:
    """Yield the parts of 0.2 that have records which count, in order."""
    ranges = []
    for name in sizes:
        if (match := _OLD_PART.fullmatch(name)) is not None:
            ranges.append((int(match[1]), -int(match[2] or match[1]), name))
    last = 0
    for _, negative_last, name in sorted(ranges):
        if -negative_last > last:
            last = -negative_last
            if sizes[name]:
                yield name


def _number(name: str) -> int:
    """Return the number of a part; 0 for those of 0.2."""
    match = _PART.fullmatch(name.rpartition("/")[2])
    return int(match[2]) if match is not None else 0


def _remove_journal(store: BucketStore, name: str) -> None:
    """Delete a journal so that what is left after a kill says nothing, or what came last."""
    stored = _find(store).get(name, _Stored())
    store.remove(name)
    # In order: of parts that follow no object, the later ones may be left.
    for part in sorted(stored.all_parts, key=lambda part: (part in stored.parts, _number(part), part)):
        store.remove(part)
