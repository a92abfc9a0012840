"""Folders of label maps as they are found: output directories of ours, or index PNGs of anybody's."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import RequestError
from .outputs import read_classes
from .sources import SETTINGS_FILE, is_output_folder

# The kinds of output that are label maps, the better one first.
_KINDS = ("masks", "color")


class LabelFolder:
    """The label maps of a folder, by name: the path below it without the suffix ``.png``.

    Of an output directory, known by its settings, they are the masks, or else the colours; `class_names` and
    `settings` (those that shape the labels) are then what it says of itself, else None.

    Raises
    ------
    RequestError
        It is no folder, or holds no label map.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        ours = is_output_folder(str(root))
        self.class_names: tuple[str, ...] | None = tuple(read_classes(root) or ()) or None if ours else None
        self.settings = _settings(root) if ours else None
        places = [root / kind for kind in _KINDS if (root / kind).is_dir()] if ours else [root]
        if not root.is_dir() or not places:
            raise RequestError(f"{root}: not a folder of label maps, nor an output directory with masks")
        self._place = places[0]

    def names(self) -> list[str]:
        """Return the names of all label maps, sorted."""
        return sorted(
            path.relative_to(self._place).as_posix()[: -len(path.suffix)]
            for path in self._place.rglob("*")
            if path.suffix.lower() == ".png" and not path.name.startswith(".") and path.is_file()
        )

    def path(self, name: str) -> Path:
        """Return the file of a name."""
        return self._place / f"{name}.png"

    def find(self, image: str) -> Path:
        """Return the file that ``sub/cat.jpg`` should have: ``sub/cat.png``, or ``sub/cat.jpg.png``."""
        kept = self.path(image)
        return kept if kept.exists() else self.path(str(PurePosixPath(image).with_suffix("")))


def _settings(root: Path) -> dict[str, Any] | None:
    try:
        labels = json.loads((root / SETTINGS_FILE).read_bytes())["labels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return labels if isinstance(labels, dict) else None
