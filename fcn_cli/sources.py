"""Inputs as people give them to an ordered list of photos, each with the name its outputs will have."""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from . import storage
from .errors import Failure, FailureKind, RequestError

SETTINGS_FILE = "settings.json"
SETTINGS_MARK = "fcn_settings"
"""The key that makes a ``settings.json`` ours, and its folder an output directory."""
OUTPUT_FOLDERS = frozenset({"masks", "color", "overlay", "confidence"})
_HEIC = (".heic", ".heif")


@dataclass(frozen=True, slots=True)
class Source:
    """One photo to segment.

    `image` is its name in the records: a relative POSIX path. `path` opens it; `given` is how the user's
    input leads to it. `size_bytes` and `mtime_ns` are None for a file that is not there.
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
    """What the inputs held: sources in order, and how many names were ignored, by reason.

    `directories` are the inputs that were searched, as absolute paths.
    """

    sources: list[Source] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    directories: list[str] = field(default_factory=list)

    def ignored_text(self) -> str:
        """Say what was ignored in one line, with the hint for HEIC; empty when nothing was."""
        if not self.ignored:
            return ""
        parts = [f"{count} {reason}" for reason, count in sorted(self.ignored.items())]
        text = f"ignored {sum(self.ignored.values())}: {', '.join(parts)}"
        if any(reason in _HEIC for reason in self.ignored):
            text += " (HEIC photos: convert them to JPEG first, for example with `heif-convert`)"
        return text


@dataclass(frozen=True)
class Request:
    """Where to look, and how to name what is found.

    Parameters
    ----------
    inputs
        Image files, folders, glob patterns.
    listed
        The names in a ``--files-from`` list, or None without one.
    root
        The folder to which the names of listed files (and, when given, of input files) are relative.
    output
        The output directory, never taken as input, or None where there is none.
    suffixes
        Lower-case suffixes of photos.
    keep_extension
        Name outputs ``cat.jpg.png`` instead of ``cat.png``.
    """

    inputs: Sequence[str]
    listed: Sequence[str] | None
    root: str | None
    output: str | None
    suffixes: frozenset[str]
    keep_extension: bool = False


def discover(request: Request) -> Found:
    """Find every photo of a request.

    Raises
    ------
    RequestError
        An input does not exist, is not supported, or lies outside ``--root``.
    """
    return _Discovery(request).run()


def parse_list(data: bytes, *, null: bool) -> list[str]:
    """Split a ``--files-from`` list into names; empty ones are dropped, any bytes are allowed in a name."""
    names = [name for name in data.split(b"\0" if null else b"\n") if name]
    if not null and all(name.endswith(b"\r") for name in names):
        names = [name[:-1] for name in names]
    return [os.fsdecode(name) for name in names if name]


def is_output_folder(folder: str) -> bool:
    """Say whether a folder is the output directory of some run (known by its settings file)."""
    try:
        content = json.loads(Path(folder, SETTINGS_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and SETTINGS_MARK in content


class _Discovery:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.found = Found()
        self.output = os.path.realpath(request.output) if request.output is not None else None
        self.several = len(request.inputs) > 1
        self.root = os.path.abspath(request.root or ".")
        self.taken: set[tuple[str, str]] = set()
        self.written_by_us: dict[str, bool] = {}

    def run(self) -> Found:
        for given in self.request.inputs:
            self._add_input(given)
        for given in self.request.listed or ():
            self._add_listed(given)
        self.found.sources.sort(key=lambda source: source.image)
        return self.found

    def _add_input(self, given: str) -> None:
        if "://" in given:
            raise RequestError(f"{given}: URLs are not supported as input; copy the photos here first")
        path = Path(given)
        if path.is_dir():
            prefix = path.resolve().name if self.several else ""
            self._add_folder(given, prefix)
        elif os.path.lexists(path):
            name = self._below_root(given) if self.request.root is not None else path.name
            self._add_file(given, given, name)
        elif glob.has_magic(given):
            self._add_glob(given)
        else:
            raise RequestError(f"{given}: no such file or folder")

    def _add_folder(self, given: str, prefix: str) -> None:
        real = os.path.realpath(given)
        if real == self.output or is_output_folder(real) or self._is_written_by_us(given):
            self.found.ignored[f"output directory of fcn ({given})"] += 1
            return

        self.found.directories.append(os.path.abspath(given))

        def enter(folder: str, names: list[str]) -> bool:
            if folder == given:
                return True
            if Path(folder).name.startswith("."):
                self.found.ignored["hidden"] += 1
                return False
            if os.path.realpath(folder) == self.output:
                return False
            return not (SETTINGS_FILE in names and is_output_folder(folder))

        def failed(folder: str, error: OSError) -> None:
            self._add_unlistable(given, folder, prefix, error)

        for folder, names in storage.walk(given, enter, failed):
            below = PurePosixPath(prefix, Path(folder).relative_to(given).as_posix())
            for name in names:
                path = os.path.join(folder, name)
                self._add_file(path, path, str(below / name))

    def _is_written_by_us(self, folder: str) -> bool:
        """Say whether a folder is (below) one that a run keeps its masks, colours … in."""
        if folder not in self.written_by_us:
            real = Path(os.path.realpath(folder or "."))
            self.written_by_us[folder] = any(
                place.name in OUTPUT_FOLDERS
                and (str(place.parent) == self.output or is_output_folder(str(place.parent)))
                for place in (real, *real.parents)
            )
        return self.written_by_us[folder]

    def _add_unlistable(self, given: str, folder: str, prefix: str, error: OSError) -> None:
        if folder == given:
            raise RequestError(f"{given}: cannot be listed ({error.strerror})")
        if Path(folder).name == "lost+found":
            self.found.ignored["lost+found"] += 1
            return
        name = str(PurePosixPath(prefix, Path(folder).relative_to(given).as_posix()))
        problem = Failure(FailureKind.UNREADABLE, f"this folder cannot be listed ({error.strerror})")
        self.found.sources.append(Source(name, folder, folder, "", None, None, problem))

    def _add_glob(self, pattern: str) -> None:
        fixed = pattern
        while glob.has_magic(fixed):
            fixed = os.path.dirname(fixed)
        matches = sorted(glob.iglob(pattern, recursive=True, include_hidden=False))
        if not matches:
            raise RequestError(f"{pattern}: no such file or folder, and as a pattern it matches nothing")
        for match in matches:
            if Path(match).is_dir():
                continue
            self._add_file(match, match, os.path.relpath(match, fixed or "."))

    def _add_listed(self, given: str) -> None:
        if Path(given).is_dir():
            self.found.ignored["in the list, but a folder"] += 1
        else:
            self._add_file(given, given, self._below_root(given))

    def _below_root(self, given: str) -> str:
        path = os.path.abspath(given)
        if not storage.is_within(path, self.root):
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for root in (self.root, os.path.realpath(self.root)):
            if storage.is_within(path, root) and path != root:
                return os.path.relpath(path, root)
        raise RequestError(
            f"{given}: not below {self.root}; name the folder its outputs are relative to with --root"
        )

    def _add_file(self, path: str, given: str, name: str) -> None:
        image = PurePosixPath(Path(name).as_posix())
        if any(part.startswith(".") for part in image.parts):
            self.found.ignored["hidden"] += 1
            return
        suffix = image.suffix.lower()
        if suffix not in self.request.suffixes:
            self.found.ignored[suffix or "without a suffix"] += 1
            return
        if self._is_written_by_us(os.path.dirname(path)):
            self.found.ignored["in an output directory of fcn"] += 1
            return
        identity = (str(image), os.path.abspath(path))
        if identity in self.taken:
            return
        self.taken.add(identity)
        size = mtime = None
        with contextlib.suppress(OSError):
            status = os.stat(path)
            size, mtime = status.st_size, status.st_mtime_ns
        output = f"{image}.png" if self.request.keep_extension else str(image.with_suffix(".png"))
        self.found.sources.append(Source(str(image), path, given, output, size, mtime))
