"""The parts of the journal that a run appends to, in an object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..common.output_layout import JOURNAL_PARTS
from ..common.shard import Shard, shard_file
from .part_files import Part, without_superseded

if TYPE_CHECKING:
    from .object_store import ObjectStore

_FOLDED_AT_ONCE = 32


class PartList:
    """The parts of one journal: adds to them, folds them, and removes them.

    All methods that write raise OSError, or OutputLost when another process has written them.

    Parameters
    ----------
    store
        The output directory.
    shard
        The shard whose journal it is, or None.
    found
        The parts that are there.
    """

    def __init__(self, store: ObjectStore, shard: Shard | None, found: Sequence[Part]) -> None:
        self._store = store
        self._prefix = shard_file(JOURNAL_PARTS, shard) + "/"
        self._all = list(found)
        self._counting = without_superseded(found)
        self._next = max((part.last for part in found), default=0) + 1

    @property
    def has_records(self) -> bool:
        """Whether records are in parts."""
        return any(part.size for part in self._counting)

    def add(self, data: bytes, begin: int, read: Callable[[int, int], bytes]) -> None:
        """Write lines, which begin at a byte of the journal, as the next part.

        `read` returns so many bytes of the journal from a place on; parts that are many become one.
        """
        number = self._next
        part = Part(f"{self._prefix}{number:08}.jsonl", number, number, len(data), begin, 0)
        self._store.create(part.name, data)
        self._next += 1
        self._all.append(part)
        self._counting.append(part)
        self._fold(read)

    def supersede(self) -> None:
        """Say that the journal has the records of all parts, and remove these."""
        if self.has_records:
            self._counting = [self._write_range(1, self._next - 1, b"", 0, -1)]
        self.remove_superseded()

    def remove_superseded(self) -> None:
        """Remove the parts that do not count."""
        for part in [part for part in self._all if part not in self._counting]:
            self._store.remove(part.name)
            self._all.remove(part)

    def _fold(self, read: Callable[[int, int], bytes]) -> None:
        """Make one object of the last parts once they are many; of such objects again one, and so on."""
        while True:
            last = self._counting[-_FOLDED_AT_ONCE:]
            if len(last) < _FOLDED_AT_ONCE or {part.level for part in last} != {max(last[0].level, 0)}:
                return
            begin, size = last[0].begin, sum(part.size for part in last)
            data, level = read(begin, size), last[0].level + 1
            folded = self._write_range(last[0].first, last[-1].last, data, begin, level)
            self._counting[-_FOLDED_AT_ONCE:] = [folded]
            self.remove_superseded()

    def _write_range(self, first: int, last: int, data: bytes, begin: int, level: int) -> Part:
        part = Part(f"{self._prefix}{first:08}-{last:08}.jsonl", first, last, len(data), begin, level)
        self._store.write_bytes(part.name, data)
        # It may replace one of the same name.
        self._all = [other for other in self._all if other.name != part.name] + [part]
        return part
