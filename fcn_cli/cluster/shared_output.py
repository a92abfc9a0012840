"""Check that every actor writes to the output directory that the driver holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from ..common import files, store_urls
from ..common.errors import OutputLost, RequestError
from ..outputs.bucket_store import open_store
from ..outputs.output_store import OutputStore

_CHECK_SECONDS = 30.0


@dataclass(frozen=True)
class SharedOutput:
    """An output directory, a path or a URL; while the driver holds it, its holder's file has the `nonce`."""

    directory: str
    nonce: str

    @classmethod
    def of_driver(cls, output: OutputStore) -> SharedOutput:
        """Return the directory that this process holds."""
        directory = store_urls.local_path(str(output))
        if not store_urls.is_url(directory):
            directory = str(Path(directory).absolute())
        return cls(directory, files.temporary_prefix())

    def open(self) -> OpenedOutput:
        """Open it on this machine; RequestError where this is another directory of this name, or none."""
        opened = OpenedOutput(open_store(self.directory), self.nonce)
        if not opened.is_held():
            raise RequestError(
                f"--output {self.directory} is not the same directory on all nodes: put it on a file system "
                "that they share"
            )
        return opened


@dataclass
class OpenedOutput:
    """An output directory on an actor's machine."""

    store: OutputStore
    nonce: str
    _checked: float = field(default_factory=time.monotonic)

    def is_held(self) -> bool:
        """Say whether the driver holds the directory."""
        with OutputLost.when_refused(self.store):
            holder = self.store.holder()
        return holder is not None and holder.temporary_prefix == self.nonce

    def check(self) -> None:
        """Raise OutputLost when the driver has lost the directory; looks once in `_CHECK_SECONDS`."""
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return
        if not self.is_held():
            raise OutputLost(f"{self.store}: the run on Ray has lost its lock; an actor stops writing there")
        self._checked = time.monotonic()
