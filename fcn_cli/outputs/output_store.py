"""Where output files are: on a disk, or in an object store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from typing_extensions import override

from ..common import files
from ..common.output_layout import JOURNAL_FILE
from ..common.shard import Shard, shards_with
from .lock import Claim, FileLock, Holder, Lock


class ReadableDirectory(Protocol):
    """Where files can be read by name: a directory as a `Path`, or any `OutputStore`."""

    def __truediv__(self, name: str, /) -> files.ReadableFile:
        """Return the file of a name, which need not exist."""
        ...


class OutputStore(ReadableDirectory, Protocol):
    """The files of an output directory; `str` of it is its path or URL.

    Names are relative POSIX paths. A file under its name is always whole. What writes or removes raises
    OSError where that is refused, and OutputLost once another run holds the directory.
    """

    poll_seconds: float
    """How often to ask for a lock that somebody else holds."""
    passing_seconds: float
    """How long a lock can be held by who only begins, or has died."""

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

    def write_whole(
        self, name: str, write: Callable[[BinaryIO], None], permissions: files.Permissions | None = None
    ) -> int:
        """Create or replace a file atomically, with its directories; return its size in bytes.

        `permissions` are as in `files.create`, where there is such a thing. After a power cut it is there
        only if `sync` was called in between. Raises ImageError where only this one name cannot be written.
        """
        ...

    def write_text(self, name: str, text: str) -> None:
        """Create or replace a UTF-8 file at the top atomically and durably."""
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of written files survive a power cut."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file; does nothing where there is none. What lies behind a link is not ours: OSError."""
        ...

    def remove_directory(self, name: str) -> None:
        """Delete a directory that is empty; raises OSError when it is not."""
        ...

    def has_size(self, name: str, size: int) -> bool:
        """Say whether a file exists, not behind a link, and has a size in bytes."""
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

    def journals(self, shard: Shard | None) -> JournalHome:
        """Return where the journals are, for a run that appends to the one of its shard."""
        ...

    def journal_shards(self) -> set[Shard]:
        """Return the shards that have a journal which is not merged yet."""
        ...

    def lock(self, claim: Claim) -> Lock:
        """Return the lock of a claim, not taken yet."""
        ...

    def holder(self) -> Holder | None:
        """Return who works in the whole directory, not in a shard of it; raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below an output directory on a disk, for reading; see `files.StoredFile`."""

    store: LocalStore
    name: str

    def __str__(self) -> str:
        return f"{self.store}/{self.name}"

    def read_bytes(self) -> bytes:
        with open(files.open_regular(self.store.safe_path(self.name)), "rb") as stream:
            return stream.read()

    def read_small(self, limit: int) -> bytes:
        return files.read_small(self.store.safe_path(self.name), limit)


class LocalStore(OutputStore):
    """An output directory on a disk, which anybody may have prepared.

    Every file is written under a temporary name in its final folder, fsynced and renamed. Nothing below the
    directory is read, written or removed through a link, so that nothing outside is; the directory itself
    may be one. Names come from records, too: see `output_layout.is_output_file`.
    """

    poll_seconds = 0.05
    passing_seconds = 30.0
    lock_note = ""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_text = str(root)
        self._real = os.path.realpath(root)
        self._ready: set[str] = set()
        self._inside: dict[str, bool] = {"": True}
        self._created: list[Path] = []

    def __str__(self) -> str:
        return self._root_text

    @override
    def __truediv__(self, name: str) -> LocalFile:
        return LocalFile(self, name)

    def safe_path(self, name: str) -> Path:
        """Return the path of a file whose directory is not behind a link; else raise `files.UnfitFile`."""
        folder = name.rpartition("/")[0]
        if not self._is_inside(folder):
            raise _behind_a_link(f"{self._root_text}/{folder}")
        return self.root / name

    @property
    @override
    def is_new(self) -> bool:
        return bool(self._created)

    @override
    def make(self) -> None:
        if not self.root.is_dir():
            self._created = [self.root, *(path for path in self.root.parents if not path.exists())]
            files.make_directories(self.root)

    @override
    def remove_empty(self) -> None:
        for directory in self._created:
            directory.rmdir()

    @override
    def write_whole(
        self, name: str, write: Callable[[BinaryIO], None], permissions: files.Permissions | None = None
    ) -> int:
        self._make_directory(name.rpartition("/")[0])
        # Without pathlib, which is slow.
        return files.write_whole(f"{self._root_text}/{name}", write, permissions)

    def write_bytes(self, name: str, data: bytes, permissions: files.Permissions | None = None) -> None:
        """Create or replace a file atomically, with its directories; `sync` makes it survive a power cut."""
        self._make_directory(name.rpartition("/")[0])
        files.write_bytes(self.root / name, data, permissions)

    @override
    def write_text(self, name: str, text: str) -> None:
        files.write_text(self.root / name, text)

    @override
    def sync(self, names: Iterable[str]) -> None:
        files.sync_directories((self.root / name).parent for name in names)

    @override
    def remove(self, name: str) -> None:
        path = self.safe_path(name)
        path.unlink(missing_ok=True)

    @override
    def remove_directory(self, name: str) -> None:
        self.safe_path(name).rmdir()

    @override
    def has_size(self, name: str, size: int) -> bool:
        folder = name.rpartition("/")[0]
        # Remembered, and without pathlib, which is slow: a plan asks this for every file.
        inside = self._inside.get(folder)
        if inside is None:
            inside = self._inside[folder] = self._is_inside(folder)
        try:
            status = os.lstat(f"{self._root_text}/{name}")
        except (OSError, ValueError):
            return False
        return inside and status.st_size == size and stat.S_ISREG(status.st_mode)

    @override
    def top_names(self) -> list[str]:
        try:
            return os.listdir(self.root)
        except FileNotFoundError:
            return []

    @override
    def contents(self) -> Iterator[str]:
        yield from self.top_names()

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what is in a directory below this one, not behind a link; nothing where it is missing."""
        try:
            with os.scandir(self.safe_path(f"{folder}/*").parent) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    @override
    def modified(self, name: str) -> float:
        return (self.root / name).lstat().st_mtime

    @override
    def journals(self, shard: Shard | None) -> JournalHome:
        """Return the directory itself: journals are appended to in their place."""
        return JournalHome(self.root)

    @override
    def journal_shards(self) -> set[Shard]:
        return {shard for shard, _ in shards_with(self.top_names(), JOURNAL_FILE)}

    @override
    def lock(self, claim: Claim) -> FileLock:
        return FileLock(self.root, claim)

    @override
    def holder(self) -> Holder | None:
        return Holder.read(self.root)

    def _is_inside(self, folder: str) -> bool:
        """Say whether a directory, or what exists of its path, has no link in it, and is below this one."""
        if not folder:
            return True
        # A real path has no `..`, so a name that has one is never inside.
        inside = os.path.join(self._real, folder.replace("/", os.sep))
        return os.path.realpath(f"{self._root_text}/{folder}") == inside

    def _make_directory(self, folder: str) -> None:
        directory = f"{self._root_text}/{folder}"
        if folder in self._ready and os.path.isdir(directory):
            return
        # Do not create a lost output directory again: its journal and its lock are lost too.
        self.root.stat()
        # Before and after: neither a directory nor a file is made behind a link.
        if not self._is_inside(folder):
            raise _behind_a_link(directory)
        changed = files.make_directories(Path(directory))
        if not self._is_inside(folder):
            raise _behind_a_link(directory)
        files.sync_directories(changed)
        self._ready.add(folder)


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

    def consolidated(self, superseded: Iterable[Path] | None) -> None:
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


def _behind_a_link(directory: str) -> files.UnfitFile:
    return files.UnfitFile(
        errno.ELOOP, f"{directory} is a link; fcn never reads or writes through links there"
    )


def as_store(output: Path | OutputStore) -> OutputStore:
    """Return an output directory as a store; a path is one on a disk."""
    return LocalStore(output) if isinstance(output, Path) else output
