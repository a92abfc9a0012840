"""Directories that appear whole: built beside their final place under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...common import files
from ...common.errors import OutputLost, RequestError

MARKER_FILE = ".fcn-export.json"
"""Says that `fcn export` wrote a directory, so that ``--overwrite`` may remove it."""


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Check that a directory may be written: it is missing, empty, or an earlier export to overwrite.

    Raises
    ------
    RequestError
        It may not.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        raise RequestError(f"--output {path}: is not a directory; give a new one")
    if not any(path.iterdir()):
        return
    if not (path / MARKER_FILE).is_file():
        raise RequestError(
            f"--output {path}: holds files that fcn export did not write; give a new directory"
        )
    if not overwrite:
        raise RequestError(f"--output {path}: exists; give another one, or --overwrite to replace it")


@contextlib.contextmanager
def building(path: Path, format_name: str) -> Iterator[Path]:
    """Return a temporary directory that takes the place of `path` when the context ends without an error.

    Raises
    ------
    OutputLost
        The directory cannot be made or renamed; as with any other error, nothing of it stays.
    """
    with OutputLost.when_refused(path):
        files.make_directories(path.parent)
        new = files.temporary_in(path.parent)
        new.mkdir()
    try:
        with OutputLost.when_refused(path):
            (new / MARKER_FILE).write_text(json.dumps({"format": format_name}) + "\n")
            yield new
            _put_in_place(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put_in_place(new: Path, path: Path) -> None:
    if hasattr(os, "sync"):
        # One for all files: an fsync for each takes hours for a million photos.
        os.sync()
    old = files.temporary_in(path.parent)
    with contextlib.suppress(FileNotFoundError):
        path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    files.sync_directories([path.parent])
    shutil.rmtree(old, ignore_errors=True)
