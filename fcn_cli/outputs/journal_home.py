"""Where the journals of an output directory are, as files that can be read and appended to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..common import files


class JournalHome:
    """The journals of a local directory, where they stand.

    In an object store nothing can be appended to, so a subclass keeps copies in a local directory and takes
    what `Journal` does there to the store. All methods but `__init__` raise OSError where that is refused.

    Parameters
    ----------
    directory
        Where the journals are as local files, under their names.
    """

    is_grouped = False
    """Whether appended records may wait for others before they are durable."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def url_of(self, path: Path) -> object:
        """Return what messages call a journal."""
        return path

    def appended(self, lines: bytes, count: int, *, at_once: bool) -> None:
        """Take over whole lines that were appended to the own journal, `at_once` or with later ones."""

    def mended(self, superseded: Iterable[Path] | None) -> None:
        """Take over the own journal as it is now; `superseded` journals go, since it has their records.

        None says that the file is as it was, but for a torn last line.
        """
        if superseded is not None:
            for path in superseded:
                path.unlink(missing_ok=True)
            files.sync_directories([self.directory])

    def set_aside(self, old: Path) -> None:
        """Take over that ``manifest.jsonl`` was renamed."""

    def end(self) -> None:
        """Take over the own journal: nothing is appended to it any more."""

    def close(self) -> None:
        """Give back what is needed no more."""
