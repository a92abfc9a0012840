"""Find the photos in a user's inputs, in order, each with the name of its outputs."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..common import files, store_urls
from ..common.errors import RequestError
from ..common.output_layout import SETTINGS_FILE, is_output_directory
from ..common.store_urls import is_url, local_path, name_in
from ..common.stores import StoreObject
from .patterns import PathFilter
from .roots import Root
from .sources import (
    EXCLUDED_DIRECTORY,
    LISTED_DIRECTORY,
    SNAPSHOT_DIRECTORY,
    Collector,
    Found,
    Source,
    is_snapshot_directory,
    system_directory,
)

__all__ = ["Found", "InputRequest", "Source", "discover"]


@dataclass(frozen=True)
class InputRequest:
    """Where to look for photos.

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
        Name photos as with several inputs, although some of the directories are not there now.
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
    """Find every photo of a request.

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
    chosen = PathFilter(request.include, request.exclude, ignore_case=request.ignore_case)
    collector = Collector(chosen, output, keep_extension=keep_extension)
    return _Discovery(request, collector).run()


class _Discovery:
    def __init__(self, request: InputRequest, collector: Collector) -> None:
        self.request = request
        self.collector = collector
        self.found = collector.found
        self.stores = collector.stores
        self.several = request.several or len(request.inputs) > 1
        self.root = Root(request.root)

    def run(self) -> Found:
        for given in self.request.inputs:
            self._add_input(local_path(given))
        listed = [local_path(given) for given in self.request.listed or ()]
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
            self._add_folder(given, path.resolve().name if self.several else "")
        elif os.path.lexists(path):
            self.collector.add_file(
                given, self.root.below(given) if self.request.root is not None else path.name
            )
        elif glob.has_magic(given):
            self._add_glob(given)
        else:
            raise RequestError(f"{given}: no such file or directory")

    def _named(self, given: str, name: str) -> str:
        """Return the name of a file that was given by itself: its own, unless there is a ``--root``."""
        return name if self.request.root is None else self.root.below(given)

    def _add_folder(self, given: str, prefix: str) -> None:
        real = os.path.realpath(given)
        if (
            real == self.collector.output
            or is_output_directory(real)
            or self.collector.is_written_by_us(given)
        ):
            self.found.ignored[f"output directory of fcn ({given})"] = 1
            return
        self.found.directories.append(os.path.abspath(given))

        def leave_out(folder: str) -> bool:
            if folder != given and is_snapshot_directory(os.path.basename(folder)):
                self.collector.ignore(SNAPSHOT_DIRECTORY)
                return True
            if not self.collector.filter.leaves_out_all_below(_below(folder, given)):
                return False
            self.collector.ignore(EXCLUDED_DIRECTORY)
            return True

        def enter(folder: str, names: list[str]) -> bool:
            if folder == given:
                return True
            if Path(folder).name.startswith("."):
                self.collector.ignore("hidden")
                return False
            if os.path.realpath(folder) == self.collector.output:
                return False
            return not (SETTINGS_FILE in names and is_output_directory(folder))

        def failed(folder: str, error: OSError) -> None:
            self._add_unlistable(given, folder, prefix, error)

        for folder, names in files.walk(given, enter, failed, leave_out):
            start = f"{_below(folder, given)}/".removeprefix("/")
            inside = os.path.join(folder, "")
            for name in names:
                self.collector.search(inside + name, start + name, prefix)

    def _add_unlistable(self, given: str, folder: str, prefix: str, error: OSError) -> None:
        if folder == given:
            raise RequestError(f"{given}: cannot be listed ({error.strerror})")
        below = _below(folder, given)
        if (kept_by_system := system_directory(f"{below}/")) is not None:
            self.collector.ignore(f"in {kept_by_system}")
            return
        self.collector.add_unlistable(folder, str(PurePosixPath(prefix, below)), error)

    def _add_glob(self, pattern: str) -> None:
        fixed = pattern
        while glob.has_magic(fixed):
            fixed = os.path.dirname(fixed)
        matches = sorted(glob.iglob(pattern, recursive=True, include_hidden=False))
        if not matches:
            raise RequestError(f"{pattern}: no such file or directory, and the pattern matches nothing")
        for match in matches:
            if not os.path.isdir(match):
                self.collector.search(match, Path(os.path.relpath(match, fixed or ".")).as_posix())

    def _add_listed(self, given: str) -> None:
        if os.path.isdir(given):
            self.collector.ignore(LISTED_DIRECTORY)
        else:
            self.collector.add_file(given, self.root.below(given))

    def _add_url(self, given: str) -> None:
        found = [] if self.collector.is_written_by_us(given) else self.stores.find(given)
        if isinstance(found, StoreObject):
            name = name_in(given).rpartition("/")[2]
            self.collector.add_object(given, self._named(given, name), found)
            return
        if not found:
            self.found.ignored[f"output directory of fcn ({given})"] = 1
        prefix = _last_part(given) if self.several else ""
        for hit in found:
            # The names of what a pattern finds do not depend on other inputs, here as on a disk.
            self.collector.search(hit.url, hit.below, "" if hit.by_pattern else prefix, hit.object)

    def _add_listed_urls(self, urls: Sequence[str]) -> None:
        names = {url: self.root.below(url) for url in urls if not url.endswith("/")}
        if directories := sum(url.endswith("/") for url in urls):
            self.collector.ignore(LISTED_DIRECTORY, directories)
        for url, found in self.stores.look_up(names):
            self.collector.add_object(url, names[url], found)


def _last_part(url: str) -> str:
    """Return the name of a "directory" or of the bucket."""
    parts = store_urls.split(url)
    return (parts.key.rstrip("/") or parts.root).rpartition("/")[2]


def _below(folder: str, top: str) -> str:
    """Return a directory's POSIX path relative to the searched directory; empty for that directory itself."""
    return "" if folder == top else Path(folder).relative_to(top).as_posix()
