"""Find the photos in a user's inputs, in order, each with the name of its outputs."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..common import files
from ..common.absolute_paths import AbsolutePaths
from ..common.errors import Failure, FailureKind, RequestError
from ..common.output_layout import IMAGE_DIRECTORIES, SETTINGS_FILE, is_output_directory
from . import formats
from .patterns import PathFilter

_EXCLUDED_DIRECTORY = "excluded directory"
_LISTED_DIRECTORY = "directory in the list"
_PLURALS = {_EXCLUDED_DIRECTORY: "excluded directories", _LISTED_DIRECTORY: "directories in the list"}


@dataclass(frozen=True, slots=True)
class Source:
    """One photo to segment.

    `image` is its name in the records, a relative POSIX path; `output` is the relative path of its outputs,
    or empty. `path` is the path to open, `given` the path in terms of the user's input. `size_bytes` and
    `mtime_ns` are None for a file that does not exist.
    """

    image: str
    path: str
    given: str
    output: str
    size_bytes: int | None
    mtime_ns: int | None
    problem: Failure | None = None


@dataclass
class Found:
    """The photos in the inputs, in order, and the number of ignored files by reason.

    `directories` holds the absolute paths of the input directories that were searched.
    """

    sources: list[Source] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    directories: list[str] = field(default_factory=list)

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


@dataclass(frozen=True)
class InputRequest:
    """Where to look for photos.

    Parameters
    ----------
    inputs
        Image files, directories, glob patterns.
    listed
        The names in a ``--files-from`` list, or None without one.
    root
        The directory to which the names of listed files (and, when given, of input files) are relative.
    include, exclude
        Patterns (see `patterns`) that narrow what directories and patterns are searched for.
    several
        Name photos as with several inputs, although some of the directories are not there now.
    """

    inputs: Sequence[str] = ()
    listed: Sequence[str] | None = None
    root: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    several: bool = False

    @property
    def is_empty_list(self) -> bool:
        """Whether a list without names is all that is given."""
        return not self.inputs and self.listed is not None and not self.listed


def discover(request: InputRequest, *, output: str | None = None, keep_extension: bool = False) -> Found:
    """Find every photo of a request.

    Parameters
    ----------
    request
        Where to look.
    output
        The output directory, never taken as input, or None where there is none.
    keep_extension
        Name outputs ``cat.jpg.png`` instead of ``cat.png``.

    Raises
    ------
    RequestError
        An input does not exist, is not supported, or is outside ``--root``; or a pattern is wrong.
    """
    return _Discovery(request, output, keep_extension=keep_extension).run()


class _Discovery:
    def __init__(self, request: InputRequest, output: str | None, *, keep_extension: bool) -> None:
        self.request = request
        self.keep_extension = keep_extension
        self.suffixes = formats.photo_suffixes()
        self.filter = PathFilter(request.include, request.exclude)
        self.found = Found()
        self.output = os.path.realpath(output) if output is not None else None
        self.several = request.several or len(request.inputs) > 1
        self.root = os.path.abspath(request.root or ".")
        self.real_root = os.path.realpath(self.root)
        self.taken: set[tuple[str, str]] = set()
        self.written_by_us: dict[str, bool] = {}
        self.absolute = AbsolutePaths()

    def run(self) -> Found:
        for given in self.request.inputs:
            self._add_input(given)
        for given in self.request.listed or ():
            self._add_listed(given)
        self.found.sources.sort(key=lambda source: source.image)
        return self.found

    def _add_input(self, given: str) -> None:
        if not given:
            raise RequestError("an input name is empty; is a variable in your script not set?")
        if "://" in given:
            raise RequestError(f"{given}: URLs are not supported as input; copy the photos here first")
        path = Path(given)
        if path.is_dir():
            self._add_folder(given, path.resolve().name if self.several else "")
        elif os.path.lexists(path):
            name = self._below_root(given) if self.request.root is not None else path.name
            self._add_file(given, name)
        elif glob.has_magic(given):
            self._add_glob(given)
        else:
            raise RequestError(f"{given}: no such file or directory")

    def _add_folder(self, given: str, prefix: str) -> None:
        real = os.path.realpath(given)
        if real == self.output or is_output_directory(real) or self._is_written_by_us(given):
            self.found.ignored[f"output directory of fcn ({given})"] = 1
            return
        self.found.directories.append(os.path.abspath(given))

        def leave_out(folder: str) -> bool:
            if not self.filter.leaves_out_all_below(_below(folder, given)):
                return False
            self.found.ignored[_EXCLUDED_DIRECTORY] += 1
            return True

        def enter(folder: str, names: list[str]) -> bool:
            if folder == given:
                return True
            if Path(folder).name.startswith("."):
                self.found.ignored["hidden"] += 1
                return False
            if os.path.realpath(folder) == self.output:
                return False
            return not (SETTINGS_FILE in names and is_output_directory(folder))

        def failed(folder: str, error: OSError) -> None:
            self._add_unlistable(given, folder, prefix, error)

        for folder, names in files.walk(given, enter, failed, leave_out):
            start = f"{_below(folder, given)}/".removeprefix("/")
            inside = os.path.join(folder, "")
            for name in names:
                self._search_file(inside + name, start + name, prefix)

    def _is_written_by_us(self, folder: str) -> bool:
        """Return whether a directory is, or is below, one of a run's output directories (masks, color …)."""
        if folder not in self.written_by_us:
            real = Path(os.path.realpath(folder or "."))
            self.written_by_us[folder] = any(
                place.name in IMAGE_DIRECTORIES
                and (str(place.parent) == self.output or is_output_directory(str(place.parent)))
                for place in (real, *real.parents)
            )
        return self.written_by_us[folder]

    def _add_unlistable(self, given: str, folder: str, prefix: str, error: OSError) -> None:
        if folder == given:
            raise RequestError(f"{given}: cannot be listed ({error.strerror})")
        if Path(folder).name == "lost+found":
            self.found.ignored["lost+found"] += 1
            return
        name = str(PurePosixPath(prefix, _below(folder, given)))
        problem = Failure(FailureKind.UNREADABLE, f"this directory cannot be listed ({error.strerror})")
        self.found.sources.append(Source(name, folder, folder, "", None, None, problem))

    def _add_glob(self, pattern: str) -> None:
        fixed = pattern
        while glob.has_magic(fixed):
            fixed = os.path.dirname(fixed)
        matches = sorted(glob.iglob(pattern, recursive=True, include_hidden=False))
        if not matches:
            raise RequestError(f"{pattern}: no such file or directory, and the pattern matches nothing")
        for match in matches:
            if not os.path.isdir(match):
                self._search_file(match, Path(os.path.relpath(match, fixed or ".")).as_posix())

    def _add_listed(self, given: str) -> None:
        if os.path.isdir(given):
            self.found.ignored[_LISTED_DIRECTORY] += 1
        else:
            self._add_file(given, self._below_root(given))

    def _below_root(self, given: str) -> str:
        path = self.absolute(given)
        if not files.is_within(path, self.root):
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for root in (self.root, self.real_root):
            if files.is_within(path, root) and path != root:
                return path[len(root.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
        raise RequestError(
            f"{given}: not below {self.root}; set --root to the directory that output names are relative to"
        )

    def _search_file(self, path: str, below: str, prefix: str = "") -> None:
        """Add a file that was found by searching, unless it is hidden or filtered out."""
        if below.startswith(".") or "/." in below:
            self.found.ignored["hidden"] += 1
            return
        suffix = os.path.splitext(below)[1].lower()
        if suffix not in self.suffixes:
            self.found.ignored[suffix or "without a suffix"] += 1
        elif left_out := self.filter.left_out(below):
            self.found.ignored[left_out] += 1
        else:
            self._add_file(path, f"{prefix}/{below}" if prefix else below)

    def _add_file(self, path: str, image: str) -> None:
        """Add a file, whatever its suffix."""
        if self._is_written_by_us(os.path.dirname(path)):
            self.found.ignored["in an output directory of fcn"] += 1
            return
        identity = (image, self.absolute(path))
        if identity in self.taken:
            return
        self.taken.add(identity)
        size = mtime = None
        with contextlib.suppress(OSError):
            status = os.stat(path)
            size, mtime = status.st_size, status.st_mtime_ns
        stem, suffix = os.path.splitext(image)
        replaced = suffix.lower() in formats.KNOWN_SUFFIXES and not self.keep_extension
        output = stem if replaced else image
        self.found.sources.append(Source(image, path, path, f"{output}.png", size, mtime))


def _below(folder: str, top: str) -> str:
    """Return a directory's POSIX path relative to the searched directory; empty for that directory itself."""
    return "" if folder == top else Path(folder).relative_to(top).as_posix()
