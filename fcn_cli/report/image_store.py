"""The pictures of a report: files named after what they show, made once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common import files
from ..common.errors import OutputLost

KEY_LENGTH = 20
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
    folder
        The directory; it need not exist yet.

    Raises
    ------
    OutputLost
        The directory cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with OutputLost.when_refused(folder):
            self._names = set(self._list())

    def has(self, name: str) -> bool:
        """Say whether a file exists."""
        return name in self._names

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole.

        Raises
        ------
        OutputLost
            It cannot be written.
        """
        path = self.path(name)
        with OutputLost.when_refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, data)
        self._names.add(name)

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name[:2] / name

    def sweep(self, needed: Callable[[str], bool]) -> None:
        """Delete the files that no page needs and that are older than `GRACE_SECONDS`."""
        old = time.time() - GRACE_SECONDS
        for name in [name for name in self._names if not needed(name)]:
            path = self.path(name)
            try:
                if path.lstat().st_mtime < old:
                    path.unlink()
            except OSError:
                # Another report has deleted it, or nobody can.
                continue

    def _list(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        names = []
        for part in self.folder.iterdir():
            if len(part.name) == 2 and part.is_dir():
                with os.scandir(part) as entries:
                    # Without a durable directory a power cut can leave a name without content.
                    names += [e.name for e in entries if e.name[:2] == part.name and e.stat().st_size]
        return names
