"""Finds removed photos, whose outputs and records ``--prune`` removes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..common import files, store_urls
from ..common.errors import RequestError
from ..common.wording import counted
from ..inputs.discovery import Source
from .record import Record

CAREFUL, FORCE = "careful", "force"
"""The two ways of ``--prune``: refuse what looks like a disk that is not mounted, or prune all the same."""


def find(
    records: Iterable[Record],
    sources: Sequence[Source],
    directories: Sequence[str],
    *,
    force: bool,
    total: int | None = None,
) -> list[Record]:
    """Return the records whose photo no longer exists below one of the searched directories.

    A photo is gone when the nearest directory above it that exists can be listed and lies in a searched
    directory. Photos stay when their directory cannot be listed, or when the system gives no answer about it.

    Parameters
    ----------
    records
        The records of the output directory.
    sources
        The photos that were found.
    directories
        Absolute paths of the input directories.
    force
        Also prune when it looks as if a disk were not mounted.
    total
        The number of records of the output directory, when `records` are only some of them.

    Raises
    ------
    RequestError
        No directory was given. Without `force` also: a directory has no photo, or more than half of the
        records would be removed.
    """
    if not directories:
        raise RequestError(
            "--prune needs a directory on this machine as INPUT: it removes what is gone from there"
        )
    if not force:
        _refuse_empty(sources, directories)
    count = 0
    pruned = []
    for record in records:
        count += 1
        if any(_is_gone(record.path, directory) for directory in directories):
            pruned.append(record)
    total = count if total is None else total
    if not force and 2 * len(pruned) > total:
        raise RequestError(
            f"--prune would remove {len(pruned)} of {counted(total, 'image')}, more than half; "
            "is a disk not mounted? If they are really gone, give --prune=force"
        )
    return pruned


def _refuse_empty(sources: Sequence[Source], directories: Sequence[str]) -> None:
    paths = [store_urls.absolute(source.path) for source in sources]
    for directory in directories:
        if not any(files.is_within(path, directory) for path in paths):
            raise RequestError(
                f"--prune: {directory} holds no photo; is its disk not mounted? "
                "If its photos are really gone, give --prune=force"
            )


def _is_gone(path: str, directory: str) -> bool:
    if path == directory or not files.is_within(path, directory) or _exists(path) is not False:
        return False
    parent = os.path.dirname(path)
    while files.is_within(parent, directory):
        exists = _exists(parent)
        if exists is None:
            return False
        if exists:
            return _can_be_listed(parent)
        parent = os.path.dirname(parent)
    return False


def _exists(path: str) -> bool | None:
    """Say whether a path exists; None when the system gives no answer."""
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return None
    return True


def _can_be_listed(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            next(entries, None)
    except OSError:
        return False
    return True
