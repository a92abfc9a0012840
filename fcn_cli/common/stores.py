"""Object stores by fsspec: list, read and write whole objects below a URL.

A `Store` is a URL and nothing else, so it can be sent to any process: no file system, no credentials. Each
process opens its own file systems (`store_drivers`), with what its environment says. A process that forks
afterwards has children that hang: start them by forkserver or spawn.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from . import store_drivers, store_urls
from .store_errors import StoreConflict, StoreError, TooLarge, clear_errors

_LOOKUPS_AT_ONCE = 32
_VERSION = "?versionId="


class StoreObject(NamedTuple):
    """An object: its name below the store's URL, size in bytes, ETag, and time of change.

    `etag` is without quotes, or None in a store without; `mtime_ns` is None where it is not known.
    """

    name: str
    size: int | None
    etag: str | None
    mtime_ns: int | None


class Content(NamedTuple):
    """The bytes of an object, and what they are the content of."""

    data: bytes
    object: StoreObject


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
        return store_urls.public_url(self.url)

    @property
    def scheme(self) -> str:
        """The kind of store, for example ``s3``."""
        return store_urls.split(self.url).scheme

    def url_of(self, name: str) -> str:
        """Return the URL of an object below this store."""
        return f"{self.url}/{name}" if name else self.url

    def check_driver(self) -> None:
        """Raise RequestError when this kind of store has no driver here; the message says how to get it."""
        store_drivers.file_system(self.scheme)

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
        options: dict[str, Any] = {} if deep else {"maxdepth": 1}
        if start:
            options["prefix"] = start
        with clear_errors():
            found = self._driver().find(self._path(folder), detail=True, **options)
        skipped = len(self._path("")) + 1
        for path in sorted(found):
            name = path.removeprefix("/")[skipped:]
            # A name that ends in a slash stands for a directory that a web console made.
            if found[path].get("type") == "file" and not path.endswith("/") and name.startswith(prefix):
                yield _object(name, found[path])

    def info(self, name: str = "") -> StoreObject | None:
        """Return an object, or None where there is none, also where others' names begin with it and a slash.

        Raises
        ------
        FileNotFoundError
            There is no such bucket, if the store says so.
        """
        try:
            with clear_errors():
                info = self._driver().info(self._path(name))
        except FileNotFoundError as error:
            if error.strerror == "no such bucket":
                raise
            return None
        return _object(name, info) if info.get("type") == "file" else None

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
        driver, path = self._driver(), self._path(name)
        with clear_errors():
            if store_drivers.is_s3(self.scheme):
                return _read_s3(driver, path, name, max_bytes)
            found = _object(name, driver.info(path))
            _check_size(found.size, max_bytes)
            data: bytes = driver.cat_file(path)
        if found.size is not None and len(data) != found.size:
            raise StoreError(errno.EIO, "it changed while it was being read")
        return Content(data, found._replace(size=len(data)))

    def _driver(self) -> Any:
        return store_drivers.file_system(self.scheme)

    def _path(self, name: str) -> str:
        """Return the path by which the driver knows an object."""
        url = self.url_of(name)
        if store_drivers.is_s3(self.scheme) and _VERSION in url:
            # s3fs would read, and write, another object.
            raise StoreError(errno.EINVAL, f"{_VERSION} is in the key, which is not supported")
        return url if store_urls.is_web(url) else url.partition("://")[2]

    def _info_or_error(self, name: str) -> StoreObject | OSError | None:
        try:
            return self.info(name)
        except OSError as error:
            return error


class WritableStore(Store):
    """A store whose objects can also be written, whole, and on a condition."""

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object; readers see the old one or the new one, never a part."""
        with clear_errors():
            self._driver().pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> str | None:
        """Create an object; of several processes one succeeds. Return its ETag, where the store tells.

        Where a network error hides that an attempt succeeded, the driver's next one raises `StoreConflict`
        for an object of one's own: read it to know.

        Raises
        ------
        StoreConflict
            There is one of that name.
        """
        driver, path = self._driver(), self._path(name)
        with clear_errors():
            if store_drivers.is_s3(self.scheme):
                return _clean_etag(store_drivers.put_s3(driver, path, data, IfNoneMatch="*"))
            driver.pipe_file(path, data, mode="create")
        return self._etag(name)

    def replace(self, name: str, data: bytes, etag: str | None) -> str | None:
        """Replace an object that still has this ETag; return the new ETag, where the store tells.

        S3 compares and writes in one step. Other stores are asked for the ETag first: somebody else may
        write between the two.

        Raises
        ------
        StoreConflict
            It is gone, or has another ETag.
        """
        if store_drivers.is_s3(self.scheme) and etag is not None:
            with clear_errors():
                new = store_drivers.put_s3(self._driver(), self._path(name), data, IfMatch=f'"{etag}"')
            return _clean_etag(new)
        found = self.info(name)
        if found is None or found.etag != etag:
            raise StoreConflict(errno.EEXIST, "it was written by somebody else")
        self.write(name, data)
        return self._etag(name)

    def remove(self, name: str) -> None:
        """Delete an object; does nothing where there is none."""
        try:
            with clear_errors():
                self._driver().rm_file(self._path(name))
        except FileNotFoundError:
            return

    def _etag(self, name: str) -> str | None:
        found = self.info(name)
        return found.etag if found is not None else None


def at(url: str) -> tuple[Store, str]:
    """Return the store of a URL's bucket or web server, and the object's name in it."""
    parts = store_urls.split(url)
    return Store(parts.root), parts.key


def _read_s3(driver: Any, path: str, name: str, max_bytes: int | None) -> Content:
    """Read an object of S3 in one request, so that its ETag is that of the bytes."""

    async def read() -> Content:
        answer = await driver._call_s3("get_object", **store_drivers.bucket_and_key(path))
        async with answer["Body"] as body:
            _check_size(answer["ContentLength"], max_bytes)
            data = await body.read()
        return Content(data, _object(name, {**answer, "size": len(data)}))

    content: Content = store_drivers.run(driver, read)
    return content


def _check_size(size: int | None, max_bytes: int | None) -> None:
    if max_bytes is not None and size is not None and size > max_bytes:
        raise TooLarge(size)


def _object(name: str, info: Mapping[str, Any]) -> StoreObject:
    """Return what a driver says of an object; drivers use different names."""
    return StoreObject(
        name, info.get("size"), _clean_etag(info.get("ETag") or info.get("etag")), _mtime_ns(info)
    )


def _clean_etag(etag: str | None) -> str | None:
    return etag.removeprefix("W/").strip('"') or None if etag else None


def _mtime_ns(info: Mapping[str, Any]) -> int | None:
    for name in ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created"):
        value = info.get(name)
        try:
            if isinstance(value, str):
                is_iso = value[:4].isdigit()
                value = datetime.fromisoformat(value) if is_iso else parsedate_to_datetime(value)
        except ValueError:
            continue
        if isinstance(value, datetime):
            return int(value.timestamp()) * 1_000_000_000 + value.microsecond * 1000
    return None
