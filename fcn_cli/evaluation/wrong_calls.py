"""What people get wrong when they call ``fcn evaluate``: notice it, and say how the call should be."""

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
from ..common.output_layout import is_output_folder
from ..inputs import formats
from ..inputs.discovery import Source
from . import truth_files
from .confusion_matrix import highest_class

_LOOKED_AT = 3
_MANY = 100_000
_COMPARED = 2000
_MOST_CLASSES = 64
"""A label map with higher indices, void aside, is more likely a greyscale photo."""


def refuse_images(photos: str, truth: str) -> None:
    """Refuse annotations or a Pascal VOC root in the place of the photos.

    Raises
    ------
    RequestError
        With the call that is meant.
    """
    path = Path(photos)
    if path.suffix.lower() == ".json" and path.is_file():
        raise RequestError(f"{photos}: the photos come first: fcn evaluate {truth} {photos}")
    if (path / "JPEGImages").is_dir() and (path / "SegmentationClass").is_dir():
        raise RequestError(
            f"{photos}: a Pascal VOC root, whose photos are in JPEGImages: "
            f"fcn evaluate {path / 'JPEGImages'} {path}"
        )


def refuse_output_folder(truth: Path) -> None:
    """Refuse a directory of our predictions, or of Pascal VOC's objects, in the place of truth.

    Raises
    ------
    RequestError
        With what is meant instead.
    """
    if is_output_folder(str(truth)):
        raise RequestError(
            f"{truth}: an output directory of fcn; to measure its masks, give the truth here and them with "
            f"--predictions {truth}; if they are the truth, give {truth / 'masks'}"
        )
    if truth.resolve().name == "SegmentationObject":
        raise RequestError(
            f"{truth}: numbers of objects, not of classes; those are in SegmentationClass beside it"
        )


def without_png(truth: Path) -> str:
    """Say of a directory without a PNG what it has instead."""
    files = list(islice(_files(truth), _MANY))
    annotations = [
        path for path in files if path.suffix.lower() == ".json" and path.stem.startswith("instances")
    ]
    if annotations:
        return f"has no PNG, but annotations: give {annotations[0]}"
    if not files:
        return "no file is in this directory; truth is an index PNG for each photo"
    suffix, count = Counter(path.suffix.lower() or "without a suffix" for path in files).most_common(1)[0]
    jpeg = (
        " (JPEG changes pixel values, so it cannot keep class indices)" if suffix in {".jpg", ".jpeg"} else ""
    )
    return f"has no PNG, but {count} {suffix}{jpeg}; truth is an index PNG for each photo"


@contextlib.contextmanager
def noticing_swapped(photos: str, truth: str) -> Iterator[None]:
    """Where truth turns out to be no use, say so if it holds photos and the photos' place label maps.

    Raises
    ------
    RequestError
        With the call that is meant.
    """
    try:
        yield
    except (RequestError, NothingFound):
        if not (_holds_label_maps(Path(photos)) and _holds_photos(Path(truth))):
            raise
        raise RequestError(
            f"{photos} holds label maps, {truth} holds photos; the photos come first: "
            f"fcn evaluate {truth} {photos}"
        ) from None


def unmatched(
    photos: Sequence[Source], names: Iterable[str], expected: Callable[[str], str], given: str, there: str
) -> RequestError | NothingFound:
    """Return the error for photos of which not one has what is looked for.

    Parameters
    ----------
    photos
        The photos, at least one.
    names
        What there is.
    expected
        Image → the name that it should have among `names`.
    given, there
        The directory of the photos, and where the names are looked up.
    """
    names = list(islice(names, _MANY))
    photos = photos[:_MANY]
    ends: dict[str, str] = {}
    for name in names:
        ends.setdefault(PurePosixPath(name).name, name)
    for source in photos:
        looked_for = expected(source.image)
        found = ends.get(PurePosixPath(looked_for).name)
        if found is not None and found.endswith(f"/{looked_for}"):
            inside = found.removesuffix(f"/{looked_for}")
            meant = f"; give {Path(there, inside)}" if Path(there, inside).is_dir() else ""
            return RequestError(f"{there}: has {found} for {source.given}, not {looked_for}{meant}")
        if found is not None and looked_for.endswith(f"/{found}"):
            below = Path(given, looked_for.removesuffix(f"/{found}"))
            meant = f"; give the photos as {below}" if below.is_dir() else ""
            return RequestError(f"{there}: has {found} for {source.given}, not {looked_for}{meant}")
    source, found = _most_alike(photos, names, expected)
    text = f"{there}: no photo in {given} has a counterpart there; looked for {expected(source.image)}"
    return NothingFound(f"{text} (for {source.given}), found {found}" if found else text)


def _most_alike(
    photos: Sequence[Source], names: Sequence[str], expected: Callable[[str], str]
) -> tuple[Source, str | None]:
    """Return a photo and a name that share as much as possible."""
    stems = [PurePosixPath(name).stem for name in names]
    for source in photos[:_LOOKED_AT]:
        stem = PurePosixPath(source.image).stem
        for name, other in zip(names, stems, strict=True):
            if stem in other or other in stem:
                return source, name
    close = difflib.get_close_matches(expected(photos[0].image), names[:_COMPARED], n=1, cutoff=0.0)
    return photos[0], close[0] if close else None


def _holds_label_maps(place: Path) -> bool:
    looked_at = _first_images(place)
    return bool(looked_at) and all(map(_is_label_map, looked_at))


def _holds_photos(place: Path) -> bool:
    looked_at = _first_images(place)
    return bool(looked_at) and all(path.suffix.lower() != ".png" or _has_colors(path) for path in looked_at)


def _first_images(place: Path) -> list[Path]:
    suffixes = formats.photo_suffixes()
    found = (path for path in _files(place) if path.suffix.lower() in suffixes)
    return list(islice(found, _LOOKED_AT)) if place.is_dir() else []


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
    """Yield the files below a directory, but hidden ones, in sorted order."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)
