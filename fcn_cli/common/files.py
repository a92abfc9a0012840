"""Files on disk: atomic and durable writes, careful reads, walking directories.

A file is written under a temporary name in its final directory, fsynced, and renamed. To make the new *name*
durable as well, callers fsync the directories afterwards, once for many files (`sync_directories`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from . import store_urls

_TEMPORARY_PREFIX = ".fcn-"
_TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"\.fcn-[0-9]+-([0-9a-f]+-)?[0-9]+\.tmp")
"""As `_temporary_name` makes them, and as 0.1 did."""
_numbers = itertools.count()
# Machines that share a directory, and containers above all, have processes of equal numbers.
_token = secrets.token_hex(4)


SMALL_BYTES = 1 << 20
"""What a settings file, a palette or a list of class names has at most."""


class StoredFile(Protocol):
    """A file in an object store; `str` of it names it in messages.

    Both methods raise OSError, of which FileNotFoundError says that there is no such file.
    """

    def read_bytes(self) -> bytes:
        """Return the whole content."""
        ...

    def read_small(self, limit: int) -> bytes:
        """Return the content, of at most `limit` bytes."""
        ...


ReadableFile = Path | StoredFile


class UnfitFile(OSError):
    """A file is not what is read here: a link, a pipe, a device, or far too large; nothing of it was read."""


def open_regular(
    path: str | Path, flags: int = os.O_RDONLY, *, follow: bool = False, mode: int = 0o666
) -> int:
    """Return a descriptor of a regular file; never waits for a pipe, never follows a link in the last place.

    Parameters
    ----------
    path
        The file.
    flags
        As of `os.open`.
    follow
        Whether the file may be a link to a regular file: for files that the user names.
    mode
        The permissions of a file that they create, before the umask.

    Raises
    ------
    UnfitFile
        It is anything else.
    OSError
        It cannot be opened.
    """
    careful = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    careful |= 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags | careful, mode)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise _a_link(path) from None
        if error.errno == errno.ENXIO:
            # A socket, or a pipe that nobody reads.
            raise _not_regular(path) from None
        raise
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise _not_regular(path)
    return descriptor


def require_regular(path: Path) -> None:
    """Raise UnfitFile where a path is a link or anything else that is no file; there need not be one."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise _a_link(path)
        if not stat.S_ISREG(mode):
            raise _not_regular(path)


def _a_link(path: str | Path) -> UnfitFile:
    return UnfitFile(errno.ELOOP, "it is a link, which fcn does not follow here", str(path))


def _not_regular(path: str | Path) -> UnfitFile:
    return UnfitFile(errno.EINVAL, "not a regular file", str(path))


def read_small(file: ReadableFile, limit: int = SMALL_BYTES, *, follow: bool = False) -> bytes:
    """Return the content of a file that is small by nature.

    Parameters
    ----------
    file
        A path, or a file in a store.
    limit
        The most bytes that it may have.
    follow
        As of `open_regular`.

    Raises
    ------
    UnfitFile
        It is too large, or no regular file. (What is in a store raises its own OSError.)
    OSError
        It cannot be read.
    """
    if not isinstance(file, Path):
        return file.read_small(limit)
    with open(open_regular(file, follow=follow), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        # Not `limit` bytes at once: they would be allocated. Some file systems say 0, and files grow.
        data = stream.read(size + 1) if size <= limit else b""
        while len(data) > size and len(data) <= limit and (more := stream.read(1 << 16)):
            data += more
    if size > limit or len(data) > limit:
        raise UnfitFile(errno.EFBIG, f"more than {limit >> 10:,} KiB", str(file))
    return data


def read_start(path: Path, size: int = 1 << 16) -> bytes:
    """Return the first bytes of a file, which need not be small; raises what `open_regular` does."""
    with open(open_regular(path), "rb") as file:
        return file.read(size)


def read_small_json(file: ReadableFile, limit: int = SMALL_BYTES, *, follow: bool = False) -> Any:
    """Return the value in a JSON file, as `read_small` reads it; ValueError where it is none."""
    return parse_json(read_small(file, limit, follow=follow))


def parse_json(data: bytes) -> Any:
    """Return a JSON value; raise ValueError where it is none that every program can read and write.

    Python's parser also takes numbers that are not finite and halves of surrogate pairs, and recurses.
    """
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


def temporary_prefix() -> str:
    """Return how the names of this process's temporary files begin; no other process has the same."""
    return f"{_TEMPORARY_PREFIX}{os.getpid()}-{_token}-"


def temporary_in(folder: Path) -> Path:
    """Return a hidden path in `folder` that no other process uses."""
    return folder / _temporary_name()


def _temporary_name() -> str:
    return f"{temporary_prefix()}{next(_numbers)}{_TEMPORARY_SUFFIX}"


class Permissions(NamedTuple):
    """Who may read and write a file: its mode, and the group that the mode means."""

    mode: int
    group: int


def permissions_of(path: str) -> Permissions | None:
    """Return those of a local file whose content is copied, those of its owner alone where it is gone."""
    if store_urls.is_url(path):
        return None
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return Permissions(0o600, -1)
    return Permissions(status.st_mode & 0o666 | 0o600, status.st_gid)


def create(path: str | Path, permissions: Permissions | None = None) -> BinaryIO:
    """Create a file and open it for writing; raise FileExistsError where there is one.

    Its permissions follow the umask. Where another file's are given, nobody but the owner may do more with it
    than with that one.
    """
    if permissions is None:
        return open(path, "xb")
    mode, group = permissions
    if hasattr(os, "getegid"):
        folder = os.stat(os.path.dirname(path) or ".")
        inherits = folder.st_mode & stat.S_ISGID or sys.platform == "darwin"
        if group != (folder.st_gid if inherits else os.getegid()):
            # The new file's group is another one: it may do what everybody may.
            mode = mode & ~0o060 | (mode & 0o006) << 3
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))


def write_whole(
    path: str | Path, write: Callable[[BinaryIO], None], permissions: Permissions | None = None
) -> int:
    """Write a file atomically: `path` is either unchanged or complete.

    The directory must exist.

    Parameters
    ----------
    path
        The file to create or replace.
    write
        Writes the content to an open binary file.
    permissions
        See `create`.

    Returns
    -------
    int
        The size of the file in bytes.

    Raises
    ------
    OSError
        The file cannot be written; the temporary file is removed.
    """
    # Without pathlib, which is slow: a run comes here twice for each image.
    final = os.fspath(path)
    temporary = os.path.join(os.path.dirname(final), _temporary_name())
    try:
        with create(temporary, permissions) as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        os.replace(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return size


def write_bytes(path: Path, data: bytes, permissions: Permissions | None = None) -> None:
    """Write a file atomically, as `write_whole` does."""
    write_whole(path, lambda stream: _write_all(stream, data), permissions)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically and durably."""
    write_bytes(path, encoded(text))
    sync_directories([path.parent])


def encoded(text: str) -> bytes:
    """Return a text in UTF-8; surrogate escapes in file names become their bytes."""
    return text.encode("utf-8", "surrogateescape")


def _write_all(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)


def make_directories(folder: Path) -> list[Path]:
    """Create a directory and its missing parents; return the directories that gained an entry."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    changed = []
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        changed.append(new.parent)
    return changed


def sync_directories(folders: Iterable[Path]) -> None:
    """Fsync directories, so that names in them survive a power cut; does nothing on Windows."""
    if os.name == "nt":
        return
    for folder in sorted(set(folders)):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Say whether a file has the name of a temporary file, which is nobody's once its process has ended."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep_temporaries(folder: Path, prefix: str = _TEMPORARY_PREFIX, *, below: bool = True) -> None:
    """Delete the temporary files that killed runs, or one with this prefix, left in or `below` a folder.

    What is behind a link stays, and so does all that has another name or is no file.
    """
    if not prefix.startswith(_TEMPORARY_PREFIX):
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(prefix) and is_temporary(name):
                remove_regular(Path(parent) / name)
        if not below:
            return


def remove_regular(path: Path) -> None:
    """Delete a file, if it is one and can be deleted; its directory is not behind a link."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def walk(
    top: str,
    enter: Callable[[str, list[str]], bool],
    failed: Callable[[str, OSError], None],
    leave_out: Callable[[str], bool] = lambda _folder: False,
) -> Iterator[tuple[str, list[str]]]:
    """Yield (directory, names of the files in it) for a directory tree, in sorted order.

    Links to directories are followed, except to one that contains the tree. Each real directory is visited
    once, and by its real path before a link: so cycles end, and a new link changes no name.

    Parameters
    ----------
    top
        The directory to start from.
    enter
        Called with each directory and the names in it; False skips it and everything below.
    failed
        Called with each directory that cannot be listed, and the error.
    leave_out
        Called with each directory before it is listed; True skips it and everything below.
    """
    seen: set[tuple[int, int]] = set()
    real_top = os.path.realpath(top)
    waiting = [top]
    while waiting:
        linked: list[str] = []
        for start in waiting:
            yield from _walk_real(start, leave_out, enter, failed, seen, linked)
        waiting = sorted(link for link in linked if not is_within(real_top, os.path.realpath(link)))


def is_within(path: str, folder: str) -> bool:
    """Return whether a real path is `folder` or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _walk_real(
    top: str,
    leave_out: Callable[[str], bool],
    enter: Callable[[str, list[str]], bool],
    failed: Callable[[str, OSError], None],
    seen: set[tuple[int, int]],
    linked: list[str],
) -> Iterator[tuple[str, list[str]]]:
    stack = [top]
    while stack:
        folder = stack.pop()
        if leave_out(folder):
            continue
        try:
            status = Path(folder).stat()
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            failed(folder, error)
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in seen or not enter(folder, [entry.name for entry in listed]):
            continue
        seen.add(identity)
        below: list[str] = []
        names = []
        for entry in listed:
            if _is_folder(entry):
                (linked if entry.is_symlink() else below).append(entry.path)
            else:
                names.append(entry.name)
        yield folder, names
        stack.extend(reversed(below))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
