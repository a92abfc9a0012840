"""Ground truth from a directory of label maps, a Pascal VOC root, or COCO annotations (see `coco`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ..common import files
from ..common.errors import RequestError
from ..common.label_map import LabelMap, Size
from . import truth_files, wrong_calls
from .choices import Orientation, TruthColors
from .coco import CocoTruth
from .label_folder import find_label_file, label_files
from .orientation import Frame

_LIST_BYTES = 16 << 20
_VOC_LISTS = Path("ImageSets", "Segmentation")
_VOC_MASKS = "SegmentationClass"
DEFAULT_SPLIT = "val"


class Truth(Protocol):
    """The true label maps of some images.

    `drawn_on` says whether the format's label maps belong to the upright or to the stored photo.
    `voc_classes_only` is true if their indices are always Pascal VOC's classes. `counts` holds further
    figures for the report, by name.
    """

    description: str
    drawn_on: Orientation
    voc_classes_only: bool
    counts: Mapping[str, Any]

    def __len__(self) -> int:
        """Return the number of images with truth."""
        ...

    def names(self) -> Iterable[str]:
        """Return the names of all images with truth."""
        ...

    def find(self, image: str) -> str | None:
        """Return the truth's name for an image (a relative POSIX path), or None if it has no truth."""
        ...

    def expected(self, image: str) -> str:
        """Return the name, as in `names`, by which an image is searched."""
        ...

    def frame(self, name: str) -> Frame:
        """Return the size of the label map with a name from `find`, or where to read it."""
        ...

    def load(self, name: str, *sizes: Size) -> LabelMap:
        """Return the label map with a name from `find`: uint8, shape (height, width).

        Raises
        ------
        ImageError
            The label map is missing, damaged or invalid, or of none of these sizes, if there are any.
        """
        ...


@dataclass(frozen=True)
class TruthRequest:
    """Which ground truth to measure against.

    Parameters
    ----------
    path
        A directory of label maps, a Pascal VOC root, or a COCO ``instances_*.json``.
    split
        The split of a Pascal VOC root; None means `DEFAULT_SPLIT`.
    colors
        The meaning of the PNGs' pixel values. None means class indices, and refuses black-and-white masks.
    """

    path: str
    split: str | None = None
    colors: TruthColors | None = None


def open_truth(request: TruthRequest) -> Truth:
    """Open ground truth of any of the three formats.

    Raises
    ------
    RequestError
        The path does not exist, has none of the three formats, or does not have this split or colours.
    """
    path, split, colors = Path(request.path), request.split, request.colors
    if not path.exists():
        raise RequestError(f"{path}: no such file or directory")
    if (path / _VOC_LISTS).is_dir():
        return VocTruth(path, split or DEFAULT_SPLIT, colors)
    if split is not None:
        raise RequestError(f"--split: only a Pascal VOC root has splits, and {path} is not one")
    if path.is_dir():
        return FolderTruth(path, colors)
    if path.suffix.lower() != ".json":
        raise RequestError(
            f"{path}: neither a directory of label maps, nor a Pascal VOC root, nor a COCO instances_*.json"
        )
    if colors is not None:
        raise RequestError(f"--truth-colors: only PNGs have colours, and {path} is a JSON file")
    return CocoTruth(path)


class FolderTruth:
    """A directory of index PNGs (greyscale or paletted, 255 is void), matched by relative path and stem."""

    description = "a directory of label maps"
    drawn_on = Orientation.UPRIGHT
    voc_classes_only = False

    def __init__(self, root: Path, colors: TruthColors | None = None) -> None:
        self.root = root
        self.counts: Mapping[str, Any] = {}
        self._colors = colors
        wrong_calls.refuse_other_directory(root)
        self._files = label_files(root)
        if not self._files:
            raise RequestError(f"{root}: {wrong_calls.describe_without_png(root)}")

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> Iterable[str]:
        """Return the relative paths of all label maps."""
        return (path.relative_to(self.root).as_posix() for path in self._files.values())

    def find(self, image: str) -> str | None:
        """Return the file for ``sub/cat.jpg``: ``sub/cat.jpg.png``, else ``sub/cat.png``, else None."""
        name = find_label_file(self._files, image)
        return self._files[name].relative_to(self.root).as_posix() if name is not None else None

    def expected(self, image: str) -> str:
        """Return ``sub/cat.png`` for ``sub/cat.jpg``."""
        return str(PurePosixPath(image).with_suffix(".png"))

    def frame(self, name: str) -> Frame:
        """Return the label map's file."""
        return self.root / name

    def load(self, name: str, *sizes: Size) -> LabelMap:
        """Return the label map; see `truth_files.read`."""
        return truth_files.read(self.root / name, self._colors, *sizes)

    def is_black_and_white(self, name: str, labels: LabelMap) -> bool:
        """Return whether a label map looks like a mask of one object; see `truth_files`."""
        return self._colors is None and truth_files.is_black_and_white(self.root / name, labels)


class VocTruth(FolderTruth):
    """One split of a Pascal VOC root, such as ``VOCdevkit/VOC2012``, matched by the photo's stem."""

    def __init__(self, root: Path, split: str, colors: TruthColors | None = None) -> None:
        lists = root / _VOC_LISTS
        try:
            lines = files.read_small(lists / f"{split}.txt", _LIST_BYTES, follow=True).decode("ascii").split()
        except (OSError, UnicodeDecodeError):
            splits = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
            raise RequestError(f"--split {split}: not a split of {root}; it has: {splits}") from None
        if not (root / _VOC_MASKS).is_dir():
            raise RequestError(f"{root / _VOC_MASKS}: no such directory; it should contain the label maps")
        super().__init__(root / _VOC_MASKS, colors)
        self.description = f"Pascal VOC, split {split}"
        self._stems = frozenset(lines)

    def __len__(self) -> int:
        return len(self._stems)

    def names(self) -> Iterable[str]:
        """Return the stems that the split lists."""
        return sorted(self._stems)

    def find(self, image: str) -> str | None:
        """Return the label map's file name if the split lists the photo's stem, else None."""
        stem = PurePosixPath(image).stem
        return self._file_name(stem) if stem in self._stems else None

    def expected(self, image: str) -> str:
        """Return the photo's stem."""
        return PurePosixPath(image).stem

    def _file_name(self, stem: str) -> str:
        file = self._files.get(stem)
        return file.name if file is not None else f"{stem}.png"
