"""Files on disk: walk folders, write a file whole or not at all, make it last.

A file is written under a temporary name in its final folder, fsynced, and renamed. Callers that need the
*name* to last as well fsync the folders afterwards, once for many files (`sync_folders`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_TEMPORARY_PREFIX = ".fcn-"
_TEMPORARY_SUFFIX = ".tmp"
_numbers = itertools.count()


def temporary_in(folder: Path) -> Path:
    """Return a hidden name in `folder` that no other file of this machine's processes has."""
    return folder / f"{_TEMPORARY_PREFIX}{os.getpid()}-{next(_numbers)}{_TEMPORARY_SUFFIX}"


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> int:
    """Write a file so that `path` is either untouched or complete; return its size in bytes.

    The folder must exist. Permission bits follow the umask.

    Raises
    ------
    OSError
        As the system says; the temporary file is gone then.
    """
    temporary = temporary_in(path.parent)
    try:
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return size


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole, and make its name last; odd bytes of file names pass through unchanged."""
    write_whole(path, lambda stream: _write_all(stream, text.encode("utf-8", "surrogateescape")))
    sync_folders([path.parent])


def _write_all(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)


def make_folders(folder: Path) -> list[Path]:
    """Create a folder and its missing parents; return every folder whose entries changed."""
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


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names in these folders survive a power cut (a no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    for folder in sorted(set(folders)):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_temporaries(folder: Path) -> None:
    """Delete what killed runs left half-written at or below `folder`."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX):
                with contextlib.suppress(OSError):
                    (Path(parent) / name).unlink()


def walk(
    top: str,
    enter: Callable[[str, list[str]], bool],
    failed: Callable[[str, OSError], None],
    leave_out: Callable[[str], bool] = lambda _folder: False,
) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, names of its non-folders) for a tree, in sorted order.

    Links to folders are followed, except to one that holds the tree itself; each real folder is walked
    once, and a real place comes before a linked one, so loops end and adding a link renames nothing.

    Parameters
    ----------
    top
        Where to start.
    enter
        Asked with each folder and the names in it; False leaves it and what is below it out.
    failed
        Told of each folder that cannot be listed.
    leave_out
        Asked with each folder before it is listed; True leaves it and what is below it out.
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
    """Say whether a real path is `folder` or lies below it."""
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
