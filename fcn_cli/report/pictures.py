"""The pictures of a report: made once, named by a hash of their content, checked before reuse."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..common import files, resources
from ..common.errors import ImageError, OutputLost
from ..common.label_map import LabelMap
from ..common.ordered_work import OrderedWork
from ..common.palettes import Palette
from ..inputs import workers
from ..inputs.resizing import fitted, within
from ..outputs.output_store import LocalStore
from ..outputs.overlay import colored
from .page import PICTURES, to_script

THUMBNAIL = 320
LARGE = 1280
"""The longest side in pixels of the grid's pictures and of the large views."""

_KEY_LENGTH = 20
_FILE = re.compile(rf"[0-9a-f]{{{_KEY_LENGTH}}}(-[a-z]+)?(-[0-9a-f]+)*\.(js|jpg|png)")
_GRID = re.compile(
    rb"fcnReport\.receive\(\"[0-9a-f]+\",\{\"w\":\d+,\"h\":\d+,\"layers\":"
    rb"\{\"[a-z]+\":\[[\d,]*\](,\"[a-z]+\":\[[\d,]*\])*\}\}\);\n"
)
"""All that the script of a label grid may be: the page runs it, and anybody may have put it there."""
_LARGEST_FILE = 64 << 20
_JPEG_QUALITY = 80
_MAX_THREADS = 8
_MAX_HELD_BYTES = 512 << 20
_BYTES_PER_PIXEL = 12
"""A decoded image, its label maps, and a copy of the image."""
_MAX_RUNS = 60_000
_SMALLEST_GRID = 160

T = TypeVar("T")
R = TypeVar("R")


def key_of(*identity: Any) -> str:
    """Return the key of what pictures show: the hash of everything that their content depends on."""
    return hashlib.sha256(repr(identity).encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_LENGTH]


class Pictures:
    """The files ``report/images/<first two digits>/<key>-<what it is>-<hash of the content>``.

    What an earlier report has made is found by its key and used again if its content has the hash in its
    name. So what a power cut has torn, or somebody has changed, is made again; of scripts, which the page
    runs, also what is no label grid. `of_image` and `of_labels` may be called from threads.

    Parameters
    ----------
    store
        The directory that the report is written into.
    layers
        The name of each label map that an image may have, and its colours. Value 0 is transparent: the page
        lays the picture over the image, or over the colour of class 0.

    Raises
    ------
    OutputLost
        The directory of the pictures cannot be listed, or lies behind a link.
    """

    def __init__(self, store: LocalStore, layers: Mapping[str, Palette]) -> None:
        self._store = store
        self._palettes = dict(layers)
        self.tags = {name: key_of(colors.tobytes())[:8] for name, colors in self._palettes.items()}
        """For each layer, what stands for its colours in the names of its pictures."""
        self._used: set[str] = set()
        self._torn: list[str] = []
        with OutputLost.when_refused(store / PICTURES):
            self._before = sorted(self._list())

    def of_image(
        self, key: str, path: str, open_image: Callable[[], Image.Image]
    ) -> tuple[dict[str, str], str | None]:
        """Return the hashes of an image's small and large picture, or why they cannot be made.

        `open_image` returns it with at most `LARGE` pixels on its long side. Nobody can read the pictures who
        cannot read the file at `path`.

        Raises
        ------
        OutputLost
            A file cannot be written.
        """
        small, large = self._find(key, "small", "jpg"), self._find(key, "large", "jpg")
        if small is None or large is None:
            try:
                shown = open_image()
            except ImageError as error:
                return {}, str(error)
            permissions = files.permissions_of(path)
            large = self._keep(key, "large", "jpg", _jpeg(shown), permissions)
            small = self._keep(key, "small", "jpg", _jpeg(within(shown, THUMBNAIL)), permissions)
        return {"small": small, "large": large}, None

    def of_labels(self, key: str, read: Callable[[], Mapping[str, LabelMap]]) -> dict[str, str]:
        """Return the hashes of the small pictures of an image's label maps, by layer, and of their ``grid``.

        `read` is asked for the label maps where something is to be made.

        Raises
        ------
        ImageError
            From `read`.
        OutputLost
            A file cannot be written.
        """
        found = {name: self._find(key, f"{name}-{tag}", "png") for name, tag in self.tags.items()}
        found["grid"] = self._find(key, "grid", "js")
        missing = [name for name, content in found.items() if content is None]
        made: dict[str, str] = {name: content for name, content in found.items() if content is not None}
        layers = read() if missing else {}
        for name in missing:
            if name == "grid":
                shown = {each: labels for each, labels in layers.items() if each not in _DERIVED}
                made[name] = self._keep(key, name, "js", to_script(key, encode_grid(shown, LARGE)))
            else:
                # In other colours, only these are made again.
                labels = layers[name]
                small = shrink(labels, fitted(labels.shape[1], labels.shape[0], THUMBNAIL))
                picture = _png(small, self._palettes[name])
                made[name] = self._keep(key, f"{name}-{self.tags[name]}", "png", picture)
        return made

    def sweep(self) -> None:
        """Delete what was there before and is not used: no page needs it once this report's page is written.

        What has come since belongs to a report that is being made beside this one.
        """
        unused = (_path(name) for name in self._before if name not in self._used)
        for path in (*unused, *self._torn):
            with contextlib.suppress(OSError):
                self._store.remove(path)

    def _find(self, key: str, what: str, suffix: str) -> str | None:
        """Return the hash in the name of a file that can be used again."""
        start = f"{key}-{what}-"
        place = bisect_left(self._before, start)
        while place < len(self._before) and self._before[place].startswith(start):
            name, place = self._before[place], place + 1
            content = name[len(start) :].removesuffix(f".{suffix}")
            try:
                data = (self._store / _path(name)).read_small(_LARGEST_FILE)
            except OSError:
                continue
            if _hash(data) == content and (suffix != "js" or _GRID.fullmatch(data)):
                self._used.add(name)
                return content
        return None

    def _keep(
        self, key: str, what: str, suffix: str, data: bytes, permissions: files.Permissions | None = None
    ) -> str:
        name = f"{key}-{what}-{_hash(data)}.{suffix}"
        with OutputLost.when_refused(self._store / _path(name)):
            self._store.write_bytes(_path(name), data, permissions)
        self._used.add(name)
        return _hash(data)

    def _list(self) -> Iterator[str]:
        """Yield the names of our files; keep aside what a report that was killed has left."""
        for part in self._store.entries(PICTURES):
            if len(part.name) != 2 or not part.is_dir(follow_symlinks=False):
                continue
            for entry in self._store.entries(f"{PICTURES}/{part.name}"):
                if not entry.is_file(follow_symlinks=False):
                    continue
                if files.is_temporary(entry.name):
                    self._torn.append(f"{PICTURES}/{part.name}/{entry.name}")
                elif entry.name[:2] == part.name and _FILE.fullmatch(entry.name):
                    yield entry.name


def _path(name: str) -> str:
    return f"{PICTURES}/{name[:2]}/{name}"


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=6).hexdigest()


def make_in_threads(items: Iterable[T], make: Callable[[T], R], pixels_of: Callable[[T], int]) -> Iterator[R]:
    """Yield `make` of each item, in order, several at a time.

    Parameters
    ----------
    items
        Images.
    make
        Makes the pictures of one.
    pixels_of
        Returns an image's pixels. Large images are decoded one at a time, so that memory does not grow with
        the number of threads.
    """
    threads = min(resources.cpu_count(), _MAX_THREADS)
    workers.start(threads)
    with OrderedWork[None, R](
        threads, "fcn-report", max_bytes=_MAX_HELD_BYTES, max_count=4 * threads
    ) as work:
        for item in items:
            work.submit(None, partial(make, item), _BYTES_PER_PIXEL * pixels_of(item))
            for task in work.take():
                yield task.future.result()
        for task in work.take(everything=True):
            yield task.future.result()


_DERIVED = frozenset({"wrong"})
"""Layers that the page computes from the others."""


def shrink(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Return a label map at a (width, height), by nearest neighbour: classes do not mix."""
    if labels.shape == size[::-1]:
        return labels
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def runs(labels: LabelMap) -> list[int]:
    """Return a label map as value, length, value, length, …, row by row without a break between rows."""
    flat = labels.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    coded: list[int] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
    return coded


def encode_grid(layers: Mapping[str, LabelMap], longest: int) -> dict[str, Any]:
    """Return label maps of one size for the page: the class of every pixel, as numbers in a script.

    The browser cannot read classes from an image: a page from ``file://`` may draw one on a canvas but not
    read its pixels back.

    Parameters
    ----------
    layers
        Name → label map; all of one shape.
    longest
        The long side of the grid in pixels. It is halved for a label map that is noise, so that no image
        costs the page megabytes.

    Returns
    -------
    dict
        ``w`` and ``h``, the grid's size, and ``layers``: name → `runs`.
    """
    height, width = next(iter(layers.values())).shape
    while True:
        size = fitted(width, height, longest)
        coded = {name: runs(shrink(labels, size)) for name, labels in layers.items()}
        if longest // 2 < _SMALLEST_GRID or max(map(len, coded.values())) <= 2 * _MAX_RUNS:
            return {"w": size[0], "h": size[1], "layers": coded}
        longest //= 2


def _jpeg(image: Image.Image) -> bytes:
    clean = image if not image.info else image.copy()
    # Otherwise Pillow writes the image's comment into the picture.
    clean.info.clear()
    encoded = io.BytesIO()
    clean.save(encoded, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return encoded.getvalue()


def _png(labels: LabelMap, palette: Palette) -> bytes:
    encoded = io.BytesIO()
    colored(labels, palette).save(encoded, "PNG", transparency=0)
    return encoded.getvalue()
