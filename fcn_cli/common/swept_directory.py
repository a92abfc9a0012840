"""Temporary directories, removed by their run or, after a kill, by a later one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator

from .errors import OutputLost

if sys.platform != "win32":
    import fcntl

_PREFIX = "fcn-tmp-"
_LOCK = ".lock"
_MAGIC = b"a temporary directory of fcn: its files go when no process holds this lock\n"

# What is written into such directories: pixels, stdin's image, copies of journals (and what becomes one), and
# what multiprocessing makes. Whatever has another name is not ours, and stays, and so does its directory.
_OURS = re.compile(r"pixels-.+|stdin|manifest\..+|\.fcn-.+\.tmp|(listener|pym)-.+|\.lock\.new")


class SweptDirectory:
    """A new directory for files, without directories, in `parent` or the system's temporary directory.

    Making one removes what runs that were killed have left there: the kernel keeps a lock in each until its
    process and those that it has forked are gone.

    Raises
    ------
    OutputLost
        No directory can be made.
    """

    def __init__(self, parent: str | None = None) -> None:
        try:
            parent = parent or tempfile.gettempdir()
            _remove_abandoned(parent)
            self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        except OSError as error:
            raise OutputLost(
                f"cannot create a temporary directory ({error.strerror or error}); set TMPDIR to a "
                "directory that can be written"
            ) from None
        self._remove = weakref.finalize(self, _remove_own, self.path, _locked(self.path), os.getpid())
        _made.add(self)

    def __enter__(self) -> SweptDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it and the files in it; does nothing the second time."""
        self._remove()


_made: weakref.WeakSet[SweptDirectory] = weakref.WeakSet()


def remove_all() -> None:
    """Remove the directories of this process, which is about to end without the interpreter's shutdown."""
    for directory in list(_made):
        directory.remove()


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
        os.write(descriptor, _MAGIC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(beginning, os.path.join(directory, _LOCK))
    except OSError:
        # Where files cannot be locked, nobody takes this directory for abandoned.
        os.close(descriptor)
        return None
    return descriptor


def _remove_own(path: str, lock: int | None, pid: int) -> None:
    # A process that was forked from this one has the object too.
    if os.getpid() == pid:
        with contextlib.suppress(OSError), _opened(path) as directory:
            _remove_files(path, directory)
        if lock is not None:
            os.close(lock)


def _remove_abandoned(parent: str) -> None:
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for path in [entry.path for entry in entries if entry.name.startswith(_PREFIX)]:
            with contextlib.suppress(OSError), _opened(path) as directory:
                assert directory is not None  # noqa: S101 - as on every POSIX system
                if os.fstat(directory).st_uid == os.getuid():
                    _remove_if_abandoned(path, directory)


def _remove_if_abandoned(path: str, directory: int) -> None:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock = os.open(_LOCK, flags, dir_fd=directory)
    try:
        status = os.fstat(lock)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()
        if is_ours and os.read(lock, len(_MAGIC) + 1) == _MAGIC:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_files(path, directory)
    finally:
        os.close(lock)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """Open a directory, never a link to one, so that its files stay the same whatever becomes of its name."""
    if sys.platform == "win32":
        yield None
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _remove_files(path: str, directory: int | None) -> None:
    """Remove our files, and the directory if nothing else is in it; the lock goes last."""
    names = os.listdir(path if directory is None else directory)
    for name in filter(_OURS.fullmatch, names):
        _unlink(path, name, directory)
    if not {*os.listdir(path if directory is None else directory)} - {_LOCK}:
        _unlink(path, _LOCK, directory)
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _unlink(path: str, name: str, directory: int | None) -> None:
    with contextlib.suppress(OSError):
        if directory is None:
            os.unlink(os.path.join(path, name))
        else:
            os.unlink(name, dir_fd=directory)
