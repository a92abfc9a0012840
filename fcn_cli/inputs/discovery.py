"""Find the input images, in order, with their output names; count what is ignored."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..common import files, store_urls
from ..common.errors import Failure, FailureKind, RequestError
from ..common.output_layout import IMAGE_DIRECTORIES, SETTINGS_FILE, is_output_directory
from ..common.redaction import public_url
from ..common.store_urls import AbsolutePaths, is_url, local_path, name_in
from ..common.stores import StoreObject
from ..common.wording import counted
from . import formats, remote
from .file_lists import Root
from .patterns import NOT_INCLUDED, PathFilter
from .remote import StoreSearch

_EXCLUDED_DIRECTORY = "excluded directory"
_LISTED_DIRECTORY = "directory in the list"
_SNAPSHOT_DIRECTORY = "snapshot directory"
_PLURALS = {
    _EXCLUDED_DIRECTORY: "excluded directories",
    _LISTED_DIRECTORY: "directories in the list",
    _SNAPSHOT_DIRECTORY: "snapshot directories",
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


def _is_snapshot_directory(name: str) -> bool:
    """Say whether a directory of this name has earlier states of the whole volume, too many to list."""
    return name.casefold() in map(str.casefold, _SNAPSHOT_DIRECTORIES)


@dataclass(frozen=True, slots=True)
class Source:
    """One image to segment.

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
    """The images in the inputs, in order, and the number of ignored files by reason.

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
        text = f"ignored {counted(sum(self.ignored.values()), 'path')}: {', '.join(parts)}"
        if any(reason in formats.HEIF_SUFFIXES for reason in self.ignored):
            text += f" (for HEIC images {formats.HEIF_HINT})"
        return text


def _is_empty(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except OSError:
        return False


@dataclass(frozen=True)
class InputRequest:
    """Where to look for images.

    Parameters
    ----------
    inputs
        Image files, directories, glob patterns; URLs of objects, of "directories", with patterns.
    listed
        The names in a ``--files-from`` list, or None without one.
    root
        The directory or URL to which the names of listed files (and, when given, of input files) are
        relative.
    include, exclude
        Patterns (see `patterns`) that narrow what directories and patterns are searched for.
    ignore_case
        Whether these patterns match in upper and lower case.
    several
        Name images as with several inputs, although some of the directories are not there now.
    """

    inputs: Sequence[str] = ()
    listed: Sequence[str] | None = None
    root: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    several: bool = False
    ignore_case: bool = False

    @property
    def is_empty_list(self) -> bool:
        """Whether a list without names is all that is given."""
        return not self.inputs and self.listed is not None and not self.listed


def discover(request: InputRequest, *, output: str | None = None, keep_extension: bool = False) -> Found:
    """Find every image of a request.

    Parameters
    ----------
    request
        Where to look.
    output
        The output directory or its URL, never taken as input, or None where there is none.
    keep_extension
        Name outputs ``cat.jpg.png`` instead of ``cat.png``.

    Raises
    ------
    RequestError
        An input does not exist, is not supported, or is outside ``--root``; or a pattern is wrong.
    """
    return _Search(request, output, keep_extension=keep_extension).run()


class _Search:
    """Looks through a request's inputs, and leaves out what is not input."""

    def __init__(self, request: InputRequest, output: str | None, *, keep_extension: bool) -> None:
        self.found = Found()
        self._request = request
        self._filter = PathFilter(request.include, request.exclude, ignore_case=request.ignore_case)
        self._several = request.several or len(request.inputs) > 1
        self._root = Root(request.root)
        self._stores = StoreSearch(output)
        self._output = os.path.realpath(output) if output is not None else None
        self._keep_extension = keep_extension
        self._suffixes = formats.image_suffixes()
        self._taken: set[tuple[str, str]] = set()
        self._written_by_us: dict[str, bool] = {}
        self._absolute = AbsolutePaths()

    def run(self) -> Found:
        for given in self._request.inputs:
            self._add_input(local_path(given))
        listed = [local_path(given) for given in self._request.listed or ()]
        for given in listed:
            if not is_url(given):
                self._add_listed(given)
        self._add_listed_urls(list(filter(is_url, listed)))
        self.found.sources.sort(key=lambda source: source.image)
        return self.found

    def _add_input(self, given: str) -> None:
        if not given:
            raise RequestError("an input name is empty; is a variable in your script not set?")
        if is_url(given):
            self._add_url(given)
            return
        path = Path(given)
        if path.is_dir():
            self._add_folder(given, path.resolve().name if self._several else "")
        elif os.path.lexists(path):
            self._add_file(given, self._named(given, path.name))
        elif glob.has_magic(given):
            self._add_glob(given)
        else:
            raise RequestError(f"{given}: no such file or directory")

    def _named(self, given: str, name: str) -> str:
        """Return the name of a file that was given by itself: its own, unless there is a ``--root``."""
        return name if self._request.root is None else self._root.below(given)

    def _add_folder(self, given: str, prefix: str) -> None:
        real = os.path.realpath(given)
        if real == self._output or is_output_directory(real) or self._is_written_by_us(given):
            self.found.ignored[f"output directory of fcn ({given})"] = 1
            return
        self.found.directories.append(os.path.abspath(given))

        def leave_out(folder: str) -> bool:
            if folder != given and _is_snapshot_directory(os.path.basename(folder)):
                self._ignore(_SNAPSHOT_DIRECTORY)
                return True
            if not self._filter.leaves_out_all_below(_below(folder, given)):
                return False
            self._ignore(_EXCLUDED_DIRECTORY)
            return True

        def enter(folder: str, names: list[str]) -> bool:
            if folder == given:
                return True
            if Path(folder).name.startswith("."):
                self._ignore("hidden")
                return False
            if os.path.realpath(folder) == self._output:
                return False
            return not (SETTINGS_FILE in names and is_output_directory(folder))

        def failed(folder: str, error: OSError) -> None:
            self._add_unlistable(given, folder, prefix, error)

        for folder, names in files.walk(given, enter, failed, leave_out):
            start = f"{_below(folder, given)}/".removeprefix("/")
            inside = os.path.join(folder, "")
            for name in names:
                self._add_found(inside + name, start + name, prefix)

    def _add_unlistable(self, given: str, folder: str, prefix: str, error: OSError) -> None:
        if folder == given:
            raise RequestError(f"{given}: cannot be listed ({error.strerror})")
        below = _below(folder, given)
        if (kept_by_system := system_directory(f"{below}/")) is not None:
            self._ignore(f"in {kept_by_system}")
            return
        image = str(PurePosixPath(prefix, below))
        problem = Failure(FailureKind.UNREADABLE, f"this directory cannot be listed ({error.strerror})")
        self.found.sources.append(Source(image, folder, folder, "", None, None, problem))

    def _add_glob(self, pattern: str) -> None:
        fixed = pattern
        while glob.has_magic(fixed):
            fixed = os.path.dirname(fixed)
        matches = sorted(glob.iglob(pattern, recursive=True, include_hidden=False))
        if not matches:
            raise RequestError(f"{pattern}: no such file or directory, and the pattern matches nothing")
        for match in matches:
            if not os.path.isdir(match):
                self._add_found(match, Path(os.path.relpath(match, fixed or ".")).as_posix())

    def _add_listed(self, given: str) -> None:
        if os.path.isdir(given):
            self._ignore(_LISTED_DIRECTORY)
        else:
            self._add_file(given, self._root.below(given))

    def _add_url(self, given: str) -> None:
        found = [] if self._is_written_by_us(given) else self._stores.find(given)
        if isinstance(found, StoreObject):
            name = name_in(given).rpartition("/")[2]
            self._add_object(given, self._named(given, name), found)
            return
        if not found:
            self.found.ignored[f"output directory of fcn ({given})"] = 1
        prefix = _last_part(given) if self._several else ""
        for hit in found:
            # The names of what a pattern finds do not depend on other inputs, here as on a disk.
            self._add_found(hit.url, hit.below, "" if hit.by_pattern else prefix, hit.object)

    def _add_listed_urls(self, urls: Sequence[str]) -> None:
        names = {url: self._root.below(url) for url in urls if not url.endswith("/")}
        if directories := sum(url.endswith("/") for url in urls):
            self._ignore(_LISTED_DIRECTORY, directories)
        for url, found in self._stores.look_up(names):
            self._add_object(url, names[url], found)

    def _ignore(self, reason: str, count: int = 1) -> None:
        """Count files that are not input."""
        self.found.ignored[reason] += count

    def _is_written_by_us(self, folder: str) -> bool:
        """Return whether a directory is, or is below, one of a run's output directories (masks, color …)."""
        if folder not in self._written_by_us:
            if store_urls.is_url(folder):
                self._written_by_us[folder] = self._stores.is_written_by_us(folder)
            else:
                real = Path(os.path.realpath(folder or "."))
                self._written_by_us[folder] = any(
                    place.name in IMAGE_DIRECTORIES
                    and (str(place.parent) == self._output or is_output_directory(str(place.parent)))
                    for place in (real, *real.parents)
                )
        return self._written_by_us[folder]

    def _add_found(self, path: str, below: str, prefix: str = "", found: StoreObject | None = None) -> None:
        """Add a file or object that was found by searching, unless it is hidden or filtered out.

        `below` is its path below what was searched, and `prefix` comes before that in its name.
        """
        if "/" in below and (kept_by_system := system_directory(below)) is not None:
            self._ignore(f"in {kept_by_system}")
            return
        if below.startswith(".") or "/." in below:
            self._ignore("hidden")
            return
        suffix = os.path.splitext(below)[1].lower()
        if suffix not in self._suffixes:
            self._ignore(suffix or "without a suffix")
        elif left_out := self._filter.left_out(below):
            self._ignore(left_out)
            if left_out == NOT_INCLUDED and len(self.found.not_included) < _EXAMPLES:
                self.found.not_included.append(below)
        else:
            image = f"{prefix}/{below}" if prefix else below
            if found is None:
                self._add_file(path, image)
            else:
                self._add_object(path, image, found)

    def _add_file(self, path: str, image: str) -> None:
        """Add a file, whatever its suffix."""
        if self._is_written_by_us(os.path.dirname(path)):
            self._ignore(_IN_OUTPUT)
            return
        if not self._is_new(image, path):
            return
        size = mtime = None
        with contextlib.suppress(OSError):
            status = os.stat(path)
            size, mtime = status.st_size, status.st_mtime_ns
        self.found.sources.append(Source(image, path, path, self._output_name(image), size, mtime))

    def _add_object(self, url: str, image: str, found: StoreObject | OSError | None) -> None:
        """Add an object, whatever its suffix: what there is, None, or why that is not known."""
        if self._is_written_by_us(url.rpartition("/")[0]):
            self._ignore(_IN_OUTPUT)
            return
        if not self._is_new(image, url):
            return
        problem, output = None, self._output_name(image)
        known: tuple[int | None, int | None, str | None] = (None, None, None)
        if isinstance(found, StoreObject):
            known = remote.identity(found)
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


def _last_part(url: str) -> str:
    """Return the name of a "directory" or of the bucket."""
    parts = store_urls.split(url)
    return (parts.key.rstrip("/") or parts.root).rpartition("/")[2]


def _below(folder: str, top: str) -> str:
    """Return a directory's POSIX path relative to the searched directory; empty for that directory itself."""
    return "" if folder == top else Path(folder).relative_to(top).as_posix()
