"""Object stores by fsspec: list, read and write whole objects below a URL.

A `Store` is a URL and nothing else, so it can be sent to any process: no file system, no credentials. Each
process opens its own file systems (`store_drivers`), with what its environment says. A process that forks
afterwards has children that hang: start them by forkserver or spawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from . import store_drivers, store_urls
from .redaction import public_url
from .store_drivers import Content, Driver, StoreObject
from .store_errors import clear_errors

__all__ = ["Content", "Store", "StoreObject", "WritableStore", "at"]

_LOOKUPS_AT_ONCE = 32


@dataclass(frozen=True)
class Store:
    """The objects below a URL: a bucket, or a part of one; or a web server, which has no listings.

    Names are what follows `url` and a slash. They are taken literally: no character means anything. Listings
    are never cached. Reading and writing is of whole objects, so that none is ever there in part.

    All methods raise RequestError where there is no driver, else an OSError with a short `strerror` (see
    `store_errors`): FileNotFoundError, PermissionError, ConnectionError, TimeoutError or another.

    Parameters
    ----------
    url
        Slashes at its end do not count.

    Raises
    ------
    RequestError
        The URL is none, or holds a password.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))
        store_urls.split(self.url)

    def __str__(self) -> str:
        return public_url(self.url)

    @property
    def scheme(self) -> str:
        """The kind of store, for example ``s3``."""
        return store_urls.split(self.url).scheme

    def url_of(self, name: str) -> str:
        """Return the URL of an object below this store."""
        return f"{self.url}/{name}" if name else self.url

    def check_driver(self) -> None:
        """Raise RequestError when this kind of store has no driver here; the message says how to get it."""
        store_drivers.driver_of(self.scheme)

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[StoreObject]:
        """Yield the objects below this URL in the order of their names; one listing, however many they are.

        Parameters
        ----------
        prefix
            Only objects whose name begins with it.
        deep
            Also objects with a slash in the rest of their name.
        """
        folder, _, start = prefix.rpartition("/")
        skipped = len(self._path("")) + 1
        with clear_errors():
            for found in self._driver().list(self._path(folder), start, deep=deep):
                # A name that ends in a slash stands for a directory that a web console made.
                if not found.name.endswith("/"):
                    yield found._replace(name=found.name[skipped:])

    def info(self, name: str = "") -> StoreObject | None:
        """Return an object, or None where there is none, also where others' names begin with it and a slash.

        A missing bucket is not told from a missing object; `list` and `read` do that.
        """
        try:
            with clear_errors():
                found = self._driver().info(self._path(name))
        except FileNotFoundError:
            return None
        return found._replace(name=name) if found is not None else None

    def infos(self, names: Sequence[str]) -> Iterator[StoreObject | OSError | None]:
        """Yield for each name what `info` returns or the OSError it raises: many at a time, in order."""
        with ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "fcn-lookup") as pool:
            yield from pool.map(self._info_or_error, names)

    def exists(self, name: str) -> bool:
        """Say whether there is an object of that name."""
        return self.info(name) is not None

    def read(self, name: str = "", *, max_bytes: int | None = None) -> Content:
        """Return an object.

        Raises
        ------
        TooLarge
            It has more than `max_bytes`.
        """
        with clear_errors():
            content = self._driver().read(self._path(name), max_bytes)
        return content._replace(object=content.object._replace(name=name))

    def _driver(self) -> Driver:
        return store_drivers.driver_of(self.scheme)

    def _path(self, name: str) -> str:
        """Return the path by which the driver knows an object."""
        url = self.url_of(name)
        return url if store_urls.is_web(url) else url.partition("://")[2]

    def _info_or_error(self, name: str) -> StoreObject | OSError | None:
        try:
            return self.info(name)
        except OSError as error:
            return error


class WritableStore(Store):
    """A store whose objects can also be written, whole, and on a condition."""

    @property
    def replaces_in_one_step(self) -> bool:
        """Whether of several processes that `replace` an object one succeeds."""
        return self._driver().replaces_in_one_step

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object; readers see the old one or the new one, never a part."""
        with clear_errors():
            self._driver().write(self._path(name), data)

    def create(self, name: str, data: bytes) -> str | None:
        """Create an object; of several processes one succeeds. Return its ETag, where the store tells.

        Where a network error hides that an attempt succeeded, the driver's next one raises `StoreConflict`
        for an object of one's own: read it to know.

        Raises
        ------
        StoreConflict
            There is one of that name.
        """
        with clear_errors():
            return self._driver().create(self._path(name), data)

    def replace(self, name: str, data: bytes, etag: str | None) -> str | None:
        """Replace an object that still has this ETag; return the new ETag, where the store tells.

        S3 compares and writes in one step. Other stores are asked for the ETag first: somebody else may
        write between the two.

        Raises
        ------
        StoreConflict
            It has another ETag, or is gone.
        """
        with clear_errors():
            return self._driver().replace(self._path(name), data, etag)

    def remove(self, name: str) -> None:
        """Delete an object; does nothing where there is none."""
        try:
            with clear_errors():
                self._driver().remove(self._path(name))
        except FileNotFoundError:
            return


def at(url: str) -> tuple[Store, str]:
    """Return the store of a URL's bucket or web server, and the object's name in it."""
    parts = store_urls.split(url)
    return Store(parts.root), parts.key
