"""Locks with names in an output directory; here those that the kernel keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import filelock

from ..common import files


class NamedLock(Protocol):
    """A lock that one process at a time holds."""

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        ...

    def acquire(self) -> bool:
        """Try to take it; say whether this process has it now; raises OSError."""
        ...

    def release(self) -> None:
        """Let it go; does nothing when it is not held."""
        ...

    def is_taken(self) -> bool:
        """Say whether another process holds it; only for a lock that this one does not hold."""
        ...


class FileLock:
    """A lock on a file, which the kernel releases when its process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(path)

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        return self._lock.is_locked

    def acquire(self) -> bool:
        """Try to take it; see `NamedLock`."""
        if not self._try():
            return False
        if self._path.exists():
            return True
        # A run that writes nothing removes its directory, and the lock with it.
        self._lock.release()
        return False

    def release(self) -> None:
        """Let it go."""
        self._lock.release()

    def is_taken(self) -> bool:
        """Say whether another process holds it."""
        if not self._try():
            return True
        self._lock.release()
        return False

    def _try(self) -> bool:
        # filelock creates, empties or opens whatever is there, the target of a link too.
        files.require_regular(self._path)
        try:
            self._lock.acquire(timeout=0)
        except (filelock.Timeout, FileNotFoundError):
            return False
        return True
