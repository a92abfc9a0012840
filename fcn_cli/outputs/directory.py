"""The files of an output directory: their names, writing them whole, reading them back."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..common import files
from ..common.errors import FailureKind, ImageError, OutputLost
from ..common.label_map import VOID_INDEX, LabelMap, Segmentation, count_classes, read_label_map
from ..common.palettes import Palette
from .record import Record
from .writers import WRITERS, Photo

CLASSES_FILE = "classes.json"


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

    def write(
        self, output: str, kinds: Iterable[str], predicted: Segmentation, photo: Photo
    ) -> list[Written]:
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
