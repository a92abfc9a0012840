"""Label maps to files: one small class per kind of output, and the folder they are written to."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import storage
from .errors import FailureKind, ImageError, OutputLost
from .palettes import VOID_INDEX, Palette

CLASSES_FILE = "classes.json"
OVERLAY_OPACITY = 0.5
_JPEG_QUALITY = 90
_BLEND_ROWS = 512
# Label maps are runs of equal bytes: zlib's run-length strategy is the fastest here, and small.
_Z_RLE = 3

LabelMap = NDArray[np.uint8]
Photo = Callable[[], Image.Image]
"""Opens the upright RGB photo of a label map; only called where it is needed."""


class Writer(Protocol):
    """One kind of output."""

    kind: str
    suffix: str

    def __init__(self, palette: Palette) -> None: ...

    def write(self, labels: LabelMap, photo: Photo, stream: BinaryIO) -> None:
        """Encode a label map (uint8, shape (height, width)) to a stream."""


class MaskWriter:
    """8-bit greyscale PNG whose pixel values are class indices."""

    kind = "masks"
    suffix = ".png"

    def __init__(self, palette: Palette) -> None:
        pass

    def write(self, labels: LabelMap, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode a label map; see `Writer`."""
        Image.fromarray(labels).save(stream, "PNG", compress_type=_Z_RLE)


class ColorWriter:
    """Paletted PNG: the same indices, with a palette of always 256 entries."""

    kind = "color"
    suffix = ".png"

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    def write(self, labels: LabelMap, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode a label map; see `Writer`."""
        colored(labels, self.palette).save(stream, "PNG", compress_type=_Z_RLE)


class OverlayWriter:
    """JPEG of the photo, blended with the class colours wherever the class is not 0."""

    kind = "overlay"
    suffix = ".jpg"

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    def write(self, labels: LabelMap, photo: Photo, stream: BinaryIO) -> None:
        """Encode a label map over its photo; see `Writer`."""
        blended(photo(), labels, self.palette).save(stream, "JPEG", quality=_JPEG_QUALITY)


_KINDS: tuple[type[Writer], ...] = (MaskWriter, ColorWriter, OverlayWriter)
WRITERS = {writer.kind: writer for writer in _KINDS}
"""The kinds of output, in the order in which they are written."""


def colored(labels: LabelMap, palette: Palette) -> Image.Image:
    """Return a paletted ("P") image of a label map."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes(), "RGB")
    return image


def blended(photo: Image.Image, labels: LabelMap, palette: Palette) -> Image.Image:
    """Return the RGB photo with `OVERLAY_OPACITY` of its class's colour on every pixel but class 0's.

    Raises
    ------
    ImageError
        The photo has not the label map's size.
    """
    if photo.size != labels.shape[::-1]:
        raise ImageError(FailureKind.CHANGED, "the file changed while it was being segmented")
    opacity = [0] + [round(OVERLAY_OPACITY * 255)] * 255
    result = photo.copy()
    for top in range(0, photo.height, _BLEND_ROWS):
        strip = labels[top : top + _BLEND_ROWS]
        colors = colored(strip, palette).convert("RGB")
        result.paste(colors, (0, top), mask=Image.fromarray(strip).point(opacity))
    return result


@dataclass(frozen=True)
class Written:
    """One output file: its path relative to the output directory, its size in bytes."""

    path: str
    size: int


class OutputFolder:
    """Names, writes, checks and reads back the files of an output directory."""

    def __init__(self, root: Path, palette: Palette) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._palette = palette
        self._ready: set[Path] = set()

    @staticmethod
    def name(output: str, kind: str) -> str:
        """Return the relative path of one kind of output of the photo whose mask is ``masks/<output>``."""
        return str(PurePosixPath(kind, output).with_suffix(WRITERS[kind].suffix))

    def write(self, output: str, kinds: Iterable[str], labels: LabelMap, photo: Photo) -> list[Written]:
        """Write kinds of output for one photo, each file whole.

        Raises
        ------
        ImageError
            This photo's files cannot be written: a name too long, a folder in the way, the photo changed.
        OutputLost
            No file can be written: disk full, read-only, gone.
        """
        written = []
        for kind in kinds:
            writer = WRITERS[kind](self._palette)
            name = self.name(output, kind)
            path = self.root / name
            try:
                self._make_ready(path.parent)
                size = storage.write_whole(path, lambda stream, w=writer: w.write(labels, photo, stream))  # type: ignore[misc]
            except OSError as error:
                raise _lost_or_refused(error, path) from None
            except (ValueError, SystemError, MemoryError) as error:
                raise ImageError(FailureKind.OUTPUT_REFUSED, f"{path} cannot be encoded ({error})") from None
            written.append(Written(name, size))
        return written

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of written files survive a power cut.

        Raises
        ------
        OutputLost
            As `write`.
        """
        with OutputLost.when_refused(self.root):
            storage.sync_folders((self.root / name).parent for name in names)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files that no longer belong to a photo; one that cannot be deleted is left."""
        for name in names:
            with contextlib.suppress(OSError):
                (self.root / name).unlink()

    def is_whole(self, name: str, size: int) -> bool:
        """Say whether a recorded file is there with its recorded size."""
        try:
            status = (self.root / name).lstat()
        except (OSError, ValueError):
            return False
        return status.st_size == size

    def read_labels(self, name: str, width: int, height: int) -> LabelMap | None:
        """Return the label map in a mask or colour PNG, or None when it is not what it should be."""
        try:
            with Image.open(self.root / name, formats=("PNG",)) as image:
                if image.mode not in {"L", "P"} or image.size != (width, height):
                    return None
                return np.array(image, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError):
            return None

    def write_classes(self, names: Sequence[str]) -> None:
        """Write ``classes.json``: index → name and colour, 255 being void."""
        indices = {**dict(enumerate(names)), VOID_INDEX: "void"}
        content = {
            str(index): {"name": name, "color": self._palette[index].tolist()}
            for index, name in indices.items()
        }
        storage.write_text(self.root / CLASSES_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _make_ready(self, folder: Path) -> None:
        if folder in self._ready and folder.is_dir():
            return
        # A lost output directory is not made again: its journal and its lock are gone with it.
        self.root.stat()
        changed = storage.make_folders(folder)
        inside = os.path.join(self._real, folder.relative_to(self.root))
        if os.path.realpath(folder) != inside:
            raise ImageError(
                FailureKind.OUTPUT_REFUSED, f"{folder} is a link; outputs are never written through links"
            )
        storage.sync_folders(changed)
        self._ready.add(folder)


def read_classes(root: Path) -> list[str] | None:
    """Return the class names in a ``classes.json``, by index, or None when it cannot be read."""
    try:
        content = json.loads((root / CLASSES_FILE).read_bytes())
        return [content[str(index)]["name"] for index in range(len(content) - 1)]
    except (OSError, ValueError, KeyError, TypeError):
        return None


_THIS_PHOTO_ONLY = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EILSEQ,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
    }
)


def _lost_or_refused(error: OSError, path: Path) -> ImageError | OutputLost:
    if error.errno in _THIS_PHOTO_ONLY or error.errno is None:
        return ImageError(FailureKind.OUTPUT_REFUSED, f"{path} cannot be written ({error.strerror or error})")
    return OutputLost(f"{path}: cannot be written ({error.strerror})")
