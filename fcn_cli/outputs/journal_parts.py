"""The journal of a store that cannot append: written in parts, which are put together at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import OutputLost
from ..common.output_layout import JOURNAL_FILE
from ..common.shard import Shard, shard_file
from ..common.swept_directory import SweptDirectory
from .journal_home import JournalHome
from .part_files import fetch, remove_journal
from .part_list import PartList

if TYPE_CHECKING:
    from .object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Grouping:
    """How long (in seconds), and up to how many, records wait to go into one part."""

    seconds: float = 5.0
    count: int = 500


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
        self._copies = SweptDirectory()
        super().__init__(Path(self._copies.path))
        self._store = store
        self._grouping = grouping
        self._name = shard_file(JOURNAL_FILE, shard)
        self._parts = PartList(store, shard, fetch(store, self.directory).get(self._name, ()))
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
        if superseded is not None or self._parts.has_records:
            self._put_together()
        self._parts.remove_superseded()
        for path in superseded or ():
            path.unlink(missing_ok=True)
            remove_journal(self._store, path.name)
        self._written = self._size()

    def set_aside(self, old: Path) -> None:
        """Rename ``manifest.jsonl``, and forget its parts."""
        self._store.write_bytes(old.name, old.read_bytes())
        self._store.remove(JOURNAL_FILE)
        self._parts.supersede()

    def end(self) -> None:
        """Write what waits, and put all parts together."""
        with self._mutex:
            self._flush()
            self._put_together()

    def close(self) -> None:
        """Delete the copies."""
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
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        try:
            self._parts.add(data, self._written, self._read)
        except (OSError, OutputLost) as error:
            # Whether it was written is not known. Nothing is appended any more.
            self._failure = error
            raise
        self._written += len(data)
        self._waiting, self._count = [], 0
        self._flushed = time.monotonic()

    def _put_together(self) -> None:
        """Write the whole journal as one object; then its parts do not count."""
        self._store.write_bytes(self._name, (self.directory / self._name).read_bytes())
        self._parts.supersede()

    def _read(self, begin: int, size: int) -> bytes:
        with (self.directory / self._name).open("rb") as journal:
            journal.seek(begin)
            return journal.read(size)

    def _size(self) -> int:
        own = self.directory / self._name
        return own.stat().st_size if own.exists() else 0

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
