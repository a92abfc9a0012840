"""Find images that are gone, whose outputs and records ``--prune`` removes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..common import files, store_urls
from ..common.errors import FailureKind, RequestError
from ..common.wording import counted
from ..inputs.discovery import Found, Source
from .journal import Journal
from .record import Record

CAREFUL, FORCE = "careful", "force"
"""The two ways of ``--prune``: refuse what looks like a disk that is not mounted, or prune all the same."""


_MOST_LOOKED_FOR = 2000
"""Of how many recorded images that were not found a run asks whether they exist: half a second at most."""


def find(
    records: Iterable[Record],
    sources: Sequence[Source],
    directories: Sequence[str],
    *,
    force: bool,
    total: int | None = None,
) -> list[Record]:
    """Return the records whose image no longer exists below one of the searched directories.

    An image is gone when the nearest directory above it that exists can be listed and lies in a searched
    directory. Images stay when their directory cannot be listed, or when the system gives no answer about it.

    Parameters
    ----------
    records
        The records of the output directory.
    sources
        The images that were found.
    directories
        Absolute paths of the input directories.
    force
        Also prune when it looks as if a disk were not mounted.
    total
        The number of records of the output directory, when `records` are only some of them.

    Raises
    ------
    RequestError
        No directory was given. Without `force` also: a directory has no image, or more than half of the
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


def over(journal: Journal, found: Found, *, listed: bool) -> list[Record]:
    """Return the records of failures that were about no image, and are over.

    They are of directories that could not be listed and can be now, or are gone, and of files that were not
    there and are not asked for any more. They have no output files, so nothing is lost with them.

    Parameters
    ----------
    journal
        The records of the output directory.
    found
        What the run has found. Only records from below its directories are looked at.
    listed
        Also those of files that an earlier list named: this run has a list, too.
    """
    records = [record for record in journal.index.without_files() if _is_of_no_image(record)]
    if not records:
        return []
    asked = {source.image for source in found.sources}
    return [
        record
        for record in records
        if record.image not in asked
        and not store_urls.is_url(record.path)
        and (_is_over(record, found.directories) or (listed and _exists(record.path) is False))
    ]


def _is_of_no_image(record: Record) -> bool:
    if record.error is None:
        return False
    # A file that cannot be read has a size, unless its directory cannot be entered either.
    unlisted = record.error.kind == FailureKind.UNREADABLE and record.size_bytes is None
    return unlisted or record.error.kind == FailureKind.NOT_FOUND


def _is_over(record: Record, directories: Sequence[str]) -> bool:
    path = record.path
    return any(
        (files.is_within(path, directory) and os.path.isdir(path) and _can_be_listed(path))
        or _is_gone(path, directory)
        for directory in directories
    )


def absent(journal: Journal, found: Found) -> tuple[Counter[str], bool]:
    """Count recorded images that are no longer there, by the searched directory that they were in.

    Returns
    -------
    Counter, bool
        The counts, and whether there may be more: only some of the images that were not found are looked for.
    """
    counts: Counter[str] = Counter()
    if not found.directories:
        return counts, False
    not_found, more = journal.index.beside((source.image for source in found.sources), _MOST_LOOKED_FOR)
    for record in not_found:
        for directory in found.directories:
            if _is_gone(record.path, directory):
                counts[directory] += 1
                break
    return counts, more


def is_gone(record: Record) -> bool:
    """Say whether an image no longer exists, and the nearest directory above it that does can be listed."""
    return not store_urls.is_url(record.path) and _is_gone(record.path, os.path.abspath(os.sep))


def _refuse_empty(sources: Sequence[Source], directories: Sequence[str]) -> None:
    paths = [store_urls.absolute(source.path) for source in sources]
    for directory in directories:
        if not any(files.is_within(path, directory) for path in paths):
            raise RequestError(
                f"--prune: {directory} holds no image; is its disk not mounted? "
                "If its images are really gone, give --prune=force"
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
