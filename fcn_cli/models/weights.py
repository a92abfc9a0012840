"""Find and verify the weights of a network.

Searched in this order: the directory in ``FCN_WEIGHTS_DIR``, torch.hub's checkpoint directory. This
module and `download` read the environment, as the libraries beside them do; no other one does.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import WeightsError


@dataclass(frozen=True)
class OfficialWeights:
    """A published file: its URL, and the first 8 hex digits of its sha256 (as in its name, for torch.hub)."""

    url: str
    sha256_prefix: str

    @property
    def file_name(self) -> str:
        """The name of the file, on the server and in every folder."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class WeightsFile:
    """A file on disk whose hash was taken just now, and matches where it should."""

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
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def search_folders() -> list[Path]:
    """Return the folders in which weights are looked for, in order; the last one is downloaded to."""
    own = os.environ.get("FCN_WEIGHTS_DIR")
    return [*([Path(own).expanduser()] if own else []), hub_folder()]


def hub_folder() -> Path:
    """Return torch.hub's checkpoint folder, by its own rules (``TORCH_HOME``, ``XDG_CACHE_HOME``)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def download_url(official: OfficialWeights) -> str:
    """Return where the file is fetched from: its official URL, or the mirror's."""
    mirror = os.environ.get("FCN_WEIGHTS_MIRROR")
    return f"{mirror.rstrip('/')}/{official.file_name}" if mirror else official.url


def cached(official: OfficialWeights) -> Path | None:
    """Return the first file of that name in the search folders, unverified, or None."""
    return next((p for folder in search_folders() if (p := folder / official.file_name).is_file()), None)


def verify(path: Path, sha256_prefix: str) -> WeightsFile:
    """Hash a file and compare.

    Raises
    ------
    WeightsError
        It cannot be read or is not the file it should be; the text names the file and the fix.
    """
    digest = sha256_of(path)
    if not digest.startswith(sha256_prefix):
        raise WeightsError(
            f"{path}: damaged, its sha256 starts with {digest[:8]} where {sha256_prefix[:8]} belongs; "
            "delete the file and run again (or run `fcn weights fetch`)"
        )
    return WeightsFile(path, digest)
