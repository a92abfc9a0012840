"""The pictures of one photo on the page: small and large, the photo and its label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from PIL import Image

from ..common.errors import ImageError
from ..common.label_map import LabelMap
from ..common.palettes import Palette
from ..outputs.writers import colored
from .image_store import KEY_LENGTH, ImageStore, key_of
from .label_grid import encode, fitted, shrink
from .scripts import to_script

THUMBNAIL = 320
LARGE = 1280
"""The longest side in pixels of the grid's pictures and of the large views."""

_PHOTO_SUFFIXES = ("-s.jpg", "-l.jpg")
_JPEG_QUALITY = 80


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

    def add_photo(self, key: str, photo: Image.Image) -> None:
        """Make a photo's small and large picture; neither is larger than the photo.

        Raises
        ------
        OutputLost
            A file cannot be written.
        """
        small_suffix, large_suffix = _PHOTO_SUFFIXES
        large = _resized(photo, LARGE)
        self._store.write(key + large_suffix, partial(_save_jpeg, large))
        self._store.write(key + small_suffix, partial(_save_jpeg, _resized(large, THUMBNAIL)))

    def has_labels(self, key: str) -> bool:
        """Say whether the pictures and the grid of a photo's label maps exist."""
        return self._store.has(f"{key}.js") and all(map(self._store.has, self._layer_files(key).values()))

    def add_labels(self, key: str, layers: Mapping[str, LabelMap]) -> None:
        """Make the small pictures of a photo's label maps, and the script with their grid.

        Raises
        ------
        OutputLost
            A file cannot be written.
        """
        for name, file in self._layer_files(key).items():
            labels = layers[name]
            small = shrink(labels, fitted(labels.shape[1], labels.shape[0], THUMBNAIL))
            image = colored(small, self._palettes[name])
            self._store.write(file, lambda stream, image=image: image.save(stream, "PNG", transparency=0))
        shown = {name: labels for name, labels in layers.items() if name not in _DERIVED}
        script = to_script(key, encode(shown, LARGE))
        self._store.write(f"{key}.js", lambda stream: stream.write(script))

    def sweep(self, keys: set[str]) -> None:
        """Delete old pictures of photos that are not on the page, and those in other colours."""
        endings = tuple(f"-{name}-{tag}.png" for name, tag in self._tags.items())

        def needed(file: str) -> bool:
            return file[:KEY_LENGTH] in keys and (not file.endswith(".png") or file.endswith(endings))

        self._store.sweep(needed)

    def _layer_files(self, key: str) -> dict[str, str]:
        return {name: f"{key}-{name}-{tag}.png" for name, tag in self._tags.items()}


def try_photo(pictures: Pictures, key: str, open_photo: Callable[[], Image.Image]) -> str | None:
    """Make a photo's pictures if they do not exist; return why they cannot be made, else None.

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
    pictures.add_photo(key, photo)
    return None


_DERIVED = frozenset({"wrong"})
"""Layers that the page computes from the others."""


def _resized(image: Image.Image, longest: int) -> Image.Image:
    size = fitted(*image.size, longest)
    # A gap of 3: the first reduction, by a whole factor, is fast and not seen in the result.
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _save_jpeg(image: Image.Image, stream: object) -> None:
    clean = image if not image.info else image.copy()
    # Otherwise Pillow writes the photo's comment into the picture.
    clean.info.clear()
    clean.save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)  # type: ignore[arg-type]
