"""Lists of files (``--files-from``): read, parsed, and named relative to ``--root``."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import stat
import sys
from typing import BinaryIO

from ..common import files, store_urls
from ..common.errors import RequestError
from ..common.redaction import public_url
from ..common.store_urls import AbsolutePaths

MOST_BYTES = 1 << 30
"""A longer list is none."""
_MOST_NAME_BYTES = 1 << 14
"""More than any system takes for a path."""


def read_list(name: str) -> bytes:
    """Return the content of a file, or of a pipe, or with ``-`` of stdin; refuses what has no end."""
    if name == "-":
        return _read(sys.stdin.buffer)
    with open(name, "rb", buffering=0) as stream:
        return _read(stream)


def _read(stream: BinaryIO | io.RawIOBase) -> bytes:
    too_long = RequestError(f"more than {MOST_BYTES >> 20} MiB; split the list")
    with contextlib.suppress(io.UnsupportedOperation):
        status = os.fstat(stream.fileno())
        is_empty_device = os.path.exists(os.devnull) and os.path.samestat(status, os.stat(os.devnull))
        if not stream.isatty() and not is_empty_device and _is_device(status.st_mode):
            raise RequestError("a device, not a list of files")
        if status.st_size > MOST_BYTES:
            raise too_long
    data = bytearray()
    while chunk := stream.read(1 << 20):
        data += chunk
        if len(data) > MOST_BYTES:
            raise too_long
    return bytes(data)


def _is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def parse_list(data: bytes, *, null: bool) -> list[str]:
    r"""Split a list into names; with `null` they end in NUL bytes, and are not changed in any way.

    Empty names are dropped; names may contain any bytes. A byte-order mark at the start is dropped, and so is
    ``\r`` at the end of each line if all lines end in ``\r\n``. Raises RequestError where the list contains
    NUL bytes without `null`, is UTF-16 text, or has something that is no name.
    """
    if null:
        return _names(rb"[^\0]+", data)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in data:
        raise RequestError("the list is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        raise RequestError("the list contains NUL bytes; use --null for the output of `find -print0`")
    names = _names(rb"[^\n]+", data.removeprefix(codecs.BOM_UTF8))
    # The last line may have no line end.
    ended = names if data.endswith(b"\n") else names[:-1]
    if ended and all(name.endswith("\r") for name in ended):
        names = [name.removesuffix("\r") for name in names]
    return [name for name in names if name]


def _names(pattern: bytes, data: bytes) -> list[str]:
    names = []
    # Unlike `split`, this makes nothing of what is empty, be it a gigabyte.
    for match in re.finditer(pattern, data):
        if match.end() - match.start() > _MOST_NAME_BYTES:
            raise RequestError(f"not a list of names: a name has more than {_MOST_NAME_BYTES >> 10} KiB")
        names.append(os.fsdecode(match[0]))
    return names


class Root:
    """The directory, or URL, to which names of listed files are relative; None is the current one."""

    def __init__(self, given: str | None) -> None:
        self._url = given if given is not None and store_urls.is_url(given) else None
        self._root = os.path.abspath(given or ".")
        self._real_root = os.path.realpath(self._root)
        self._absolute = AbsolutePaths()

    def below(self, given: str) -> str:
        """Return a file's POSIX path below this directory; raises RequestError where it is not below it."""
        name = self._url_below(given) if store_urls.is_url(given) else self._path_below(given)
        if name:
            return name
        kind = "URL" if store_urls.is_url(given) else "directory"
        raise RequestError(
            f"{public_url(given)}: not below {self._url or self._root}; set --root to the {kind} "
            "that output names are relative to"
        )

    def _url_below(self, url: str) -> str:
        if self._url is None or store_urls.split(url).root != store_urls.split(self._url).root:
            return ""
        name, top = store_urls.name_in(url), store_urls.name_in(self._url).rstrip("/")
        if not top:
            return name
        return name[len(top) + 1 :] if name.startswith(f"{top}/") else ""

    def _path_below(self, given: str) -> str:
        if self._url is not None:
            return ""
        path = self._absolute(given)
        if not files.is_within(path, self._root):
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for root in (self._root, self._real_root):
            if files.is_within(path, root) and path != root:
                return path[len(root.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
        return ""
