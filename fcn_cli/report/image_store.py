"""The pictures of a report: files named after what they show, made once."""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
import time
from collections.abc import Callable
from typing import Any

from ..common import files
from ..common.errors import OutputLost
from ..outputs.output_store import LocalStore

KEY_LENGTH = 20
_FILE = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}(\.js|-[a-z]+\.jpg|-[a-z]+-[0-9a-f]{{8}}\.png)")
"""The script with a photo's grid, its pictures, and those of its label maps."""
GRACE_SECONDS = 3600.0
"""How long a file stays that no page needs any more: a report that is being written beside this one, or a
page that is open in a browser, may still need it."""


def key_of(*identity: Any) -> str:
    """Return the key of what a picture shows: the hash of everything that its content depends on."""
    return hashlib.sha256(repr(identity).encode("utf-8", "surrogateescape")).hexdigest()[:KEY_LENGTH]


class ImageStore:
    """Files ``<folder>/<first two digits>/<key><suffix>``.

    The key stands for the content, so a file that exists needs not be made again, whoever made it, and two
    reports that are written at once make the same files. `has` and `write` may be called from threads.

    Parameters
    ----------
    output
        The directory that the report is written into.
    folder
        The directory of these files below it; it need not exist yet.

    Raises
    ------
    OutputLost
        The directory cannot be listed, or lies behind a link.
    """

    def __init__(self, output: LocalStore, folder: str) -> None:
        self._output = output
        self._folder = folder
        with OutputLost.when_refused(output / folder):
            self._names = set(self._list())

    def has(self, name: str) -> bool:
        """Say whether a file exists."""
        return name in self._names

    def write(self, name: str, data: bytes, permissions: files.Permissions | None = None) -> None:
        """Write a file whole; `permissions` are as in `files.create`.

        Raises
        ------
        OutputLost
            It cannot be written.
        """
        with OutputLost.when_refused(self._output / self._path(name)):
            self._output.write_bytes(self._path(name), data, permissions)
        self._names.add(name)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name}"

    def sweep(self, needed: Callable[[str], bool]) -> None:
        """Delete the files that no page needs and that are older than `GRACE_SECONDS`."""
        old = time.time() - GRACE_SECONDS
        for name in [name for name in self._names if not needed(name)]:
            # Another report may have deleted it, or nobody can.
            with contextlib.suppress(OSError):
                if self._output.modified(self._path(name)) < old:
                    self._output.remove(self._path(name))

    def _list(self) -> list[str]:
        """Return the names of whole files of ours; a link is none, and nothing is behind one."""
        names = []
        for part in self._output.entries(self._folder):
            if len(part.name) == 2 and part.is_dir(follow_symlinks=False):
                for entry in self._output.entries(f"{self._folder}/{part.name}"):
                    if entry.name[:2] == part.name and _FILE.fullmatch(entry.name):
                        status = entry.stat(follow_symlinks=False)
                        # Without a durable directory a power cut can leave a name without content.
                        if stat.S_ISREG(status.st_mode) and status.st_size:
                            names.append(entry.name)
        return names
