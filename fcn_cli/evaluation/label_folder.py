"""Label maps from other tools: read their files, and list directories of them.

A pixel holds a *value*: a class index, or the place of its colour in a table.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..common import files
from ..common.errors import FailureKind, ImageError, RequestError
from ..common.files import walk
from ..common.label_map import VOID_INDEX, Size, open_image, open_png
from ..common.output_layout import SETTINGS_FILE, is_output_directory, label_types
from ..inputs.discovery import system_directory
from ..outputs.directory import read_background, read_classes

PNG = ".png"
LOSSLESS_SUFFIXES = (PNG, ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm", ".pnm")
"""What keeps class indices as they are; JPEG changes pixel values."""

MOST_VALUES = 1 << 16
"""As many as 16 bits have."""

_LOSSLESS_FORMATS = ("TIFF", "BMP", "GIF", "PPM")
_STRIP_PIXELS = 1 << 20
_COLOR_MODES = frozenset({"RGB", "RGBA"})
_USE_INDICES = "save each pixel's class index (0 is background, 255 is ignored) as 8-bit grey or paletted PNG"


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


Values = NDArray[np.uint8] | NDArray[np.uint16]
"""The values of a truth's pixels, shape (height, width)."""


class Pixels(NamedTuple):
    """A truth's values as they are in its file; `is_grey` where nothing but grey says what they mean."""

    values: Values
    is_grey: bool


def read_values(path: Path, *sizes: Size) -> Pixels:
    """Return the values of a label map of indices: 8 or 16 bits of grey, a palette, or RGB with R=G=B."""
    with open_label_image(path, *sizes) as opened:
        mode = opened.mode
        if mode in {"L", "P"}:
            return Pixels(_in_strips(opened), mode == "L")
        if mode == "1":
            return Pixels(np.asarray(opened.convert("L")), is_grey=True)
        if mode.startswith("I"):
            return Pixels(_wide(path, opened), is_grey=False)
        if mode in _COLOR_MODES or mode == "LA":
            return Pixels(_grey_of(path, opened), is_grey=True)
    raise ImageError(FailureKind.BAD_LABELS, f"{path}: {mode} pixels; {_USE_INDICES}")


def _in_strips(opened: Image.Image) -> NDArray[np.uint8]:
    """Return an image's pixels; Pillow makes two more copies of what becomes an array at once."""
    width, height = opened.size
    values = np.empty((height, width), np.uint8)
    rows = max(1, 16 * _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        values[top : top + rows] = np.asarray(opened.crop((0, top, width, min(top + rows, height))))
    return values


def _wide(path: Path, opened: Image.Image) -> NDArray[np.uint16]:
    values = np.asarray(opened)
    if values.min() < 0 or values.max() >= MOST_VALUES:
        raise ImageError(FailureKind.BAD_LABELS, f"{path}: has values that are not 16-bit class indices")
    return values.astype(np.uint16)


def _grey_of(path: Path, opened: Image.Image) -> NDArray[np.uint8]:
    """Return the one value of each pixel of a colour image whose colours are all grey."""
    mode = opened.mode
    # Pillow keeps the upper 8 bits of 16.
    if "16" in str(getattr(opened, "tile", "")):
        raise ImageError(FailureKind.BAD_LABELS, f"{path}: {mode} of 16 bits; {_USE_INDICES}")
    first, *others = opened.split()
    is_opaque = mode not in {"RGBA", "LA"} or others.pop().getextrema() == (255, 255)
    values = np.asarray(first)
    if not is_opaque or not all(np.array_equal(values, np.asarray(other)) for other in others):
        raise ImageError(
            FailureKind.BAD_LABELS,
            f"{path}: {mode} colours, but ground truth needs class indices; if the colours are Pascal "
            "VOC's, give --truth-colors voc, if a labelmap.txt names them, --labelmap; otherwise "
            f"{_USE_INDICES}",
        )
    return values


@dataclass(frozen=True)
class Colors:
    """What a truth's colours mean: `table` (uint8, (values, 3)) has the colour of each value.

    `names` are the values' names, None where the values are class indices. `origin` says whose colours they
    are.
    """

    table: NDArray[np.uint8]
    origin: str
    names: Mapping[int, str] | None = None

    def read(self, path: Path, *sizes: Size) -> Pixels:
        """Return the values of a label map's colours."""
        codes = _codes(self.table)
        order = np.argsort(codes)
        with open_label_image(path, *sizes) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ImageError(FailureKind.BAD_LABELS, f"{path}: {opened.mode} pixels; colours are RGB")
            width, height = opened.size
            values = np.empty((height, width), np.uint16 if len(codes) > VOID_INDEX + 1 else np.uint8)
            rows = max(1, _STRIP_PIXELS // width)
            for top in range(0, height, rows):
                colors = np.asarray(
                    opened.crop((0, top, width, min(top + rows, height))).convert("RGB"), np.uint8
                )
                strip = _codes(colors)
                found = order[np.searchsorted(codes, strip, sorter=order).clip(max=len(codes) - 1)]
                unknown = np.argwhere(codes[found] != strip)
                if len(unknown):
                    row, x = int(unknown[0, 0]), int(unknown[0, 1])
                    color = tuple(colors[row, x].tolist())
                    raise ImageError(
                        FailureKind.BAD_LABELS,
                        f"{path}: the colour {color} at x={x}, y={top + row} is not one of {self.origin}",
                    )
                values[top : top + rows] = found
        return Pixels(values, is_grey=False)


def read_label_map_file(path: Path) -> Colors:
    """Read the colours and names in a file of lines ``label:red,green,blue:parts:actions``, as CVAT's are."""
    try:
        lines = files.read_small(path, follow=True).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RequestError(f"{path}: cannot be read ({reason})") from None
    colors: dict[tuple[int, ...], str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        parts = rest.partition(":")[0].split(",")
        color = tuple(int(part) for part in parts if part.strip().isdecimal() and int(part) < 256)
        if not name or len(color) != 3 or len(parts) != 3 or color in colors:
            raise RequestError(
                f"{path}: line {number} is not label:red,green,blue:parts:actions with a new colour"
            )
        colors[color] = name.strip()
    if not colors or len(set(colors.values())) != len(colors) or len(colors) >= MOST_VALUES:
        raise RequestError(f"{path}: needs one or more labels, without duplicates")
    origin = f"the colours of {path}"
    return Colors(np.array(list(colors), np.uint8), origin, dict(enumerate(colors.values())))


def _codes(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return each RGB triple (last axis) as one number, int32."""
    wide = colors.astype(np.int32)
    codes: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


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
