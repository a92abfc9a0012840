"""Directories of label maps: output directories of `fcn`, or images of class indices from elsewhere."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ..common import files
from ..common.errors import RequestError
from ..common.files import walk
from ..common.label_map import Size, open_image, open_png
from ..common.output_layout import SETTINGS_FILE, is_output_directory, label_types
from ..inputs.discovery import system_directory
from ..outputs.directory import read_background, read_classes

PNG = ".png"
LOSSLESS_SUFFIXES = (PNG, ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm", ".pnm")
"""What keeps class indices as they are; JPEG changes pixel values."""

_LOSSLESS_FORMATS = ("TIFF", "BMP", "GIF", "PPM")


def open_label_image(path: Path, *sizes: Size) -> contextlib.AbstractContextManager[Image.Image]:
    """Open an image of a lossless format; see `label_map.open_image`."""
    if path.suffix.lower() == PNG:
        return open_png(path, *sizes)

    def opener(data: io.BytesIO) -> Image.Image:
        return Image.open(data, formats=_LOSSLESS_FORMATS)

    return open_image(path, opener, *sizes)


def size_of(path: Path) -> Size:
    """Return a label map's (width, height) from its header; raises ImageError."""
    with open_label_image(path) as opened:
        return opened.size


def label_files(root: Path, suffixes: Sequence[str] = (PNG,), ending: str = "") -> dict[str, Path]:
    """Return the label maps below a directory: name (relative POSIX path, no suffix) → file, sorted.

    The suffix may be in upper or lower case; a name must end in `ending`. Hidden files and directories are
    ignored: macOS, for example, writes a hidden ``._cat.png`` beside each ``cat.png`` on a network drive. So
    are directories that systems keep for themselves (`system_directory`).

    Raises
    ------
    RequestError
        A directory cannot be listed, or two files have the same name (x.png and x.PNG).
    """

    def enter(folder: str, _: list[str]) -> bool:
        return folder == str(root) or not Path(folder).name.startswith(".")

    def failed(folder: str, error: OSError) -> None:
        raise RequestError(f"{folder}: cannot be listed ({error.strerror})") from None

    def leave_out(folder: str) -> bool:
        return folder != str(root) and system_directory(f"{Path(folder).name}/") is not None

    found: dict[str, Path] = {}
    for folder, names in walk(str(root), enter, failed, leave_out):
        for file_name in names:
            path = Path(folder, file_name)
            is_wanted = path.suffix.lower() in suffixes and path.stem.endswith(ending)
            if file_name.startswith(".") or not is_wanted or not path.is_file():
                continue
            name = path.relative_to(root).as_posix()[: -len(path.suffix)]
            if name in found:
                raise RequestError(f"{found[name]} and {path} have the same name; keep one of them")
            found[name] = path
    return dict(sorted(found.items()))


def find_label_file(files: dict[str, Path], image: str, ending: str = "") -> str | None:
    """Return the name of the label map for ``sub/cat.jpg``: ``sub/cat.jpg``, else ``sub/cat``, else None."""
    stem = str(PurePosixPath(image).with_suffix(""))
    return next((name for name in (image + ending, stem + ending) if name in files), None)


class LabelFolder:
    """The label maps of a directory, by name: the path below it without its suffix ``.png``.

    For an output directory (or its ``masks`` or ``color`` directory), the label maps are its masks, or else
    its colours. `class_names`, the index of their `background` and `settings` (those that shape the labels)
    are then read from it, and `is_ours` is true: our label maps are always upright. For any other directory
    they are None.

    Raises
    ------
    RequestError
        The path is not a directory or cannot be listed, or the output directory has no label maps.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            reason = "not a directory" if root.exists() else "no such directory"
            raise RequestError(f"{root}: {reason}; give an output directory, or a directory of index PNGs")
        output = _output_folder(root)
        self.is_ours = output is not None
        self.class_names: tuple[str, ...] | None = (
            tuple(read_classes(output) or ()) or None if output else None
        )
        self.background = read_background(output) if output else None
        self.settings = _settings(output) if output else None
        places = (
            [root / output_type for output_type in label_types() if (root / output_type).is_dir()]
            if output == root
            else [root]
        )
        if not places:
            raise RequestError(f"{root}: an output directory without {' or '.join(label_types())}")
        self._place = places[0]
        self._files = label_files(self._place)

    def names(self) -> list[str]:
        return list(self._files)

    def file_names(self) -> list[str]:
        return [path.relative_to(self._place).as_posix() for path in self._files.values()]

    def expected(self, image: str) -> str:
        return str(PurePosixPath(image).with_suffix(PNG))

    def path(self, name: str) -> Path:
        """Return the file with a name; it may be missing."""
        return self._files.get(name) or self._place / f"{name}{PNG}"

    def has(self, image: str) -> bool:
        return find_label_file(self._files, image) is not None

    def find(self, image: str) -> Path:
        """Return the file for ``sub/cat.jpg``: ``sub/cat.jpg.png`` if it exists, else ``sub/cat.png``."""
        return self.path(find_label_file(self._files, image) or str(PurePosixPath(image).with_suffix("")))


def _output_folder(root: Path) -> Path | None:
    """Return the output directory of `fcn` that `root` is, or whose masks or colours it contains."""
    if is_output_directory(str(root)):
        return root
    place = root.resolve()
    return place.parent if place.name in label_types() and is_output_directory(str(place.parent)) else None


def _settings(root: Path) -> dict[str, Any] | None:
    try:
        labels = files.read_small_json(root / SETTINGS_FILE)["labels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return labels if isinstance(labels, dict) else None
