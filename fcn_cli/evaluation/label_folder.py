"""Directories of label maps: output directories of ours, or index PNGs of anybody's."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from ..common.errors import RequestError
from ..common.files import walk
from ..common.output_layout import SETTINGS_FILE, is_output_folder, label_kinds
from ..outputs.directory import read_classes

_SUFFIX = ".png"


def label_files(root: Path) -> dict[str, Path]:
    """Return the PNGs below a directory: name (relative POSIX path without its suffix) → file, sorted.

    The suffix counts in upper and lower case. Hidden files and directories are left out: macOS, for example,
    puts a hidden ``._cat.png`` beside each ``cat.png`` on a network drive.

    Raises
    ------
    RequestError
        The directory or one below it cannot be listed, or two files have one name (x.png and x.PNG).
    """

    def enter(folder: str, _: list[str]) -> bool:
        return folder == str(root) or not Path(folder).name.startswith(".")

    def failed(folder: str, error: OSError) -> None:
        raise RequestError(f"{folder}: cannot be listed ({error.strerror})") from None

    files: dict[str, Path] = {}
    for folder, names in walk(str(root), enter, failed):
        for file_name in names:
            path = Path(folder, file_name)
            if file_name.startswith(".") or path.suffix.lower() != _SUFFIX or not path.is_file():
                continue
            name = path.relative_to(root).as_posix()[: -len(_SUFFIX)]
            if name in files:
                raise RequestError(f"{files[name]} and {path} have the same name; keep one of them")
            files[name] = path
    return dict(sorted(files.items()))


def find_label_file(files: dict[str, Path], image: str) -> str | None:
    """Return the name of the label map of ``sub/cat.jpg``: ``sub/cat.jpg``, else ``sub/cat``, else None."""
    stem = str(PurePosixPath(image).with_suffix(""))
    return next((name for name in (image, stem) if name in files), None)


class LabelFolder:
    """The label maps of a directory, by name: the path below it without its suffix ``.png``.

    Of an output directory, known by its settings, they are the masks, or else the colours; `class_names` and
    `settings` (those that shape the labels) are then what it says of itself, else None. The same goes for
    the directory of its masks or its colours. `is_ours` says whether it is one of these: our label maps
    are always upright.

    Raises
    ------
    RequestError
        It is no directory, cannot be listed, or holds no label map.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            reason = "not a directory" if root.exists() else "no such directory"
            raise RequestError(f"{root}: {reason}; give an output directory, or one with index PNGs")
        output = _output_folder(root)
        self.is_ours = output is not None
        self.class_names: tuple[str, ...] | None = (
            tuple(read_classes(output) or ()) or None if output else None
        )
        self.settings = _settings(output) if output else None
        places = (
            [root / kind for kind in label_kinds() if (root / kind).is_dir()] if output == root else [root]
        )
        if not places:
            raise RequestError(f"{root}: an output directory without {' or '.join(label_kinds())}")
        self._place = places[0]
        self._files = label_files(self._place)

    def names(self) -> list[str]:
        """Return the names of all label maps, sorted."""
        return list(self._files)

    def file_names(self) -> list[str]:
        """Return the relative paths of all label maps, sorted by name."""
        return [path.relative_to(self._place).as_posix() for path in self._files.values()]

    def expected(self, image: str) -> str:
        """Return the relative path ``sub/cat.png`` for ``sub/cat.jpg``."""
        return str(PurePosixPath(image).with_suffix(_SUFFIX))

    def path(self, name: str) -> Path:
        """Return the file of a name."""
        return self._files.get(name) or self._place / f"{name}{_SUFFIX}"

    def has(self, image: str) -> bool:
        """Say whether there is a label map of an image."""
        return find_label_file(self._files, image) is not None

    def find(self, image: str) -> Path:
        """Return the file that ``sub/cat.jpg`` has or should have, ``sub/cat.jpg.png`` or ``sub/cat.png``."""
        return self.path(find_label_file(self._files, image) or str(PurePosixPath(image).with_suffix("")))


def _output_folder(root: Path) -> Path | None:
    """Return the output directory of ours that this is, or whose masks or colours it holds."""
    if is_output_folder(str(root)):
        return root
    place = root.resolve()
    return place.parent if place.name in label_kinds() and is_output_folder(str(place.parent)) else None


def _settings(root: Path) -> dict[str, Any] | None:
    try:
        labels = json.loads((root / SETTINGS_FILE).read_bytes())["labels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return labels if isinstance(labels, dict) else None
