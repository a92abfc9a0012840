"""Hashes of image files: recognise an image of which only the modification time changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from io import BufferedReader

from ..common import resources
from ..common.ordered_work import OrderedWork
from .discovery import Source

_MAX_THREADS = 8
_blake2b_16 = partial(hashlib.blake2b, digest_size=16)


def of_open_file(file: BufferedReader) -> str:
    """Return the BLAKE2b hash of a file's bytes, 32 hex digits; its position is 0 afterwards."""
    file.seek(0)
    digest = hashlib.file_digest(file, _blake2b_16).hexdigest()
    file.seek(0)
    return digest


def of_sources(sources: Sequence[Source]) -> Iterator[str | None]:
    """Yield the hash of each image's file, in order; None where it does not stay as it was found."""
    threads = min(_MAX_THREADS, resources.cpu_count())
    with OrderedWork[None, str | None](threads, "hash", max_bytes=0, max_count=4 * threads) as work:
        for source in sources:
            work.submit(None, partial(_of_source, source))
            for task in work.take():
                yield task.future.result()
        for task in work.take(everything=True):
            yield task.future.result()


def _of_source(source: Source) -> str | None:
    found = source.size_bytes, source.mtime_ns
    with contextlib.suppress(OSError), open(source.path, "rb", opener=_open_at_once) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode) or (before.st_size, before.st_mtime_ns) != found:
            return None
        content = of_open_file(file)
        after = os.fstat(file.fileno())
        return content if (after.st_size, after.st_mtime_ns) == found else None
    return None


def _open_at_once(path: str, flags: int) -> int:
    # What is a FIFO by now would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
