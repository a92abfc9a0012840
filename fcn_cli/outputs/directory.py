"""The files of an output directory: write them whole, check them, read them back."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from ..common import files
from ..common.errors import FailureKind, ImageError, OutputLost
from ..common.label_map import VOID_INDEX, LabelMap, Segmentation, count_classes, read_label_map
from ..common.output_layout import CLASSES_FILE, find_output_type, output_file
from ..common.palettes import Palette
from ..inputs.discovery import Source
from .looks import Style
from .output_store import OutputStore, ReadableDirectory, as_store
from .record import Record
from .writers import WRITERS, Original, encode


class OutputDirectory:
    """Writes, checks, reads back and removes the files of an output directory."""

    def __init__(self, root: Path | OutputStore, look: Style) -> None:
        self.root = as_store(root)
        self._look = look

    def look(self, output_type: str) -> str | None:
        """Return the look of the files of an output type in this run; None for a type without a look."""
        return WRITERS[output_type].describe(self._look)

    def write(
        self, source: Source, types: Iterable[str], segmentation: Segmentation, original: Original
    ) -> dict[str, int]:
        """Write output types for one image, each file whole; return relative path → size in bytes.

        A file that shows the image can be read by nobody who cannot read the image.

        Raises
        ------
        ImageError
            This image's files cannot be written: a name is too long, a directory is in the way, or the image
            changed.
        OutputLost
            No file can be written: the disk is full or read-only, or the output directory is gone.
        """
        sizes = {}
        for output_type in types:
            writer = WRITERS[output_type](self._look)
            name = output_file(source.output, output_type)
            path = self.root / name
            permissions = (
                files.permissions_of(source.path) if find_output_type(output_type).shows_image else None
            )
            try:
                sizes[name] = self.root.write_whole(
                    name, partial(encode, writer, segmentation, original), permissions
                )
            except OSError as error:
                raise _lost_or_refused(error, path) from None
            except (ValueError, SystemError, MemoryError) as error:
                raise ImageError(FailureKind.OUTPUT_REFUSED, f"{path} cannot be encoded ({error})") from None
        return sizes

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of written files survive a power cut; raises OutputLost as `write` does."""
        with OutputLost.when_refused(self.root):
            self.root.sync(names)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files that no longer belong to an image; skip those that cannot be deleted."""
        for name in names:
            with contextlib.suppress(OSError):
                self.root.remove(name)

    def remove_with_directories(self, names: Iterable[str]) -> None:
        """Delete files, and the directories that this leaves empty; never during a `write`."""
        for name in names:
            self.remove([name])
            with contextlib.suppress(OSError):
                # The directory of an output type stays.
                for parent in PurePosixPath(name).parents[:-2]:
                    self.root.remove_directory(str(parent))

    def is_whole(self, name: str, size: int) -> bool:
        """Say whether a recorded file exists and has its recorded size."""
        return self.root.has_size(name, size)

    def read_labels(self, name: str, record: Record) -> LabelMap | None:
        """Return the label map in an output file, or None when it does not match its record."""
        try:
            return read_recorded_labels(self.root, name, record)
        except ImageError:
            return None

    def write_classes(self, names: Sequence[str]) -> None:
        """Update ``classes.json``; see `classes_text`."""
        text = classes_text(names, self._look.palette, self._look.background_class)
        with contextlib.suppress(OSError, ValueError):
            if files.read_small(self.root / CLASSES_FILE).decode() == text:
                return
        self.root.write_text(CLASSES_FILE, text)


def classes_text(names: Sequence[str], palette: Palette, background: int | None) -> str:
    """Return the content of a ``classes.json``: index → name and colour; 255 is void.

    Where the background is not class 0, that class and the background say so.
    """
    content: dict[str, dict[str, object]] = {
        str(index): {"name": name, "color": palette[index].tolist()}
        for index, name in [*enumerate(names), (VOID_INDEX, "void")]
    }
    if background != 0:
        content["0"][_BACKGROUND] = False
        if background is not None:
            content[str(background)][_BACKGROUND] = True
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read_recorded_labels(root: OutputStore, name: str, record: Record) -> LabelMap:
    """Return the label map in an output file; raise ImageError where it is not what its record says."""
    labels = read_label_map(root / name, record.size)
    if count_classes(labels) != record.classes:
        raise ImageError(FailureKind.BAD_LABELS, f"{root / name}: does not match its record; see fcn verify")
    return labels


def read_classes(root: ReadableDirectory) -> list[str] | None:
    """Return the class names in a ``classes.json``, by index, or None when it cannot be read."""
    try:
        content = files.read_small_json(root / CLASSES_FILE)
        names = [content[str(index)]["name"] for index in range(len(content) - 1)]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return names if all(isinstance(name, str) for name in names) else None


def read_background(root: ReadableDirectory) -> int | None:
    """Return the index of the background in a ``classes.json``, or None where there is none."""
    try:
        content = files.read_small_json(root / CLASSES_FILE)
        marked = {int(index): entry[_BACKGROUND] for index, entry in content.items() if _BACKGROUND in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
    return next((index for index, is_so in marked.items() if is_so is True), None) if marked else 0


_BACKGROUND = "background"
_THIS_IMAGE_ONLY = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EILSEQ,
        errno.ELOOP,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
    }
)


def _lost_or_refused(error: OSError, path: object) -> ImageError | OutputLost:
    if error.errno in _THIS_IMAGE_ONLY or error.errno is None:
        return ImageError(FailureKind.OUTPUT_REFUSED, f"{path} cannot be written ({error.strerror or error})")
    return OutputLost(f"{path}: cannot be written ({error.strerror})")
