"""Detect common mistakes in calls of ``fcn evaluate``, and suggest the correct call."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from ..common.errors import ImageError, NothingFound, RequestError
from ..common.label_map import read_label_map
from ..common.output_layout import is_output_directory
from ..inputs import formats
from ..inputs.discovery import Source
from . import truth_files
from .confusion_matrix import highest_class

# Limits, so that a mistake in a call on a huge directory is reported soon: images opened, files listed, names
# compared for similarity.
_CHECKED_IMAGES = 3
_MAX_FILES = 100_000
_MAX_COMPARED = 2000
_MOST_CLASSES = 64
"""A file with higher indices, apart from void, is more likely a greyscale photo than a label map."""


def refuse_images(photos: str, truth: str) -> None:
    """Refuse annotations or a Pascal VOC root given as the photos.

    Raises
    ------
    RequestError
        The message suggests the correct call.
    """
    path = Path(photos)
    if path.suffix.lower() == ".json" and path.is_file():
        raise RequestError(f"{photos}: the photos come first: fcn evaluate {truth} {photos}")
    if (path / "JPEGImages").is_dir() and (path / "SegmentationClass").is_dir():
        raise RequestError(
            f"{photos}: a Pascal VOC root; its photos are in JPEGImages: "
            f"fcn evaluate {path / 'JPEGImages'} {path}"
        )


def refuse_other_directory(truth: Path) -> None:
    """Refuse an output directory of `fcn`, or Pascal VOC's SegmentationObject, given as the truth.

    Raises
    ------
    RequestError
        The message suggests what to give instead.
    """
    if is_output_directory(str(truth)):
        raise RequestError(
            f"{truth}: an output directory of fcn; to measure its masks, give the truth here and add "
            f"--predictions {truth}; if its masks are the truth, give {truth / 'masks'}"
        )
    if truth.resolve().name == "SegmentationObject":
        raise RequestError(
            f"{truth}: contains object numbers, not class indices; "
            "give the directory SegmentationClass beside it"
        )


def describe_without_png(truth: Path) -> str:
    """Return a message for a truth directory without a PNG: what it contains instead."""
    files = list(islice(_files(truth), _MAX_FILES))
    annotations = [
        path for path in files if path.suffix.lower() == ".json" and path.stem.startswith("instances")
    ]
    if annotations:
        return f"has no PNG, but annotations: give {annotations[0]}"
    if not files:
        return "the directory contains no files; truth needs an index PNG for each photo"
    suffix, count = Counter(path.suffix.lower() or "without a suffix" for path in files).most_common(1)[0]
    jpeg = (
        " (JPEG changes pixel values, so it cannot keep class indices)" if suffix in {".jpg", ".jpeg"} else ""
    )
    return f"has no PNG, but {count} {suffix}{jpeg}; truth needs an index PNG for each photo"


@contextlib.contextmanager
def detect_swapped(photos: str, truth: str) -> Iterator[None]:
    """Convert an error into one that says so if photos and truth were given in the wrong order.

    Raises
    ------
    RequestError
        The message suggests the correct call.
    """
    try:
        yield
    except (RequestError, NothingFound):
        if not (_contains_label_maps(Path(photos)) and _contains_photos(Path(truth))):
            raise
        raise RequestError(
            f"{photos} holds label maps, {truth} holds photos; the photos come first: "
            f"fcn evaluate {truth} {photos}"
        ) from None


def unmatched(
    photos: Sequence[Source],
    names: Iterable[str],
    expected: Callable[[str], str],
    photo_directory: str,
    searched: str,
) -> RequestError | NothingFound:
    """Return the error for photos of which none has a counterpart.

    Parameters
    ----------
    photos
        The photos, at least one.
    names
        The names that exist.
    expected
        Returns the name that an image should have among `names`.
    photo_directory, searched
        The directory of the photos, and the directory or file whose names were searched.
    """
    names = list(islice(names, _MAX_FILES))
    photos = photos[:_MAX_FILES]
    ends: dict[str, str] = {}
    for name in names:
        ends.setdefault(PurePosixPath(name).name, name)
    for source in photos:
        wanted = expected(source.image)
        found = ends.get(PurePosixPath(wanted).name)
        if found is not None and found.endswith(f"/{wanted}"):
            inside = found.removesuffix(f"/{wanted}")
            advice = f"; give {Path(searched, inside)}" if Path(searched, inside).is_dir() else ""
            return RequestError(f"{searched}: has {found} for {source.given}, not {wanted}{advice}")
        if found is not None and wanted.endswith(f"/{found}"):
            below = Path(photo_directory, wanted.removesuffix(f"/{found}"))
            advice = f"; give the photos as {below}" if below.is_dir() else ""
            return RequestError(f"{searched}: has {found} for {source.given}, not {wanted}{advice}")
    source, found = _most_alike(photos, names, expected)
    text = f"{searched}: no photo in {photo_directory} has a counterpart there; "
    text += f"expected {expected(source.image)}"
    return NothingFound(f"{text} (for {source.given}), found {found}" if found else text)


def _most_alike(
    photos: Sequence[Source], names: Sequence[str], expected: Callable[[str], str]
) -> tuple[Source, str | None]:
    """Return the photo and the name that are most similar, for the message."""
    stems = [PurePosixPath(name).stem for name in names]
    for source in photos[:_CHECKED_IMAGES]:
        stem = PurePosixPath(source.image).stem
        for name, other in zip(names, stems, strict=True):
            if stem in other or other in stem:
                return source, name
    close = difflib.get_close_matches(expected(photos[0].image), names[:_MAX_COMPARED], n=1, cutoff=0.0)
    return photos[0], close[0] if close else None


def _contains_label_maps(place: Path) -> bool:
    images = _first_images(place)
    return bool(images) and all(map(_is_label_map, images))


def _contains_photos(place: Path) -> bool:
    images = _first_images(place)
    return bool(images) and all(path.suffix.lower() != ".png" or _has_colors(path) for path in images)


def _first_images(place: Path) -> list[Path]:
    suffixes = formats.photo_suffixes()
    found = (path for path in _files(place) if path.suffix.lower() in suffixes)
    return list(islice(found, _CHECKED_IMAGES)) if place.is_dir() else []


def _is_label_map(path: Path) -> bool:
    try:
        labels = read_label_map(path)
    except ImageError:
        return False
    return highest_class(labels) < _MOST_CLASSES


def _has_colors(path: Path) -> bool:
    try:
        truth_files.read(path, None)
    except ImageError:
        return True
    return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a directory in sorted order, without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)
