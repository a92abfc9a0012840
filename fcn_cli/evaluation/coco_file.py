"""Read a COCO ``instances_*.json``, and refuse files that only look like one.

A problem of the whole file raises an error. A problem of one image, such as a file name that two images
share, becomes that image's failure. Annotations that are not used are counted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from ..common import files
from ..common.class_names import VOC_CLASSES
from ..common.errors import Failure, FailureKind, RequestError

CATEGORIES = {
    5: "airplane",
    2: "bicycle",
    16: "bird",
    9: "boat",
    44: "bottle",
    6: "bus",
    3: "car",
    17: "cat",
    62: "chair",
    21: "cow",
    67: "dining table",
    18: "dog",
    19: "horse",
    4: "motorcycle",
    1: "person",
    64: "potted plant",
    20: "sheep",
    63: "couch",
    7: "train",
    72: "tv",
}
"""COCO's ids and names of Pascal VOC's classes 1 to 20, in Pascal VOC's order."""

CLASS_INDEX = {identity: index for index, identity in enumerate(CATEGORIES, 1)}
"""COCO's category id → Pascal VOC's class index."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotation of a mapped category; `title` names it in messages."""

    title: str
    category: int
    segmentation: Any


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image: its id, and its (width, height) in pixels or the reason why it is unusable."""

    identity: int
    size: tuple[int, int] | Failure


@dataclass
class CocoFile:
    """A file's content: images by file name, instances by image id, and counts for the report."""

    images: dict[str, ImageEntry] = field(default_factory=dict)
    instances: dict[int, list[Instance]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> CocoFile:
    """Read and validate a file.

    Raises
    ------
    RequestError
        The file cannot be read, is not JSON, or is not a COCO instances file with COCO's categories; the
        message says what it seems to be instead.
    """
    try:
        content = json.loads(files.read_small(path, _MOST_BYTES, follow=True))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not JSON ({error})") from None
    try:
        return _Reader(_instances_only(content)).read()
    except _Refused as refusal:
        raise RequestError(f"{path}: {refusal}") from None


# COCO's own largest file has half a gigabyte.
_MOST_BYTES = 2 << 30


class _Refused(Exception):
    """The whole file is refused; the message says why."""


def _instances_only(content: Any) -> Mapping[str, Any]:
    """Return the file's content if it has the structure of instances; else raise what it seems to be."""
    if isinstance(content, list):
        scored = bool(content) and isinstance(content[0], dict) and "score" in content[0]
        raise _Refused(
            "results of a detector, predictions with scores; truth is an instances_*.json"
            if scored
            else "a list; COCO's instances are an object with images, annotations and categories"
        )
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise _Refused("not COCO's instances: it has no list of images")
    if not isinstance(content.get("annotations"), list) or not content["annotations"]:
        raise _Refused("has no annotations, so it holds no truth (it may be one of COCO's image_info files)")
    first = content["annotations"][0]
    if isinstance(first, dict) and "segments_info" in first:
        raise _Refused("panoptic annotations, whose segments are in PNGs; give an instances_*.json")
    if isinstance(first, dict) and "caption" in first:
        raise _Refused("captions; give an instances_*.json")
    return content


class _Reader:
    """Collects a file's images and instances, and validates both."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self._file = CocoFile()
        self._known: Counter[int] = Counter()

    def read(self) -> CocoFile:
        known = self._categories()
        self._images()
        self._annotations(known)
        return self._file

    def _categories(self) -> dict[int, str]:
        """Return the category names by id; a mapped id must have COCO's name, and the reverse."""
        listed = self._content.get("categories")
        if not isinstance(listed, list) or not listed:
            raise _Refused(
                "has no categories, so nothing says what its category ids mean; copy `categories` from "
                "COCO's own instances file"
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
            _check_name(identity, name)
        if not CATEGORIES.keys() & names.keys():
            raise _Refused(
                f"none of its {len(names)} categories is one of Pascal VOC's 20 "
                f"({_first_names(names.values())})"
            )
        self._file.counts["categories_missing"] = [
            name for identity, name in CATEGORIES.items() if identity not in names
        ]
        return names

    def _images(self) -> None:
        names: Counter[str] = Counter()
        entries: list[tuple[str, int, Mapping[str, Any]]] = []
        for number, value in enumerate(self._content["images"]):
            entry = _object(value, "images", number)
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                raise _Refused(f"images[{number}] has no file_name")
            identity = _whole(entry, "id", "images", number)
            entries.append((name, identity, entry))
            names[name] += 1
            self._known[identity] += 1
        for name, identity, entry in entries:
            width, height = entry.get("width"), entry.get("height")
            if names[name] > 1:
                reason = f"{names[name]} images of the annotations have this file_name"
            elif self._known[identity] > 1:
                reason = f"{self._known[identity]} images of the annotations have its id, {identity}"
            elif _is_whole(width) and _is_whole(height) and min(width, height) > 0:
                self._file.images[name] = ImageEntry(identity, (width, height))
                continue
            else:
                reason = "the annotations do not give its width and height in whole pixels"
            self._file.images[name] = ImageEntry(identity, Failure(FailureKind.BAD_LABELS, reason))

    def _annotations(self, names: Mapping[int, str]) -> None:
        counts: Counter[str] = Counter(
            annotations_used=0, annotations_of_other_categories=0, annotations_of_unknown_images=0
        )
        for number, value in enumerate(self._content["annotations"]):
            entry = _object(value, "annotations", number)
            image = _whole(entry, "image_id", "annotations", number)
            category = _whole(entry, "category_id", "annotations", number)
            if image not in self._known:
                counts["annotations_of_unknown_images"] += 1
            elif category not in CATEGORIES:
                counts["annotations_of_other_categories"] += 1
            elif category not in names:
                raise _Refused(
                    f"annotations[{number}] has category_id {category}, which is not in categories"
                )
            else:
                counts["annotations_used"] += 1
                title = f"annotation {str(entry.get('id', number))[:40]} ({names[category]})"
                self._file.instances[image].append(Instance(title, category, entry.get("segmentation")))
        if counts["annotations_of_unknown_images"] == len(self._content["annotations"]):
            raise _Refused("no annotation belongs to an image of the file (compare image_id and images[].id)")
        self._file.counts.update(counts)


def _check_name(identity: int, name: str) -> None:
    plain = _plain(name)
    if identity in CATEGORIES and plain not in _NAMES[identity]:
        raise _Refused(
            f"category id {identity} is {name!r} here and {CATEGORIES[identity]!r} in COCO; give the "
            "categories COCO's numbers"
        )
    standard_id = next((known for known, names in _NAMES.items() if plain in names), None)
    if standard_id is not None and standard_id != identity:
        raise _Refused(
            f"category {name!r} has id {identity} here and {standard_id} in COCO; "
            "give the categories COCO's numbers"
        )


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


# Some tools write Pascal VOC's names of the same classes.
_NAMES = {
    identity: {_plain(name), _plain(VOC_CLASSES[CLASS_INDEX[identity]])}
    for identity, name in CATEGORIES.items()
}


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
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
