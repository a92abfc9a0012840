"""Find and verify weights files.

Directories are searched in this order: ``FCN_WEIGHTS_DIR``, torch.hub's checkpoint directory. Only this
module and `download` read the environment, as torch.hub and urllib do.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..common import files
from ..common.errors import WeightsError


@dataclass(frozen=True)
class OfficialWeights:
    """A published weights file: its URL, and the first 8 hex digits of its sha256 (part of its name)."""

    url: str
    sha256_prefix: str

    @property
    def file_name(self) -> str:
        """The name of the file, on the server and in every directory."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that has just been hashed, and verified if its hash is known."""

    path: Path
    sha256: str


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex.

    Raises
    ------
    WeightsError
        The file cannot be read.
    """
    try:
        with open(files.open_regular(path, follow=True), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def search_directories() -> list[Path]:
    """Return the directories that are searched for weights, in order; downloads go to the last one."""
    own = os.environ.get("FCN_WEIGHTS_DIR")
    return [*([Path(own).expanduser()] if own else []), hub_directory()]


def hub_directory() -> Path:
    """Return torch.hub's checkpoint directory, by its rules (``TORCH_HOME``, ``XDG_CACHE_HOME``)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def download_url(official: OfficialWeights) -> str:
    """Return the URL to download from: the official one, or the mirror's."""
    mirror = os.environ.get("FCN_WEIGHTS_MIRROR")
    return f"{mirror.rstrip('/')}/{official.file_name}" if mirror else official.url


def cached(official: OfficialWeights) -> Path | None:
    """Return the first file of that name in the search directories, not verified, or None."""
    return next(
        (path for directory in search_directories() if (path := directory / official.file_name).is_file()),
        None,
    )


def verify(path: Path, sha256_prefix: str) -> WeightsFile:
    """Hash a weights file and compare the hash with the expected prefix.

    Raises
    ------
    WeightsError
        The file cannot be read or has another hash; the message names the file and the fix.
    """
    digest = sha256_of(path)
    if not digest.startswith(sha256_prefix):
        raise WeightsError(
            f"{path}: damaged, its sha256 starts with {digest[:8]}, not {sha256_prefix[:8]}; "
            "delete the file and run again (or run `fcn weights fetch`)"
        )
    return WeightsFile(path, digest)
