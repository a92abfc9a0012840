"""Match ground truth to images, with its orientation; refuse calls that cannot be meant.

Wrong calls end before weights are searched or downloaded, with what was expected and what was found.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from ..common.errors import Failure, FailureKind, ImageError, NothingFound, RequestError
from ..common.label_map import Size, read_label_map
from ..common.output_layout import is_output_directory
from ..inputs import exif, formats
from ..inputs.discovery import Source
from . import Orientation, label_folder
from .confusion import highest_class

if TYPE_CHECKING:
    from .ground_truth import Truth

Frame = Size | Path | Failure
"""The (width, height) of an image's truth, the file whose header has it, or why it is unknown."""

CHECKED_FILES = 8
"""How many of the first label maps are read before anything that takes long."""

# Limits, so that a mistake in a call on a huge directory is reported soon: images opened, files listed, names
# compared for similarity.
_CHECKED_IMAGES = 3
_MAX_FILES = 100_000
_MAX_COMPARED = 2000
_MOST_CLASSES = 64
"""A file with higher indices, apart from void, is more likely a greyscale image than a label map."""


class Pairs(NamedTuple):
    """The truth's name for each image that has truth, and the images for which that is not certain."""

    names: dict[str, str]
    failures: dict[str, Failure]


def pair(sources: Sequence[Source], truth: Truth) -> Pairs:
    """Match images with truth: by the truth's own rule, then by names that differ in their folders only.

    Raises
    ------
    RequestError
        Two images have one truth by its own rule.
    """
    names: dict[str, str] = {}
    owners: dict[str, Source] = {}
    for source in sources:
        name = truth.find(source.image)
        if name is None:
            continue
        if name in owners:
            raise RequestError(
                f"{owners[name].given} and {source.given} have the same ground truth, {name}; keep one "
                "of the images"
            )
        owners[name] = source
        names[source.image] = name
    failures: dict[str, Failure] = {}
    claims: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        if source.image in names:
            continue
        alike = [name for name in truth.alike(source.image) if name not in owners]
        if len(alike) > 1:
            names[source.image] = alike[0]
            failures[source.image] = _uncertain(f"its ground truth may be {' or '.join(sorted(alike)[:3])}")
        elif alike:
            claims[alike[0]].append(source)
    for name, claiming in claims.items():
        for source in claiming:
            names[source.image] = name
            if len(claiming) > 1:
                images = " and ".join(each.given for each in claiming[:3])
                failures[source.image] = _uncertain(f"{name} may be the ground truth of {images}")
    return Pairs(names, failures)


def _uncertain(text: str) -> Failure:
    return Failure(FailureKind.BAD_LABELS, f"{text}; only the folders of their names differ")


@dataclass(frozen=True)
class OrientationRule:
    """Chooses the orientation in which an image is compared with its truth: upright, or as stored.

    The decoding workers call it (see `decoder.Orient`). `frames` has the frame of each image's truth.
    Where `wanted` is ``auto``, the orientation counts that has the truth's size, and `where_both_fit` if both
    have it.
    """

    frames: Mapping[str, Frame]
    wanted: Orientation
    where_both_fit: Orientation

    def __call__(self, source: Source, upright: Size, turn: int) -> bool:
        """Return whether to compare an image of this upright (width, height) and EXIF orientation as stored.

        ImageError where the image and its truth have different sizes, or the truth cannot be opened.
        """
        frame = self.frames[source.image]
        if isinstance(frame, Failure):
            raise ImageError.of(frame)
        truth = label_folder.size_of(frame) if isinstance(frame, Path) else frame
        stored = exif.turned_size(upright, turn)
        fits = {Orientation.UPRIGHT: truth == upright, Orientation.STORED: truth == stored}
        if turn == 1:
            chosen = Orientation.UPRIGHT
        elif self.wanted is not Orientation.AUTO:
            chosen = self.wanted
        elif all(fits.values()):
            chosen = self.where_both_fit
        else:
            chosen = Orientation.STORED if fits[Orientation.STORED] else Orientation.UPRIGHT
        if not fits[chosen]:
            name = f"its ground truth {frame.name}" if isinstance(frame, Path) else "its ground truth"
            raise ImageError(
                FailureKind.SIZES_DIFFER,
                f"{name} has {_pixels(truth)} pixels, {_describe_image(truth, upright, stored, turn)}",
            )
        return chosen is Orientation.STORED


def _describe_image(truth: Size, upright: Size, stored: Size, turn: int) -> str:
    """Return the image's sizes for a message, with the option that would fit the truth."""
    if turn == 1:
        turned = " (is it turned by 90 degrees?)" if truth == upright[::-1] else ""
        return f"the image {_pixels(upright)}{turned}"
    text = f"the image {_pixels(upright)} upright and {_pixels(stored)} as stored (EXIF orientation {turn})"
    fits = next((way for way, size in (("upright", upright), ("stored", stored)) if size == truth), None)
    return f"{text}; use --orientation {fits}, which has the ground truth's size" if fits else text


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def unexpected(place: object, expected: str, found: str, advice: str = "") -> RequestError:
    """Return the error for a wrong call: what was expected in a place, what is there, and what to give."""
    return RequestError(f"{place}: expected {expected}, found {found}" + (f"; {advice}" if advice else ""))


def refuse_images(images: str, truth: str) -> None:
    """Refuse annotations or a Pascal VOC root given as the images; RequestError has the right call."""
    path = Path(images)
    if path.suffix.lower() == ".json" and path.is_file():
        advice = f"the images come first: fcn evaluate {truth} {images}"
        raise unexpected(images, "images", "a JSON file", advice)
    if (path / "JPEGImages").is_dir() and (path / "SegmentationClass").is_dir():
        raise unexpected(images, "images", "a Pascal VOC root", f"fcn evaluate {path / 'JPEGImages'} {path}")


def refuse_other_directory(truth: Path) -> None:
    """Refuse an output directory of `fcn`, or Pascal VOC's SegmentationObject, given as the truth."""
    if is_output_directory(str(truth)):
        advice = (
            f"to measure its masks, give the ground truth here and add --predictions {truth}; if its "
            f"masks are the ground truth, give {truth / 'masks'}"
        )
        raise unexpected(truth, "ground truth", "an output directory of fcn", advice)
    if truth.resolve().name == "SegmentationObject":
        advice = "give the directory SegmentationClass beside it"
        raise unexpected(truth, "class indices", "object numbers", advice)


def without_label_maps(truth: Path, suffix: str) -> RequestError:
    """Return the error for a truth directory without a label map: what it has instead."""
    paths = list(islice(_files(truth), _MAX_FILES))
    annotations = [
        path for path in paths if path.suffix.lower() == ".json" and path.stem.startswith("instances")
    ]
    expected = f"masks that end in {suffix}" if suffix else "masks"
    if annotations:
        return unexpected(truth, expected, "annotations", f"give {annotations[0]}")
    if not paths:
        return unexpected(truth, expected, "no files")
    kind, count = Counter(path.suffix.lower() or "without a suffix" for path in paths).most_common(1)[0]
    jpeg = (
        " (JPEG changes pixel values, so it cannot keep class indices)" if kind in {".jpg", ".jpeg"} else ""
    )
    return unexpected(truth, expected, f"{count} {kind}{jpeg}")


@contextlib.contextmanager
def detect_swapped(images: str, truth: str) -> Iterator[None]:
    """Convert an error into one that says so if images and truth were given in the wrong order."""
    try:
        yield
    except (RequestError, NothingFound):
        if not (_contains_label_maps(Path(images)) and _contains_images(Path(truth))):
            raise
        advice = f"images are in {truth}, and come first: fcn evaluate {truth} {images}"
        raise unexpected(images, "images", "masks", advice) from None


def unmatched(
    sources: Sequence[Source],
    names: Iterable[str],
    expected: Callable[[str], str],
    images: str,
    searched: str,
    suffix_option: str | None = None,
) -> RequestError | NothingFound:
    """Return the error for images (one or more) of which none has a counterpart.

    `expected` returns the name that an image should have among `names`, those in `searched`. `suffix_option`
    is the option that says what follows an image's name, if there is one.
    """
    names = list(islice(names, _MAX_FILES))
    sources = sources[:_MAX_FILES]
    ends: dict[str, str] = {}
    for name in names:
        ends.setdefault(PurePosixPath(name).name, name)
    for source in sources:
        wanted = expected(source.image)
        found = ends.get(PurePosixPath(wanted).name)
        if found is None or found == wanted:
            continue
        inside = Path(searched, found.removesuffix(f"/{wanted}"))
        below = Path(images, wanted.removesuffix(f"/{found}"))
        advice = ""
        if found.endswith(f"/{wanted}"):
            advice = f"give {inside}" if inside.is_dir() else ""
        elif wanted.endswith(f"/{found}"):
            advice = f"give the images as {below}" if below.is_dir() else ""
        else:
            continue
        return unexpected(searched, f"{wanted} (for {source.given})", found, advice)
    source, alike = _most_alike(sources, names, expected)
    wanted = expected(source.image)
    advice = ""
    stem, other = PurePosixPath(wanted).stem, PurePosixPath(alike or "").stem
    if suffix_option is not None and other != stem and other.startswith(stem):
        advice = f"give {suffix_option} {other.removeprefix(stem)}"
    return NothingFound(
        str(unexpected(searched, f"{wanted} (for {source.given})", alike or "nothing", advice))
    )


def _most_alike(
    sources: Sequence[Source], names: Sequence[str], expected: Callable[[str], str]
) -> tuple[Source, str | None]:
    """Return the image and the name that are most similar, for the message."""
    stems = [PurePosixPath(name).stem for name in names]
    for source in sources[:_CHECKED_IMAGES]:
        stem = PurePosixPath(source.image).stem
        for name, other in zip(names, stems, strict=True):
            if stem in other or other in stem:
                return source, name
    close = difflib.get_close_matches(expected(sources[0].image), names[:_MAX_COMPARED], n=1, cutoff=0.0)
    return sources[0], close[0] if close else None


def _contains_label_maps(place: Path) -> bool:
    found = _first_images(place)
    return bool(found) and all(map(_is_label_map, found))


def _contains_images(place: Path) -> bool:
    found = _first_images(place)
    return bool(found) and all(path.suffix.lower() != ".png" or _has_colors(path) for path in found)


def _first_images(place: Path) -> list[Path]:
    suffixes = formats.image_suffixes()
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
        with label_folder.open_label_image(path) as opened:
            return opened.mode not in {"L", "P"}
    except ImageError:
        return True


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a directory in sorted order, without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)
