"""The pictures of one photo on the page: small and large, the photo and its label maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from PIL import Image

from ..common import files, resources
from ..common.errors import ImageError
from ..common.label_map import LabelMap
from ..common.ordered_work import OrderedWork
from ..common.palettes import Palette
from ..outputs.overlay import colored
from .image_store import KEY_LENGTH, ImageStore, key_of
from .label_grid import encode, fitted, shrink
from .scripts import to_script

THUMBNAIL = 320
LARGE = 1280
"""The longest side in pixels of the grid's pictures and of the large views."""

_PHOTO_SUFFIXES = ("-s.jpg", "-l.jpg")
_JPEG_QUALITY = 80
_MAX_THREADS = 8
_MAX_HELD_BYTES = 512 << 20
_BYTES_PER_PIXEL = 12
"""A decoded photo, its label maps, and a copy of the photo."""

T = TypeVar("T")
R = TypeVar("R")


class Pictures:
    """Makes the pictures that do not exist yet. Its methods may be called from threads.

    Parameters
    ----------
    store
        Where they are kept.
    layers
        The name of each label map that a photo may have, and its colours. Value 0 is transparent: the page
        lays the picture over the photo, or over the colour of class 0.
    """

    def __init__(self, store: ImageStore, layers: Mapping[str, Palette]) -> None:
        self._store = store
        self._palettes = dict(layers)
        self._tags = {name: key_of(colors.tobytes())[:8] for name, colors in self._palettes.items()}

    @property
    def tags(self) -> dict[str, str]:
        """For each layer, what its pictures' names end in: it stands for the colours."""
        return self._tags

    def has_photo(self, key: str) -> bool:
        """Say whether the pictures of a photo exist."""
        return all(self._store.has(key + suffix) for suffix in _PHOTO_SUFFIXES)

    def add_photo(self, key: str, photo: Image.Image, permissions: files.Permissions | None) -> None:
        """Make a photo's small and large picture; neither is larger than the photo.

        `permissions` are the photo's: whoever cannot read it cannot read them.

        Raises
        ------
        OutputLost
            A file cannot be written.
        """
        small_suffix, large_suffix = _PHOTO_SUFFIXES
        large = _resized(photo, LARGE)
        self._store.write(key + large_suffix, _jpeg(large), permissions)
        self._store.write(key + small_suffix, _jpeg(_resized(large, THUMBNAIL)), permissions)

    def has_labels(self, key: str) -> bool:
        """Say whether the pictures and the grid of a photo's label maps exist."""
        return self._store.has(f"{key}.js") and all(map(self._store.has, self._layer_files(key).values()))

    def add_labels(self, key: str, layers: Mapping[str, LabelMap]) -> None:
        """Make what does not exist: small pictures of a photo's label maps, the script with their grid.

        Raises
        ------
        OutputLost
            A file cannot be written.
        """
        for name, file in self._layer_files(key).items():
            # In other colours, only these are made again.
            if not self._store.has(file):
                labels = layers[name]
                small = shrink(labels, fitted(labels.shape[1], labels.shape[0], THUMBNAIL))
                self._store.write(file, _png(small, self._palettes[name]))
        if not self._store.has(f"{key}.js"):
            shown = {name: labels for name, labels in layers.items() if name not in _DERIVED}
            self._store.write(f"{key}.js", to_script(key, encode(shown, LARGE)))

    def sweep(self, keys: set[str]) -> None:
        """Delete old pictures of photos that are not on the page, and those in other colours."""
        endings = tuple(f"-{name}-{tag}.png" for name, tag in self._tags.items())

        def needed(file: str) -> bool:
            return file[:KEY_LENGTH] in keys and (not file.endswith(".png") or file.endswith(endings))

        self._store.sweep(needed)

    def _layer_files(self, key: str) -> dict[str, str]:
        return {name: f"{key}-{name}-{tag}.png" for name, tag in self._tags.items()}


def make_in_threads(items: Iterable[T], make: Callable[[T], R], pixels_of: Callable[[T], int]) -> Iterator[R]:
    """Yield `make` of each item, in order, several at a time.

    Parameters
    ----------
    items
        Photos.
    make
        Makes the pictures of one.
    pixels_of
        Returns a photo's pixels. Large photos are decoded one at a time, so that memory does not grow with
        the number of threads.
    """
    threads = min(resources.cpu_count(), _MAX_THREADS)
    with OrderedWork[None, R](
        threads, "fcn-report", max_bytes=_MAX_HELD_BYTES, max_count=4 * threads
    ) as work:
        for item in items:
            work.submit(None, partial(make, item), _BYTES_PER_PIXEL * pixels_of(item))
            for task in work.take():
                yield task.future.result()
        for task in work.take(everything=True):
            yield task.future.result()


def try_photo(pictures: Pictures, key: str, path: str, open_photo: Callable[[], Image.Image]) -> str | None:
    """Make a photo's pictures if they do not exist; return why they cannot be made, else None.

    `path` is the file that they show.

    Raises
    ------
    OutputLost
        A file cannot be written.
    """
    if pictures.has_photo(key):
        return None
    try:
        photo = open_photo()
    except ImageError as error:
        return str(error)
    pictures.add_photo(key, photo, files.permissions_of(path))
    return None


_DERIVED = frozenset({"wrong"})
"""Layers that the page computes from the others."""


def _resized(image: Image.Image, longest: int) -> Image.Image:
    size = fitted(*image.size, longest)
    # A gap of 2: a first reduction by a whole factor is fast, and is not seen in the result.
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _jpeg(image: Image.Image) -> bytes:
    clean = image if not image.info else image.copy()
    # Otherwise Pillow writes the photo's comment into the picture.
    clean.info.clear()
    encoded = io.BytesIO()
    clean.save(encoded, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return encoded.getvalue()


def _png(labels: LabelMap, palette: Palette) -> bytes:
    encoded = io.BytesIO()
    colored(labels, palette).save(encoded, "PNG", transparency=0)
    return encoded.getvalue()
