"""Images by URL: found by listing a store, fetched by the worker that decodes them."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

from ..common import files, limits, store_urls
from ..common.errors import FailureKind, ImageError, RequestError
from ..common.output_layout import IMAGE_DIRECTORIES, SETTINGS_FILE, are_settings
from ..common.redaction import public_url
from ..common.stores import Store, StoreObject, TooLarge, object_at, store_at
from . import formats
from .patterns import to_regex


class Hit(NamedTuple):
    """An object that was found by searching: its URL, and its name below what was searched."""

    url: str
    below: str
    object: StoreObject
    by_pattern: bool = False


class StoreSearch:
    """Looks for objects; what is in an output directory of fcn (`output` is the run's) is never found."""

    def __init__(self, output: str | None) -> None:
        self._output = output.rstrip("/") if output is not None and store_urls.is_url(output) else None
        self._outputs: dict[str, bool] = {}

    def find(self, url: str) -> StoreObject | list[Hit]:
        """Return the object that a URL names, or all objects below it, or all that it matches as a pattern.

        An object or "directory" of that very name goes before a pattern. On a web server there are only
        files. Nothing is left of an output directory of fcn. Raises RequestError where there is none of
        these, or the store cannot be asked.
        """
        shown = public_url(url)
        if url.startswith("memory://"):
            raise RequestError(
                f"{url}: only the process that wrote it can read it, not the decoding workers; give a path"
            )
        try:
            if store_urls.is_web(url):
                return self._file_on_server(url)
            store, name = object_at(url)
            found = store.info(name) if name and not name.endswith("/") else None
            if found is not None:
                return found
            below = store_at(url)
            listed = list(below.list())
            if listed:
                return list(self._without_outputs(below, "", listed))
            if glob.has_magic(url):
                folder, listed = self._matches(store, name)
                hits = self._without_outputs(store, folder, listed)
        except OSError as error:
            raise RequestError(f"{shown}: cannot be listed ({error.strerror or error})") from None
        if not listed:
            raise RequestError(f"{shown}: no such object, and none below it")
        return [hit._replace(by_pattern=True) for hit in hits]

    def look_up(self, urls: Iterable[str]) -> Iterator[tuple[str, StoreObject | OSError | None]]:
        """Yield each URL of an object with what there is, or why that is not known; many at a time."""
        by_store: dict[Store, list[str]] = defaultdict(list)
        for url in urls:
            store, name = object_at(url)
            by_store[store].append(name)
        for store, names in by_store.items():
            yield from zip(map(store.url_of, names), store.infos(names), strict=True)

    def is_output(self, url: str) -> bool:
        """Say whether a "directory" is an output directory of fcn."""
        url = url.rstrip("/")
        if url == self._output:
            return True
        if url not in self._outputs:
            store, name = object_at(url)
            self._outputs[url] = self._has_settings(
                store, f"{name}/{SETTINGS_FILE}" if name else SETTINGS_FILE
            )
        return self._outputs[url]

    def is_written_by_us(self, url: str) -> bool:
        """Say whether a "directory" is, or is below, one of a run's output directories (masks, color …)."""
        if store_urls.is_web(url):
            return False
        root, key = store_urls.split(url)[1:]
        place = PurePosixPath(key)
        return any(
            folder.name in IMAGE_DIRECTORIES
            and self.is_output(root if str(folder.parent) == "." else f"{root}/{folder.parent}")
            for folder in (place, *place.parents)
        )

    def _file_on_server(self, url: str) -> StoreObject:
        shown = public_url(url)
        if not store_urls.name_in(url).rpartition("/")[2]:
            raise RequestError(
                f"{shown}: a web server cannot be searched; give the URLs of the images, for example in "
                "a list (--files-from)"
            )
        store, name = object_at(url)
        found = store.info(name)
        if found is None:
            raise RequestError(f"{shown}: there is no such file on this server")
        return found

    def _matches(self, store: Store, pattern: str) -> tuple[str, list[StoreObject]]:
        """Return the "directory", with a slash, below which a pattern searches, and what it matches."""
        magic = re.search(r"[*?[]", pattern)
        fixed = pattern[: magic.start() if magic else None]
        folder = fixed[: fixed.rfind("/") + 1]
        expression = re.compile(to_regex(pattern), re.DOTALL)
        rest = pattern[len(folder) :]
        listed = store.list(fixed, deep="/" in rest or "**" in rest)
        return folder, [found for found in listed if expression.fullmatch(found.name)]

    def _without_outputs(self, store: Store, top: str, objects: Sequence[StoreObject]) -> Iterator[Hit]:
        """Yield objects, named from `top`, but for those in output directories of fcn."""
        left_out = tuple(self._outputs_among(store, objects))
        for found in objects:
            url = store.url_of(found.name)
            if not url.startswith(left_out):
                yield Hit(url, found.name[len(top) :], found)

    def _outputs_among(self, store: Store, objects: Sequence[StoreObject]) -> Iterator[str]:
        """Yield the URLs, with a slash, of output directories."""
        if self._output is not None:
            yield f"{self._output}/"
        for found in objects:
            folder, _, name = found.name.rpartition("/")
            if name == SETTINGS_FILE and self._has_settings(store, found.name):
                yield f"{store.url_of(folder)}/"

    def _has_settings(self, store: Store, name: str) -> bool:
        try:
            return are_settings(store.read(name, max_bytes=files.SMALL_BYTES).data)
        except OSError:
            return False


Identity: TypeAlias = tuple[int | None, int | None, str | None]
"""Size in bytes, mtime in nanoseconds and ETag; see `discovery.Source`."""


def identity(found: StoreObject) -> Identity:
    """Return an object's identity; with an ETag the mtime does not count.

    An object that is written again with the same content keeps its ETag.
    """
    return found.size, None if found.etag else found.mtime_ns, found.etag


def fetch(url: str, max_pixels: int) -> tuple[bytes, Identity]:
    """Return the bytes of a URL, and what they are of.

    Raises ImageError where it cannot be had. Only an image that is empty or too large is refused for its
    content; whatever else happens may have passed by the next run.
    """
    limit = limits.most_bytes(max_pixels)
    try:
        store, name = object_at(url)
        data, found = store.read(name, max_bytes=limit)
    except TooLarge:
        formats.refuse_pixels(f"a file of more than {limit >> 20} MiB", max_pixels)
    except FileNotFoundError as error:
        raise ImageError(FailureKind.NOT_FOUND, str(error.strerror)) from None
    except OSError as error:
        raise ImageError(FailureKind.UNREADABLE, f"cannot be read ({error.strerror or error})") from None
    except RequestError as error:
        raise ImageError(FailureKind.UNREADABLE, str(error)) from None
    if not data:
        raise ImageError(FailureKind.EMPTY_FILE, "the object is empty (0 bytes)")
    return data, identity(found)


class KnownObjects:
    """Says whether objects exist, by one listing of each "directory" that is asked about, not one per object.

    What a store gives no answer about counts as existing.
    """

    def __init__(self) -> None:
        self._listings: dict[str, frozenset[str] | None] = {}

    def exists(self, url: str) -> bool:
        """Say whether there is an object of this URL."""
        if store_urls.is_web(url):
            return self._exists_on_server(url)
        folder, _, name = url.rpartition("/")
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        listing = self._listings[folder]
        return listing is None or name in listing

    def _list(self, folder: str) -> frozenset[str] | None:
        try:
            return frozenset(found.name for found in store_at(folder).list(deep=False))
        except FileNotFoundError:
            return frozenset()
        except (OSError, RequestError):
            return None

    def _exists_on_server(self, url: str) -> bool:
        store, name = object_at(url)
        try:
            return store.exists(name)
        except (OSError, RequestError):
            return True
