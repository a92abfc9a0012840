"""The photos that a search has found: what each one is, and why others are left out."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..common import store_urls
from ..common.errors import Failure, FailureKind
from ..common.output_layout import IMAGE_DIRECTORIES, is_output_directory
from ..common.redaction import public_url
from ..common.store_urls import AbsolutePaths
from ..common.stores import StoreObject
from . import formats, remote_photos
from .patterns import NOT_INCLUDED, PathFilter
from .store_search import StoreSearch

EXCLUDED_DIRECTORY = "excluded directory"
LISTED_DIRECTORY = "directory in the list"
SNAPSHOT_DIRECTORY = "snapshot directory"
_PLURALS = {
    EXCLUDED_DIRECTORY: "excluded directories",
    LISTED_DIRECTORY: "directories in the list",
    SNAPSHOT_DIRECTORY: "snapshot directories",
}
_IN_OUTPUT = "in an output directory of fcn"
_SYSTEM_DIRECTORIES = (
    # Thumbnails, and what was deleted: of Synology, QNAP, Windows, macOS.
    *("@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "System Volume Information"),
    *("lost+found", "__MACOSX", "Network Trash Folder"),
)
_SNAPSHOT_DIRECTORIES = ("#snapshot", "@Recently-Snapshot", "~snapshot")
_SYSTEM_DIRECTORY = re.compile(
    f"(?:^|/)({'|'.join(map(re.escape, _SYSTEM_DIRECTORIES + _SNAPSHOT_DIRECTORIES))})/", re.IGNORECASE
)
_EXAMPLES = 1000
_UNSAFE_PARTS = frozenset({"", ".", ".."})


def system_directory(below: str) -> str | None:
    """Return the directory, on the path of a file below what is searched, that a system keeps for itself."""
    found = _SYSTEM_DIRECTORY.search(below)
    return found[1] if found is not None else None


def is_snapshot_directory(name: str) -> bool:
    """Say whether a directory of this name has earlier states of the whole volume, too many to list."""
    return name.casefold() in map(str.casefold, _SNAPSHOT_DIRECTORIES)


@dataclass(frozen=True, slots=True)
class Source:
    """One photo to segment.

    `image` is its name in the records, a relative POSIX path; `output` is the relative path of its outputs,
    or empty. `path` is the path or URL to open, `given` the path in terms of the user's input. `size_bytes`
    and `mtime_ns` are None for a file that does not exist. An object in a store has `etag` instead of the
    mtime, if the store tells it.
    """

    image: str
    path: str
    given: str
    output: str
    size_bytes: int | None
    mtime_ns: int | None
    problem: Failure | None = None
    etag: str | None = None


@dataclass
class Found:
    """The photos in the inputs, in order, and the number of ignored files by reason.

    `directories` holds the absolute paths of the input directories that were searched, `not_included` the
    first paths that no ``--include`` matches.
    """

    sources: list[Source] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    directories: list[str] = field(default_factory=list)
    not_included: list[str] = field(default_factory=list)

    def empty_directories(self) -> list[str]:
        """Return the directories that were searched and have nothing in them, not even other files."""
        return [directory for directory in self.directories if _is_empty(directory)]

    def ignored_text(self) -> str:
        """Return one line on the ignored files, with the hint for HEIC; empty if there are none."""
        if not self.ignored:
            return ""
        parts = [
            f"{count} {reason if count == 1 else _PLURALS.get(reason, reason)}"
            for reason, count in sorted(self.ignored.items())
        ]
        text = f"ignored {sum(self.ignored.values())}: {', '.join(parts)}"
        if any(reason in formats.HEIF_SUFFIXES for reason in self.ignored):
            text += f" (for HEIC photos {formats.HEIF_HINT})"
        return text


def _is_empty(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except OSError:
        return False


class Collector:
    """Takes files and objects, and leaves out those that are not input.

    Parameters
    ----------
    chosen
        Selects among what is found by searching.
    output
        The run's output directory or its URL, or None.
    keep_extension
        See `discovery.discover`.
    """

    def __init__(self, chosen: PathFilter, output: str | None, *, keep_extension: bool) -> None:
        self.found = Found()
        self.filter = chosen
        self.stores = StoreSearch(output)
        self.output = os.path.realpath(output) if output is not None else None
        self._keep_extension = keep_extension
        self._suffixes = formats.photo_suffixes()
        self._taken: set[tuple[str, str]] = set()
        self._written_by_us: dict[str, bool] = {}
        self._absolute = AbsolutePaths()

    def ignore(self, reason: str, count: int = 1) -> None:
        """Count files that are not input."""
        self.found.ignored[reason] += count

    def is_written_by_us(self, folder: str) -> bool:
        """Return whether a directory is, or is below, one of a run's output directories (masks, color …)."""
        if folder not in self._written_by_us:
            if store_urls.is_url(folder):
                self._written_by_us[folder] = self.stores.is_written_by_us(folder)
            else:
                real = Path(os.path.realpath(folder or "."))
                self._written_by_us[folder] = any(
                    place.name in IMAGE_DIRECTORIES
                    and (str(place.parent) == self.output or is_output_directory(str(place.parent)))
                    for place in (real, *real.parents)
                )
        return self._written_by_us[folder]

    def search(self, path: str, below: str, prefix: str = "", found: StoreObject | None = None) -> None:
        """Add a file or object that was found by searching, unless it is hidden or filtered out.

        `below` is its path below what was searched, and `prefix` comes before that in its name.
        """
        if "/" in below and (kept_by_system := system_directory(below)) is not None:
            self.ignore(f"in {kept_by_system}")
            return
        if below.startswith(".") or "/." in below:
            self.ignore("hidden")
            return
        suffix = os.path.splitext(below)[1].lower()
        if suffix not in self._suffixes:
            self.ignore(suffix or "without a suffix")
        elif left_out := self.filter.left_out(below):
            self.ignore(left_out)
            if left_out == NOT_INCLUDED and len(self.found.not_included) < _EXAMPLES:
                self.found.not_included.append(below)
        else:
            image = f"{prefix}/{below}" if prefix else below
            if found is None:
                self.add_file(path, image)
            else:
                self.add_object(path, image, found)

    def add_file(self, path: str, image: str) -> None:
        """Add a file, whatever its suffix."""
        if self.is_written_by_us(os.path.dirname(path)):
            self.ignore(_IN_OUTPUT)
            return
        if not self._is_new(image, path):
            return
        size = mtime = None
        with contextlib.suppress(OSError):
            status = os.stat(path)
            size, mtime = status.st_size, status.st_mtime_ns
        self.found.sources.append(Source(image, path, path, self._output_name(image), size, mtime))

    def add_object(self, url: str, image: str, found: StoreObject | OSError | None) -> None:
        """Add an object, whatever its suffix: what there is, None, or why that is not known."""
        if self.is_written_by_us(url.rpartition("/")[0]):
            self.ignore(_IN_OUTPUT)
            return
        if not self._is_new(image, url):
            return
        problem, output = None, self._output_name(image)
        known: tuple[int | None, int | None, str | None] = (None, None, None)
        if isinstance(found, StoreObject):
            known = remote_photos.identity(found)
        elif found is not None:
            problem = Failure(FailureKind.UNREADABLE, f"cannot be read ({found.strerror or found})")
        if "\0" in image or not _UNSAFE_PARTS.isdisjoint(image.split("/")):
            reason = "no file can have this name (//, .. or a NUL byte)"
            output, problem = "", Failure(FailureKind.OUTPUT_REFUSED, reason)
            # No record can hold a NUL either.
            image = image.replace("\0", "%00")
        size, mtime, etag = known
        given = public_url(url)
        self.found.sources.append(Source(image, url, given, output, size, mtime, problem, etag))

    def add_unlistable(self, folder: str, image: str, error: OSError) -> None:
        """Add a directory that cannot be listed."""
        problem = Failure(FailureKind.UNREADABLE, f"this directory cannot be listed ({error.strerror})")
        self.found.sources.append(Source(image, folder, folder, "", None, None, problem))

    def _is_new(self, image: str, path: str) -> bool:
        identity = (image, self._absolute(path))
        if identity in self._taken:
            return False
        self._taken.add(identity)
        return True

    def _output_name(self, image: str) -> str:
        stem, suffix = os.path.splitext(image)
        replaced = suffix.lower() in formats.KNOWN_SUFFIXES and not self._keep_extension
        return f"{stem if replaced else image}.png"
