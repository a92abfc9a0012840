"""Where the files of an output directory are: on a disk, or in an object store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from ..common import files
from ..common.errors import FailureKind, ImageError
from ..common.shard import Shard
from .journal_home import JournalHome
from .named_lock import FileLock, NamedLock


class Place(Protocol):
    """Where files can be read by name: a directory as a `Path`, or any `OutputStore`."""

    def __truediv__(self, name: str, /) -> files.ReadableFile:
        """Return the file of a name, which need not exist."""
        ...


class OutputStore(Place, Protocol):
    """The files of an output directory; `str` of it is its path or URL.

    Names are relative POSIX paths. A file under its name is always whole. What writes or removes raises
    OSError where that is refused, and OutputLost once another run holds the directory.
    """

    poll_seconds: float
    """How often to ask for a lock that somebody else holds."""
    passing_seconds: float
    """How long a lock can be held by a run that only begins, ends, or has died."""

    @property
    def lock_note(self) -> str:
        """What else there is to say to somebody who meets another run's lock."""
        ...

    @property
    def is_new(self) -> bool:
        """Whether `make` has found nothing there."""
        ...

    def make(self) -> None:
        """Create the directory, where there is such a thing."""
        ...

    def remove_empty(self) -> None:
        """Remove what `make` has created; nothing is in it."""
        ...

    def write_whole(self, name: str, write: Callable[[BinaryIO], None]) -> int:
        """Create or replace a file atomically, with its directories; return its size in bytes.

        After a power cut it is there only if `sync` was called in between. Raises ImageError where only this
        one name cannot be written.
        """
        ...

    def write_text(self, name: str, text: str) -> None:
        """Create or replace a UTF-8 file at the top atomically and durably."""
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of written files survive a power cut."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file; does nothing where there is none, or where it lies behind a link."""
        ...

    def remove_directory(self, name: str) -> None:
        """Delete a directory that is empty; raises OSError when it is not."""
        ...

    def has_size(self, name: str, size: int) -> bool:
        """Say whether a file exists and has a size in bytes."""
        ...

    def top_names(self) -> list[str]:
        """Return the names of the files at the top; of a missing directory none."""
        ...

    def contents(self) -> Iterator[str]:
        """Yield the names of what is there, of directories too, until one is enough; raises OSError."""
        ...

    def modified(self, name: str) -> float:
        """Return when a file was written, in seconds since 1970 by the clock of where it is."""
        ...

    def sweep(self, prefix: str | None = None, *, below: bool = True) -> None:
        """Delete the temporary files of killed runs, or those with a prefix, at the top or also `below`."""
        ...

    def journals(self, shard: Shard | None) -> JournalHome:
        """Return where the journals are, for a run that appends to the one of its shard."""
        ...

    def lock(self, name: str) -> NamedLock:
        """Return the lock of a name, not taken yet."""
        ...


class LocalStore:
    """An output directory on a disk.

    Every file is written under a temporary name in its final folder, fsynced and renamed.
    """

    poll_seconds = 0.05
    passing_seconds = 8.0
    lock_note = ""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_text = str(root)
        self._real = os.path.realpath(root)
        self._ready: set[str] = set()
        self._created: list[Path] = []

    def __str__(self) -> str:
        return self._root_text

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    @property
    def is_new(self) -> bool:
        """Whether `make` has created the directory."""
        return bool(self._created)

    def make(self) -> None:
        """Create the directory and its missing parents."""
        if not self.root.is_dir():
            self._created = [self.root, *(path for path in self.root.parents if not path.exists())]
            files.make_directories(self.root)

    def remove_empty(self) -> None:
        """Remove the directories that `make` has created."""
        for directory in self._created:
            directory.rmdir()

    def write_whole(self, name: str, write: Callable[[BinaryIO], None]) -> int:
        """Write a file as `files.write_whole` does; see `OutputStore`."""
        # Without pathlib, which is slow.
        path = f"{self._root_text}/{name}"
        self._make_directory(os.path.dirname(path))
        return files.write_whole(path, write)

    def write_text(self, name: str, text: str) -> None:
        """Write a file as `files.write_text` does."""
        files.write_text(self.root / name, text)

    def sync(self, names: Iterable[str]) -> None:
        """Fsync the directories of files."""
        files.sync_directories((self.root / name).parent for name in names)

    def remove(self, name: str) -> None:
        """Delete a file of ours; see `OutputStore`."""
        path = self.root / name
        # A file behind a link is not ours.
        if os.path.realpath(path.parent) == os.path.normpath(os.path.join(self._real, os.path.dirname(name))):
            path.unlink(missing_ok=True)

    def remove_directory(self, name: str) -> None:
        """Delete a directory that is empty."""
        (self.root / name).rmdir()

    def has_size(self, name: str, size: int) -> bool:
        """Say whether a file exists and has a size in bytes."""
        try:
            # Without pathlib, which is slow: a plan asks this for every file.
            status = os.lstat(f"{self._root_text}/{name}")
        except (OSError, ValueError):
            return False
        return status.st_size == size

    def top_names(self) -> list[str]:
        """Return the names of what is in the directory, subdirectories too."""
        try:
            return os.listdir(self.root)
        except FileNotFoundError:
            return []

    def contents(self) -> Iterator[str]:
        """Yield the names of what is in the directory."""
        yield from self.top_names()

    def modified(self, name: str) -> float:
        """Return a file's mtime."""
        return (self.root / name).lstat().st_mtime

    def sweep(self, prefix: str | None = None, *, below: bool = True) -> None:
        """Delete temporary files; see `files.sweep_temporaries`."""
        if prefix is None:
            files.sweep_temporaries(self.root, below=below)
        else:
            files.sweep_temporaries(self.root, prefix, below=below)

    def journals(self, shard: Shard | None) -> JournalHome:  # noqa: ARG002 - as in `OutputStore`
        """Return the directory itself: journals are appended to in their place."""
        return JournalHome(self.root)

    def lock(self, name: str) -> NamedLock:
        """Return a lock that the kernel keeps."""
        return FileLock(self.root / name)

    def _make_directory(self, directory: str) -> None:
        if directory in self._ready and os.path.isdir(directory):
            return
        # Do not create a lost output directory again: its journal and its lock are lost too.
        self.root.stat()
        changed = files.make_directories(Path(directory))
        inside = os.path.normpath(os.path.join(self._real, directory[len(self._root_text) :].lstrip("/")))
        if os.path.realpath(directory) != inside:
            raise ImageError(
                FailureKind.OUTPUT_REFUSED, f"{directory} is a link; outputs are never written through links"
            )
        files.sync_directories(changed)
        self._ready.add(directory)


def as_store(output: Path | OutputStore) -> OutputStore:
    """Return an output directory as a store; a path is one on a disk."""
    return LocalStore(output) if isinstance(output, Path) else output
