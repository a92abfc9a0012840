"""The temporary directory that pixels pass through: its run removes it, or after a kill a later run does."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile

if sys.platform != "win32":
    import fcntl

_PREFIX = "fcn-"
_LOCK = ".lock"


class PixelDirectory:
    """A new directory below the system's temporary one; making it removes those of runs that were killed.

    The kernel keeps a lock in it until this process and those that it has forked are gone.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            _remove_abandoned(tempfile.gettempdir())
        self._directory = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        self.path = self._directory.name
        self._lock = _locked(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it; does nothing the second time."""
        self._directory.cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(directory: str) -> int | None:
    """Make the lock of a directory; it has its name only when it is held."""
    if sys.platform == "win32":
        return None
    beginning = os.path.join(directory, f"{_LOCK}.new")
    try:
        descriptor = os.open(beginning, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(beginning, os.path.join(directory, _LOCK))
    except OSError:
        # Where files cannot be locked, nobody takes this directory for abandoned.
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(parent: str) -> None:
    if sys.platform == "win32":
        return
    with os.scandir(parent) as entries:
        ours = [
            entry.path
            for entry in entries
            if entry.name.startswith(_PREFIX)
            and entry.is_dir(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_uid == os.getuid()
        ]
    for directory in ours:
        with contextlib.suppress(OSError):
            descriptor = os.open(os.path.join(directory, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)
