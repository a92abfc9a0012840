"""Ground truth from a COCO ``instances_*.json``, by the rules of torchvision's segmentation reference.

A category belongs to the class of its name, or to what ``--truth-map`` says; every other category is
background. A crowd counts as an ordinary instance. Pixels that more than one instance covers are void, even
if the instances have the same class. Every image of the file counts; an image without annotations is all
background.

COCO's own library, pycocotools, rasterises polygons. It does not validate its input (it reads two points
as a box), so every segmentation is validated first.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..common import files
from ..common.class_map import ClassMap, Indices
from ..common.errors import Failure, FailureKind, ImageError, RequestError
from ..common.label_map import VOID_INDEX, LabelMap, Size
from ..common.output_layout import WRITTEN_BY_EXPORT
from ..common.run_lengths import decompress
from ..outputs.json_text import read_name
from . import Orientation
from .matching import Frame

# COCO's own largest file has half a gigabyte.
_MOST_BYTES = 2 << 30
_SHOWN_NAMES = 3
_BACKGROUND = "background"

_SYNONYMS = (
    ("aeroplane", "airplane"),
    ("diningtable", "dining table"),
    ("motorbike", "motorcycle"),
    ("pottedplant", "potted plant"),
    ("sofa", "couch"),
    ("tvmonitor", "tv"),
)
"""Pascal VOC's and COCO's names of the same classes, where they are spelled differently."""


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


_OTHER_NAMES = {_plain(one): _plain(other) for pair in _SYNONYMS for one, other in (pair, reversed(pair))}


def class_called(name: str, classes: Sequence[str]) -> int | None:
    """Return the class of this name, None without one or with several.

    Upper and lower case, spaces and punctuation do not count; nor does it matter whether a class has Pascal
    VOC's name or COCO's.
    """
    plain = _plain(name)
    for wanted in (plain, _OTHER_NAMES.get(plain, plain)):
        found = [index for index, each in enumerate(classes) if _plain(each) == wanted]
        if len(found) == 1:
            return found[0]
    return None


@dataclass(frozen=True, slots=True)
class _Instance:
    """One annotation; `title` names it in messages."""

    title: str
    category: int
    segmentation: Any


@dataclass(frozen=True, slots=True)
class _ImageEntry:
    """One image: its id, and its (width, height) in pixels or the reason why it is unusable."""

    identity: int
    size: Size | Failure


class CocoTruth:
    """Ground truth in COCO's format; see `ground_truth.Truth`.

    Categories become what `told` says, by name or id, and void where they are `ignored`; the others keep the
    class of their name. RequestError where the file cannot be read or is not a valid instances file, or has
    polygons and pycocotools is missing.
    """

    def __init__(self, path: Path, told: ClassMap | None = None, ignored: Sequence[int] = ()) -> None:
        self.path = path
        self.counts: Mapping[str, Any] = {}
        self._told, self._ignored = told, ignored
        content = _read(path)
        try:
            reader = _Reader(content)
            self._categories = reader.categories()
            self._images = reader.images()
            self._instances = reader.annotations(self._categories)
        except _Refused as refusal:
            raise RequestError(f"{path}: {refusal}") from None
        self._reader_counts = reader.counts
        # What fcn export writes are regions of upright images.
        is_ours = str(_description(content)).startswith(WRITTEN_BY_EXPORT)
        self.drawn_on = Orientation.UPRIGHT if is_ours else Orientation.STORED
        self.description = (
            "COCO instances: categories by name, crowds as instances, overlaps void, "
            "images without annotations as background"
        )
        if told is not None:
            self.description += f", --truth-map {told}"
        self.description += "".join(f", --ignore-index {index}" for index in ignored)
        self._classes: Mapping[int, int] = {}
        self._uncovered = 0
        self._by_file_name = _by_file_name(self._images)
        self._coco = self._rasteriser()

    def __len__(self) -> int:
        return len(self._images)

    def names(self) -> Iterable[str]:
        return self._images

    def expected(self, image: str) -> str:
        return image

    def find(self, image: str) -> str | None:
        return image if image in self._images else None

    def alike(self, image: str) -> Sequence[str]:
        """Return the file names with the image's last part: those in the same folders, if there are any."""
        parts = PurePosixPath(image).parts
        found = self._by_file_name.get(parts[-1], ())

        def agrees(name: str) -> bool:
            others = _parts(name)
            shared = min(len(parts), len(others))
            return parts[-shared:] == others[-shared:]

        return [name for name in found if agrees(name)] or found

    def frame(self, name: str) -> Frame:
        return self._images[name].size

    def use_classes(self, names: Sequence[str], background: int | None = None) -> None:
        told = Indices({}, None)
        if self._told is not None:
            told = self._told.indices("--truth-map", self._categories, names)
        classes = dict(told.named)
        for category, name in self._categories.items():
            if category in self._ignored:
                classes[category] = VOID_INDEX
            elif category not in classes:
                index = told.rest if told.rest is not None else class_called(name, names)
                if index is not None:
                    classes[category] = index
        if not classes:
            raise RequestError(
                f"{self.path}: none of its {len(self._categories)} categories "
                f"({_first_names(self._categories.values())}) is one of the classes "
                f"({_first_names(names)}); map them, as in --truth-map 'giraffe=1'; if the classes are "
                "Pascal VOC's under other names, give --class-names voc"
            )
        self._classes = classes
        if background is None:
            background = class_called(_BACKGROUND, names)
        # Where no class is the background, what nobody has outlined is not known.
        self._uncovered = VOID_INDEX if background is None else background
        used = Counter(instance.category in classes for some in self._instances.values() for instance in some)
        has_category = set(classes.values())
        self.counts = {
            "annotations_used": used[True],
            "annotations_of_other_categories": used[False],
            **self._reader_counts,
            "categories_missing": [
                name
                for index, name in enumerate(names)
                if index != self._uncovered and index not in has_category
            ],
        }

    def notes(self, name: str) -> tuple[str, ...]:
        """Return how many annotations of an image have no segmentation."""
        instances = self._instances.get(self._images[name].identity, ())
        without = sum(not instance.segmentation for instance in instances)
        return (f"annotations without a segmentation: {without}",) if without else ()

    def load(self, name: str, *sizes: Size) -> LabelMap:
        image = self._images[name]
        if isinstance(image.size, Failure):
            raise ImageError.of(image.size)
        width, height = image.size
        if sizes and image.size not in sizes:
            wanted = f"{sizes[0][0]}x{sizes[0][1]}"
            raise ImageError(
                FailureKind.SIZES_DIFFER,
                f"{self.path}: {name} has {width}x{height} pixels, not {wanted}",
            )
        labels = np.full((height, width), self._uncovered, np.uint8)
        count = np.zeros((height, width), np.uint8)
        for instance in self._instances.get(image.identity, ()):
            index = self._classes.get(instance.category)
            if index is None or not instance.segmentation:
                continue
            try:
                covered_pixels = self._rasterise(instance.segmentation, height, width)
            except ValueError as error:
                raise ImageError(FailureKind.BAD_LABELS, f"{self.path}: {instance.title} {error}") from None
            labels[covered_pixels] = index
            # Limited to 2, because uint8 would overflow at 256 instances.
            count[covered_pixels] = np.minimum(count[covered_pixels] + 1, 2)
        labels[count > 1] = VOID_INDEX
        return labels

    def _rasteriser(self) -> Any:
        """Return what rasterises polygons; None where there are none to rasterise."""
        if not any(isinstance(one.segmentation, list) for some in self._instances.values() for one in some):
            return None
        try:
            from pycocotools import mask
        except ImportError:
            raise RequestError(
                f"{self.path}: COCO's polygons need pycocotools; install it with: pip install 'fcn-cli[coco]'"
            ) from None
        return mask

    def _rasterise(self, segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
        """Return an instance's pixels, shape (height, width), from run lengths, or from polygons united.

        ValueError where it is invalid; the message completes the sentence "annotation 7 (dog) …".
        """
        if isinstance(segmentation, list):
            _check_polygons(segmentation, height, width)
            runs = self._coco.merge(self._coco.frPyObjects(segmentation, height, width))
            polygons: NDArray[np.bool_] = self._coco.decode(runs).astype(bool)
            return polygons
        if not isinstance(segmentation, dict):
            raise ValueError("has a segmentation that is neither polygons nor run lengths")  # noqa: TRY004
        counts = _validated_counts(segmentation, height, width)
        # Runs go down the columns; the first one counts pixels outside the instance.
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


class _Refused(Exception):
    """The whole file is refused; the message says why."""


def _read(path: Path) -> Mapping[str, Any]:
    """Return the content of a file that has the structure of instances; RequestError says what else it is."""
    try:
        content = json.loads(files.read_small(path, _MOST_BYTES, follow=True))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not JSON ({error})") from None
    try:
        return _instances_only(content)
    except _Refused as refusal:
        raise RequestError(f"{path}: {refusal}") from None


def _instances_only(content: Any) -> Mapping[str, Any]:
    if isinstance(content, list):
        scored = bool(content) and isinstance(content[0], dict) and "score" in content[0]
        raise _Refused(
            "a detector's results (predictions with scores); ground truth is an instances_*.json"
            if scored
            else "a list; COCO's instances are an object with images, annotations and categories"
        )
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise _Refused("not COCO's instances: it has no list of images")
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        raise _Refused(
            "has no annotations, so it holds no ground truth (it may be one of COCO's image_info files)"
        )
    first = annotations[0] if annotations else None
    if isinstance(first, dict) and "segments_info" in first:
        raise _Refused("panoptic annotations, whose segments are in PNGs; give an instances_*.json")
    if isinstance(first, dict) and "caption" in first:
        raise _Refused("captions; give an instances_*.json")
    return content


def _description(content: Mapping[str, Any]) -> object:
    info = content.get("info")
    return info.get("description") if isinstance(info, dict) else None


class _Reader:
    """Collects a file's images and instances, and validates both.

    A problem of the whole file raises an error. A problem of one image, such as a file name that two images
    share, becomes that image's failure. Annotations that are not used are counted.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self._known: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()

    def categories(self) -> dict[int, str]:
        """Return the names of the categories by id."""
        listed = self._content.get("categories")
        if not isinstance(listed, list) or not listed:
            raise _Refused(
                "has no categories, so its category ids have no meaning; copy `categories` from COCO's "
                "own instances file"
            )
        names: dict[int, str] = {}
        for number, value in enumerate(listed):
            entry = _object(value, "categories", number)
            identity, name = _whole(entry, "id", "categories", number), entry.get("name")
            if not isinstance(name, str):
                raise _Refused(f"categories[{number}] has no name")
            if identity in names and names[identity] != name:
                raise _Refused(f"category id {identity} is both {names[identity]!r} and {name!r}")
            names[identity] = name
        return names

    def images(self) -> dict[str, _ImageEntry]:
        """Return the images by file name."""
        names: Counter[str] = Counter()
        entries: list[tuple[str, int, Mapping[str, Any]]] = []
        for number, value in enumerate(self._content["images"]):
            entry = _object(value, "images", number)
            name = _file_name(entry, number)
            identity = _whole(entry, "id", "images", number)
            entries.append((name, identity, entry))
            names[name] += 1
            self._known[identity] += 1
        images: dict[str, _ImageEntry] = {}
        for name, identity, entry in entries:
            width, height = entry.get("width"), entry.get("height")
            if names[name] > 1:
                reason = f"{names[name]} images of the annotations have this file_name"
            elif self._known[identity] > 1:
                reason = f"{self._known[identity]} images of the annotations have its id, {identity}"
            elif _is_whole(width) and _is_whole(height) and min(width, height) > 0:
                images[name] = _ImageEntry(identity, (width, height))
                continue
            else:
                reason = "the annotations do not give its width and height in whole pixels"
            images[name] = _ImageEntry(identity, Failure(FailureKind.BAD_LABELS, reason))
        return images

    def annotations(self, categories: Mapping[int, str]) -> dict[int, list[_Instance]]:
        """Return the annotations by image id, after `images`."""
        instances: dict[int, list[_Instance]] = defaultdict(list)
        unknown = without = 0
        for number, value in enumerate(self._content["annotations"]):
            entry = _object(value, "annotations", number)
            image = _whole(entry, "image_id", "annotations", number)
            category = _whole(entry, "category_id", "annotations", number)
            if image not in self._known:
                unknown += 1
            elif category not in categories:
                raise _Refused(
                    f"annotations[{number}] has category_id {category}, which is not in categories"
                )
            else:
                title = f"annotation {str(entry.get('id', number))[:40]} ({categories[category]})"
                segmentation = entry.get("segmentation")
                without += not segmentation
                instances[image].append(_Instance(title, category, segmentation))
        count = len(self._content["annotations"])
        if count and unknown == count:
            raise _Refused("no annotation belongs to an image of the file (compare image_id and images[].id)")
        if count and unknown + without == count:
            raise _Refused("no annotation has a segmentation; boxes alone are not enough")
        self.counts.update(annotations_of_unknown_images=unknown, annotations_without_segmentation=without)
        return instances


def _file_name(entry: Mapping[str, Any], number: int) -> str:
    """Return an image's file name; what `fcn export` writes has the bytes of names that are not UTF-8."""
    try:
        name = read_name(entry, "file_name")
    except (KeyError, TypeError, ValueError, AttributeError):
        name = ""
    if not name:
        raise _Refused(f"images[{number}] has no file_name")
    return name


def _by_file_name(images: Iterable[str]) -> dict[str, list[str]]:
    """Return the file names of the annotations by their last part."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in images:
        found[_parts(name)[-1]].append(name)
    return dict(found)


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and the file of a name, which may be written as on Windows, or be a URL."""
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    """Raise ValueError for a polygon that pycocotools cannot rasterise safely."""
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            raise ValueError("has a polygon that is not a list of numbers x, y, x, y, …")
        if len(polygon) % 2:
            raise ValueError(f"has a polygon of {len(polygon)} numbers; they must be pairs of x and y")
        if len(polygon) < 6:
            points = len(polygon) // 2
            raise ValueError(
                f"has a degenerate polygon of {points} point{'' if points == 1 else 's'}; at least 3 needed"
            )
        for values, side in ((polygon[::2], width), (polygon[1::2], height)):
            # A polygon may exceed the image a little; a far point makes pycocotools allocate huge buffers.
            if min(values) < -side or max(values) > 2 * side:
                raise ValueError(f"has a polygon that reaches far outside its image of {width}x{height}")


def _validated_counts(runs: dict[str, Any], height: int, width: int) -> list[int]:
    """Return the run lengths; raises ValueError unless they add up to the image's pixels."""
    if runs.get("size") != [height, width]:
        raise ValueError(f"has run lengths for a size of {runs.get('size')}, its image {[height, width]}")
    counts = runs.get("counts")
    if isinstance(counts, str):
        counts = decompress(counts)
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("has damaged run lengths")
    if sum(counts) != height * width:
        raise ValueError(f"has run lengths of {sum(counts)} pixels, its image {height * width}")
    return counts


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _object(value: Any, where: str, number: int) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(f"{where}[{number}] is not an object")
    return value


def _whole(entry: Mapping[str, Any], key: str, where: str, number: int) -> int:
    value = entry.get(key)
    if not _is_whole(value):
        wrong = f"the {key} {json.dumps(value)[:40]}" if key in entry else f"no {key}"
        raise _Refused(f"{where}[{number}] has {wrong}; ids are whole numbers")
    return value


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _first_names(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN_NAMES]) + (", …" if len(listed) > _SHOWN_NAMES else "")
