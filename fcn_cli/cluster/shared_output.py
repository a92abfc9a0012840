"""Makes sure that every actor writes into the output directory that the driver locked."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..common import files, store_urls
from ..common.errors import OutputLost, RequestError

_NONCE_FILE = ".fcn.nonce"


@dataclass(frozen=True)
class SharedOutput:
    """An output directory, and the nonce that the driver wrote into it; None for a store, which all share."""

    directory: str
    nonce: str | None

    def check(self) -> None:
        """Raise RequestError where this machine has another directory of this name, or none."""
        if self.nonce is None:
            return
        try:
            found = Path(self.directory, _NONCE_FILE).read_text(encoding="ascii")
        except (OSError, ValueError):
            found = None
        if found != self.nonce:
            raise RequestError(
                f"--output {self.directory} is not the same directory on all nodes: put it on a file system "
                "that they share"
            )


@contextlib.contextmanager
def shared_output(directory: str) -> Iterator[SharedOutput]:
    """Write a nonce into an output directory, for as long as actors may look for it; none into a store."""
    directory = store_urls.local_path(directory)
    if store_urls.is_url(directory):
        yield SharedOutput(directory, None)
        return
    place = Path(directory).absolute()
    nonce = secrets.token_hex(16)
    with OutputLost.when_refused(place):
        files.write_text(place / _NONCE_FILE, nonce)
    try:
        yield SharedOutput(str(place), nonce)
    finally:
        with contextlib.suppress(OSError):
            (place / _NONCE_FILE).unlink()
