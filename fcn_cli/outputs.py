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

from PIL import Image

from .common import files
from .common.errors import FailureKind, ImageError, OutputLost
from .common.label_map import VOID_INDEX, LabelMap, Predicted, count_classes, read_label_map
from .common.palettes import Palette
from .record import Record

CLASSES_FILE = "classes.json"
OVERLAY_OPACITY = 0.5
_JPEG_QUALITY = 90
_BLEND_ROWS = 512
# Label maps are runs of equal bytes: zlib's run-length strategy is the fastest here, and small.
_Z_RLE = 3

Photo = Callable[[], Image.Image]
"""Opens the upright RGB photo of a label map; only called where it is needed."""


class Writer(Protocol):
    """One kind of output; `from_labels` says whether a label map (and the photo) is all it takes."""

    kind: str
    suffix: str
    from_labels: bool

    def __init__(self, palette: Palette) -> None: ...

    @staticmethod
    def look(palette: str) -> str | None:
        """Return what the look of this kind depends on, as it stands in records; None where nothing does."""
        ...

    def write(self, predicted: Predicted, photo: Photo, stream: BinaryIO) -> None:
        """Encode it to a stream."""


class MaskWriter:
    """8-bit greyscale PNG whose pixel values are class indices."""

    kind = "masks"
    suffix = ".png"
    from_labels = True

    def __init__(self, palette: Palette) -> None:
        pass

    @staticmethod
    def look(palette: str) -> None:
        """Return None; see `Writer`."""

    def write(self, predicted: Predicted, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the labels; see `Writer`."""
        Image.fromarray(predicted.labels).save(stream, "PNG", compress_type=_Z_RLE)


class ColorWriter:
    """Paletted PNG: the same indices, with a palette of always 256 entries."""

    kind = "color"
    suffix = ".png"
    from_labels = True

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    @staticmethod
    def look(palette: str) -> str:
        """Return the palette; see `Writer`."""
        return palette

    def write(self, predicted: Predicted, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the labels; see `Writer`."""
        colored(predicted.labels, self.palette).save(stream, "PNG", compress_type=_Z_RLE)


class OverlayWriter:
    """JPEG of the photo, blended with the class colours wherever the class is not 0."""

    kind = "overlay"
    suffix = ".jpg"
    from_labels = True

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    @staticmethod
    def look(palette: str) -> str:
        """Return palette and opacity; see `Writer`."""
        return f"{palette}, opacity {OVERLAY_OPACITY:g}"

    def write(self, predicted: Predicted, photo: Photo, stream: BinaryIO) -> None:
        """Encode the labels over their photo; see `Writer`."""
        blended(photo(), predicted.labels, self.palette).save(stream, "JPEG", quality=_JPEG_QUALITY)


class ConfidenceWriter:
    """8-bit greyscale PNG of the winning class's softmax probability, times 255."""

    kind = "confidence"
    suffix = ".png"
    from_labels = False

    def __init__(self, palette: Palette) -> None:
        pass

    @staticmethod
    def look(palette: str) -> None:
        """Return None; see `Writer`."""

    def write(self, predicted: Predicted, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the confidence; see `Writer`."""
        assert predicted.confidence is not None  # noqa: S101 - whoever asks for this kind asks the engine
        Image.fromarray(predicted.confidence).save(stream, "PNG")


_KINDS: tuple[type[Writer], ...] = (MaskWriter, ColorWriter, OverlayWriter, ConfidenceWriter)
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
    # Pillow would write the photo's comment into the overlay.
    result.info.clear()
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
    """Names, writes, checks and reads back the files of an output directory.

    Parameters
    ----------
    root
        The output directory.
    palette
        The colours of classes.
    palette_name
        What records call the palette: its name, or the hash of its colours when it comes from a file.
    """

    def __init__(self, root: Path, palette: Palette, palette_name: str) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._palette = palette
        self._palette_name = palette_name
        self._ready: set[Path] = set()

    @staticmethod
    def name(output: str, kind: str) -> str:
        """Return the relative path of one kind of output of the photo whose mask is ``masks/<output>``."""
        return str(PurePosixPath(kind, output).with_suffix(WRITERS[kind].suffix))

    def look(self, kind: str) -> str | None:
        """Return how files of a kind look that are written now, or None for kinds without a look."""
        return WRITERS[kind].look(self._palette_name)

    def write(self, output: str, kinds: Iterable[str], predicted: Predicted, photo: Photo) -> list[Written]:
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
                size = files.write_whole(path, lambda stream, w=writer: w.write(predicted, photo, stream))  # type: ignore[misc]
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
            files.sync_folders((self.root / name).parent for name in names)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files that no longer belong to a photo; one that cannot be deleted is left."""
        for name in names:
            path = self.root / name
            with contextlib.suppress(OSError):
                # What lies behind a link is not ours.
                if os.path.realpath(path.parent) == os.path.join(self._real, os.path.dirname(name)):
                    path.unlink()

    def remove_with_folders(self, names: Iterable[str]) -> None:
        """As `remove`, and also delete folders that are left empty; never beside a `write`."""
        for name in names:
            self.remove([name])
            with contextlib.suppress(OSError):
                # Folders of a kind ("masks") stay.
                for parent in PurePosixPath(name).parents[:-2]:
                    (self.root / parent).rmdir()

    def is_whole(self, name: str, size: int) -> bool:
        """Say whether a recorded file is there with its recorded size."""
        try:
            status = (self.root / name).lstat()
        except (OSError, ValueError):
            return False
        return status.st_size == size

    def read_labels(self, name: str, record: Record) -> LabelMap | None:
        """Return the label map in a mask or colour PNG, or None when it is not what its record says."""
        try:
            labels = read_label_map(self.root / name)
        except ImageError:
            return None
        same = labels.shape == (record.height, record.width) and count_classes(labels) == record.classes
        return labels if same else None

    def write_classes(self, names: Sequence[str]) -> None:
        """Bring ``classes.json`` up to date: index → name and colour, 255 being void."""
        indices = {**dict(enumerate(names)), VOID_INDEX: "void"}
        content = {
            str(index): {"name": name, "color": self._palette[index].tolist()}
            for index, name in indices.items()
        }
        path, text = self.root / CLASSES_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        with contextlib.suppress(OSError, ValueError):
            if path.read_text(encoding="utf-8") == text:
                return
        files.write_text(path, text)

    def _make_ready(self, folder: Path) -> None:
        if folder in self._ready and folder.is_dir():
            return
        # A lost output directory is not made again: its journal and its lock are gone with it.
        self.root.stat()
        changed = files.make_folders(folder)
        inside = os.path.join(self._real, folder.relative_to(self.root))
        if os.path.realpath(folder) != inside:
            raise ImageError(
                FailureKind.OUTPUT_REFUSED, f"{folder} is a link; outputs are never written through links"
            )
        files.sync_folders(changed)
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
