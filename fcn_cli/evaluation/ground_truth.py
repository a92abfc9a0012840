"""Ground truth: label maps in a directory or a Pascal VOC root, or COCO annotations (see `coco`).

A truth's pixels hold *values*: class indices, colours with names (CVAT's ``labelmap.txt``), or whatever
``--truth-map`` says. They become class indices once the classes of the predictions are known.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..common import files, palettes
from ..common.class_map import ClassMap, Indices
from ..common.class_names import hint_at_classes
from ..common.errors import FailureKind, ImageError, RequestError
from ..common.label_map import VOID_INDEX, LabelMap, Size
from . import Orientation, TruthColors, label_folder, matching
from .coco import CocoTruth, class_called
from .confusion import highest_class
from .label_folder import MOST_VALUES, Colors, Pixels, Values, read_label_map_file, read_values
from .matching import Frame

DEFAULT_SPLIT = "val"
LABEL_MAP_FILE = "labelmap.txt"
MAP_OPTION, IGNORE_OPTION = "--truth-map", "--ignore-index"

_LIST_BYTES = 16 << 20
_VOC_LISTS = Path("ImageSets", "Segmentation")
_VOC_MASKS = "SegmentationClass"
_VOID_LABELS = frozenset({"void", "ignore", "ignored"})
_STRIP_PIXELS = 1 << 20
_NO_CLASS = -1


@dataclass(frozen=True)
class TruthRequest:
    """Which ground truth to measure against.

    Parameters
    ----------
    path
        A directory of label maps, a Pascal VOC root, or a COCO ``instances_*.json``.
    split
        The split of a Pascal VOC root; None means `DEFAULT_SPLIT`, or the only one.
    colors
        The meaning of the pixels. None means class indices, or the colours of a ``labelmap.txt`` in the
        directory, and refuses black-and-white masks.
    suffix
        What follows the image's name in that of its label map: ``_mask``, ``_mask.tif``.
    ignored
        Values that are void.
    classes
        What the values become; see `common.class_map`.
    label_map
        A file like CVAT's ``labelmap.txt``, instead of the one in the directory.
    """

    path: str
    split: str | None = None
    colors: TruthColors | None = None
    suffix: str = ""
    ignored: tuple[int, ...] = ()
    classes: ClassMap | None = None
    label_map: str | None = None

    def described(self) -> str:
        """Return the options that shape the truth, for the report."""
        parts = [f"--truth-suffix {self.suffix}"] if self.suffix else []
        parts += [f"--truth-colors {self.colors}"] if self.colors is not None else []
        parts += [f"{MAP_OPTION} {self.classes}"] if self.classes is not None else []
        parts += [f"{IGNORE_OPTION} {index}" for index in self.ignored]
        return "".join(f", {part}" for part in parts)


class Truth(Protocol):
    """The true label maps of some images.

    `drawn_on` says whether the format's label maps belong to the upright or to the stored image. `counts`
    holds further figures for the report, by name; it is complete after `use_classes`.
    """

    description: str
    drawn_on: Orientation
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

    def alike(self, image: str) -> Sequence[str]:
        """Return the truth's names that may mean an image for which `find` has none."""
        ...

    def expected(self, image: str) -> str:
        """Return the name, as in `names`, by which an image is searched."""
        ...

    def frame(self, name: str) -> Frame:
        """Return the size of the label map with a name from `find`, or where to read it."""
        ...

    def use_classes(self, names: Sequence[str], background: int | None = None) -> None:
        """Take the classes of the predictions, in index order, and the background's index; before `load`.

        Raises
        ------
        RequestError
            The truth does not fit these classes.
        """
        ...

    def load(self, name: str, *sizes: Size) -> LabelMap:
        """Return the label map with a name from `find`, of class indices: uint8, shape (height, width).

        Raises
        ------
        ImageError
            The label map is missing, damaged or invalid, or of none of these sizes, if there are any.
        """
        ...

    def notes(self, name: str) -> tuple[str, ...]:
        """Return what is to be noted about the truth of an image."""
        ...


def open_truth(request: TruthRequest) -> Truth:
    """Open ground truth of any of the three formats.

    Raises
    ------
    RequestError
        The path does not exist, has none of the three formats, or does not have this split or colours.
    """
    path = Path(request.path)
    if not path.exists():
        raise RequestError(f"{path}: no such file or directory")
    if (path / _VOC_LISTS).is_dir():
        return VocTruth(path, request)
    if request.split is not None:
        raise RequestError(f"--split: only a Pascal VOC root has splits, and {path} is not one")
    if path.is_dir():
        return FolderTruth(path, request)
    if path.suffix.lower() != ".json":
        raise matching.unexpected(
            path, "a directory of masks, a Pascal VOC root or a COCO instances_*.json", "another file"
        )
    for option, value in (
        ("--truth-colors", request.colors),
        ("--truth-suffix", request.suffix),
        ("--labelmap", request.label_map),
    ):
        if value:
            raise RequestError(f"{option} is for masks, and {path} is a JSON file")
    return CocoTruth(path, request.classes, request.ignored)


class FolderTruth:
    """A directory of label maps, matched by relative path and stem."""

    description = "a directory of masks"
    drawn_on = Orientation.UPRIGHT

    def __init__(self, root: Path, request: TruthRequest, label_map: Path | None = None) -> None:
        matching.refuse_other_directory(root)
        self.root = root
        self.counts: Mapping[str, Any] = {}
        self._request = request
        self._ending, suffixes = _ending(request.suffix)
        for some in suffixes:
            self._files = label_folder.label_files(root, some, self._ending)
            if self._files:
                break
        else:
            raise matching.without_label_maps(root, request.suffix)
        self._suffix = next(iter(self._files.values())).suffix
        self._colors = _colors(request, label_map or root / LABEL_MAP_FILE)
        named = f", {self._colors.origin}" if self._colors is not None and self._colors.names else ""
        self.description = f"{self.description}{named}{request.described()}"
        self._table: NDArray[np.int16] | None = None

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> Iterable[str]:
        return (path.relative_to(self.root).as_posix() for path in self._files.values())

    def find(self, image: str) -> str | None:
        """Return the file for ``sub/cat.jpg``: ``sub/cat.jpg.png``, else ``sub/cat.png``, else None."""
        name = label_folder.find_label_file(self._files, image, self._ending)
        return self._files[name].relative_to(self.root).as_posix() if name is not None else None

    def alike(self, image: str) -> Sequence[str]:  # noqa: ARG002 - of the interface
        return ()

    def expected(self, image: str) -> str:
        """Return ``sub/cat.png`` for ``sub/cat.jpg``, with the suffixes that are asked for."""
        return f"{PurePosixPath(image).with_suffix('')}{self._ending}{self._suffix}"

    def holds(self, path: str) -> bool:
        """Return whether a file is one of the label maps."""
        return os.path.realpath(path) in self._real_paths

    @functools.cached_property
    def _real_paths(self) -> frozenset[str]:
        return frozenset(map(os.path.realpath, self._files.values()))

    def frame(self, name: str) -> Frame:
        return self.root / name

    def use_classes(self, names: Sequence[str], background: int | None = None) -> None:  # noqa: ARG002 - says all
        self._table = _table(self._request, self._colors.names if self._colors is not None else None, names)

    def read(self, name: str, *sizes: Size) -> Pixels:
        """Return a label map's values, before they become class indices; raises ImageError."""
        path = self.root / name
        return read_values(path, *sizes) if self._colors is None else self._colors.read(path, *sizes)

    def classes_of(self, name: str, values: Values) -> LabelMap:
        """Return the class indices of values; ImageError where one is none."""
        if self._table is None and values.dtype == np.uint8:
            return values.astype(np.uint8, copy=False)
        table = self._table if self._table is not None else _plain_table()
        labels = np.empty(values.shape, np.uint8)
        rows = max(1, _STRIP_PIXELS // values.shape[1])
        for top in range(0, len(values), rows):
            strip = values[top : top + rows]
            classes = table[strip]
            if (classes == _NO_CLASS).any():
                value = int(strip[classes == _NO_CLASS][0])
                raise ImageError(
                    FailureKind.BAD_LABELS,
                    f"{self.root / name}: has the value {value}, which is not a class index; {_say(value)}",
                )
            labels[top : top + rows] = classes
        return labels

    def load(self, name: str, *sizes: Size) -> LabelMap:
        return self.classes_of(name, self.read(name, *sizes).values)

    def notes(self, name: str) -> tuple[str, ...]:  # noqa: ARG002 - of the interface
        return ()

    def check_first(self, names: Sequence[str], classes: Sequence[str] | None) -> None:
        """Read the first label maps until one is usable, so that a wrong directory is refused at once.

        An unusable label map alone fails later, as an image. `classes` is None while they are unknown.

        Raises
        ------
        RequestError
            All of the first ones are unusable, or are black-and-white masks; the message says why.
        """
        first = names[: matching.CHECKED_FILES]
        problems: list[ImageError] = []
        black_and_white: list[str] = []
        for name in first:
            try:
                pixels = self.read(name)
                if self._is_black_and_white(pixels):
                    black_and_white.append(name)
                    continue
                if classes is not None:
                    self._check_highest(name, pixels.values, len(classes))
            except ImageError as error:
                problems.append(error)
                continue
            if pixels.values.any():
                return
        if black_and_white:
            raise RequestError(
                f"{self.root / black_and_white[0]}: the ground truth has only the values 0 and 255, "
                "like a black-and-white mask. Say what white means: --truth-map 255=person, or another "
                "class; if 255 is the ignore label, give --truth-colors index"
            )
        if len(problems) == len(first):
            all_failed = f"none of the first {len(problems)} ground truth masks can be used; "
            raise RequestError(f"{all_failed if len(problems) > 1 else ''}{problems[0]}")

    def _check_highest(self, name: str, values: Values, classes: int) -> None:
        highest = highest_class(self.classes_of(name, values))
        if highest >= classes:
            raise ImageError(
                FailureKind.BAD_LABELS,
                f"{self.root / name}: has class index {highest}, but there are {classes} classes; "
                f"{_say(highest)}",
            )

    def _is_black_and_white(self, pixels: Pixels) -> bool:
        """Return whether a label map looks like a mask of one object: grey, only 0 and 255, unexplained.

        In a paletted PNG, such as Pascal VOC's, 255 is void on purpose; in a grey one it may mean white.
        """
        request = self._request
        rules = request.classes.rules if request.classes is not None else ()
        is_told = VOID_INDEX in request.ignored or any(source == str(VOID_INDEX) for source, _ in rules)
        if not pixels.is_grey or request.colors is not None or is_told:
            return False
        values = pixels.values
        return bool((values == VOID_INDEX).any() and ((values == 0) | (values == VOID_INDEX)).all())


class VocTruth(FolderTruth):
    """One split of a Pascal VOC root, such as ``VOCdevkit/VOC2012``, or of CVAT's export in this format."""

    def __init__(self, root: Path, request: TruthRequest) -> None:
        lists = root / _VOC_LISTS
        splits = sorted(path.stem for path in lists.glob("*.txt"))
        split = request.split or (splits[0] if len(splits) == 1 else DEFAULT_SPLIT)
        try:
            text = files.read_small(lists / f"{split}.txt", _LIST_BYTES, follow=True).decode()
        except (OSError, UnicodeDecodeError):
            raise RequestError(
                f"--split {split}: not a split of {root}; it has: {', '.join(splits) or 'none'}"
            ) from None
        if not (root / _VOC_MASKS).is_dir():
            raise RequestError(f"{root / _VOC_MASKS}: no such directory; it should contain the masks")
        self.description = f"Pascal VOC, split {split}"
        super().__init__(root / _VOC_MASKS, request, root / LABEL_MAP_FILE)
        self._stems = frozenset(filter(None, map(str.strip, text.splitlines())))

    def __len__(self) -> int:
        return len(self._stems)

    def names(self) -> Iterable[str]:
        return sorted(self._stems)

    def find(self, image: str) -> str | None:
        """Return the label map's file name if the split lists the image's stem, else None."""
        path = PurePosixPath(image)
        stem = next((name for name in (str(path.with_suffix("")), path.stem) if name in self._stems), None)
        if stem is None:
            return None
        file = self._files.get(stem + self._ending)
        return file.relative_to(self.root).as_posix() if file is not None else f"{stem}{self._suffix}"

    def expected(self, image: str) -> str:
        return PurePosixPath(image).stem


def _say(value: int) -> str:
    return f"give {IGNORE_OPTION} {value}, or say in {MAP_OPTION} what it means"


def _ending(suffix: str) -> tuple[str, list[tuple[str, ...]]]:
    """Split ``_mask.tif`` into the end of a name and the file suffixes to try, in turn."""
    path = PurePosixPath(f"x{suffix}")
    kind = path.suffix.lower()
    if kind in {".jpg", ".jpeg"}:
        raise RequestError(
            f"--truth-suffix {suffix}: JPEG changes pixel values, so it cannot keep class indices"
        )
    if kind in label_folder.LOSSLESS_SUFFIXES:
        return suffix[: -len(kind)], [(kind,)]
    return suffix, [(label_folder.PNG,), label_folder.LOSSLESS_SUFFIXES]


def _plain_table() -> NDArray[np.int16]:
    """Return the class index of every value where values are class indices, `_NO_CLASS` for the others."""
    table = np.full(MOST_VALUES, _NO_CLASS, np.int16)
    table[: VOID_INDEX + 1] = np.arange(VOID_INDEX + 1)
    return table


def _table(
    request: TruthRequest, labels: Mapping[int, str] | None, classes: Sequence[str]
) -> NDArray[np.int16] | None:
    """Return the class index of every value, int16, or None where each value is its own.

    `labels` are the values' names, if they have any.
    """
    told = Indices({}, None)
    if request.classes is not None:
        told = request.classes.indices(MAP_OPTION, labels, classes)
    for value in request.ignored:
        if value in told.named:
            raise RequestError(f"{IGNORE_OPTION} {value}: {MAP_OPTION} says what {value} is; leave one out")
    if labels is None and request.classes is None and not request.ignored:
        return None
    table = _plain_table()
    if labels is not None:
        table[:] = _NO_CLASS
    if told.rest is not None:
        table[:] = told.rest
        if labels is None:
            table[VOID_INDEX] = VOID_INDEX
    labels = labels or {}
    for value in labels.keys() - {*told.named, *request.ignored}:
        if told.rest is None or labels[value].casefold() in _VOID_LABELS:
            table[value] = _class_of(labels[value], classes)
    for value, index in told.named.items():
        table[value] = index
    table[list(request.ignored)] = VOID_INDEX
    return table


def _class_of(label: str, classes: Sequence[str]) -> int:
    """Return the class index of a label with a colour; RequestError where it is no class."""
    index = class_called(label, classes)
    if index is not None:
        return index
    if label.casefold() in _VOID_LABELS:
        return VOID_INDEX
    raise RequestError(
        f"{label}: a label of the ground truth, but not a class ({hint_at_classes(label, classes)}); "
        f"map it, as in {MAP_OPTION} '{label}=0'"
    )


def _colors(request: TruthRequest, label_map: Path) -> Colors | None:
    """Return what the colours of a truth mean, None where it has class indices."""
    if request.label_map is not None and request.colors is not None:
        raise RequestError("--labelmap and --truth-colors exclude each other; leave one of them out")
    if request.colors is TruthColors.VOC:
        return Colors(palettes.voc(), "Pascal VOC's")
    if request.label_map is not None:
        return read_label_map_file(Path(request.label_map))
    if request.colors is None and label_map.is_file():
        return read_label_map_file(label_map)
    return None
