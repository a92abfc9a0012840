"""Ground truth: a folder of label maps, a Pascal VOC root, or COCO annotations (see `coco`)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Protocol

from .coco import CocoTruth
from .errors import RequestError
from .labelmaps import LabelMap
from .outputs import read_label_map

_VOC_LISTS = Path("ImageSets", "Segmentation")
_VOC_MASKS = "SegmentationClass"
DEFAULT_SPLIT = "val"


class Truth(Protocol):
    """Label maps of some images."""

    description: str

    def __len__(self) -> int:
        """Return for how many images there is truth."""
        ...

    def find(self, image: str) -> str | None:
        """Return this truth's name for an image (a relative POSIX path), or None if it is not in it."""
        ...

    def load(self, name: str) -> LabelMap:
        """Return the label map under a name from `find`; raises ImageError when it cannot be used."""
        ...


def open_truth(path: Path, split: str | None) -> Truth:
    """Open whatever `path` is.

    Raises
    ------
    RequestError
        It does not exist, is none of the three, or has no such split.
    """
    if path.is_file() and path.suffix.lower() == ".json":
        truth: Truth = CocoTruth(path)
    elif (path / _VOC_LISTS).is_dir():
        return VocTruth(path, split or DEFAULT_SPLIT)
    elif path.is_dir():
        truth = FolderTruth(path)
    else:
        raise RequestError(
            f"{path}: not a folder of label maps, a Pascal VOC root, or a COCO instances_*.json"
        )
    if split is not None:
        raise RequestError(f"--split: only a Pascal VOC root has splits, and {path} is none")
    return truth


class FolderTruth:
    """A folder of index PNGs, greyscale or paletted, 255 for void, matched by relative path and stem."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.description = "a folder of label maps"
        self._names = {
            path.relative_to(root).with_suffix("").as_posix(): path.relative_to(root).as_posix()
            for path in sorted(root.rglob("*"))
            if path.suffix.lower() == ".png" and path.is_file()
        }
        if not self._names:
            raise RequestError(f"{root}: holds no PNG label map")

    def __len__(self) -> int:
        return len(self._names)

    def find(self, image: str) -> str | None:
        """Return the file for ``sub/cat.jpg``: ``sub/cat.png``, or ``sub/cat.jpg.png``."""
        return self._names.get(str(PurePosixPath(image).with_suffix(""))) or self._names.get(image)

    def load(self, name: str) -> LabelMap:
        """Return the label map; raises ImageError."""
        return read_label_map(self.root / name)


class VocTruth:
    """One split of a Pascal VOC root, such as ``VOCdevkit/VOC2012``, matched by the photo's stem."""

    def __init__(self, root: Path, split: str) -> None:
        lists = root / _VOC_LISTS
        try:
            lines = (lists / f"{split}.txt").read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
            raise RequestError(f"--split {split}: not a split of {root}; there are: {there}") from None
        self.description = f"Pascal VOC, split {split}"
        self._masks = FolderTruth(root / _VOC_MASKS)
        self._stems = frozenset(lines)

    def __len__(self) -> int:
        return len(self._stems)

    def find(self, image: str) -> str | None:
        """Return the photo's stem, if the split has it."""
        stem = PurePosixPath(image).stem
        return stem if stem in self._stems else None

    def load(self, name: str) -> LabelMap:
        """Return the label map; raises ImageError."""
        return self._masks.load(f"{name}.png")
