"""Photos by URL: a decoding worker fetches the bytes itself; and which of recorded photos still exist."""

from __future__ import annotations

import io
from typing import NamedTuple

from ..common import limits, store_urls, stores
from ..common.errors import FailureKind, ImageError, RequestError
from ..common.stores import TooLarge
from . import refusals


class Fetched(NamedTuple):
    """A photo in memory, and the identity of what was fetched; see `discovery.Source`."""

    file: io.BytesIO
    size_bytes: int | None
    mtime_ns: int | None
    etag: str | None


def identity(found: stores.StoreObject) -> tuple[int | None, int | None, str | None]:
    """Return an object's (size in bytes, mtime in nanoseconds, ETag); with an ETag the mtime does not count.

    An object that is written again with the same content keeps its ETag.
    """
    return found.size, None if found.etag else found.mtime_ns, found.etag


def fetch(url: str, max_pixels: int) -> Fetched:
    """Return the photo of a URL.

    Raises
    ------
    ImageError
        It cannot be had. Only a photo that is empty or too large is refused for its content; whatever else
        happens may have passed by the next run.
    """
    limit = limits.most_bytes(max_pixels)
    try:
        store, name = stores.object_at(url)
        data, found = store.read(name, max_bytes=limit)
    except TooLarge:
        refusals.refuse_pixels(f"a file of more than {limit >> 20} MiB", max_pixels)
    except FileNotFoundError as error:
        raise ImageError(FailureKind.NOT_FOUND, str(error.strerror)) from None
    except OSError as error:
        raise ImageError(FailureKind.UNREADABLE, f"cannot be read ({error.strerror or error})") from None
    except RequestError as error:
        raise ImageError(FailureKind.UNREADABLE, str(error)) from None
    if not data:
        raise ImageError(FailureKind.EMPTY_FILE, "the object is empty (0 bytes)")
    return Fetched(io.BytesIO(data), *identity(found))


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
            return frozenset(found.name for found in stores.store_at(folder).list(deep=False))
        except FileNotFoundError:
            return frozenset()
        except (OSError, RequestError):
            return None

    def _exists_on_server(self, url: str) -> bool:
        store, name = stores.object_at(url)
        try:
            return store.exists(name)
        except (OSError, RequestError):
            return True
