"""Object stores by fsspec: list, read and write whole objects below a URL.

A `Store` is a URL and nothing else, so it can be sent to any process: no file system, no credentials. Each
process opens its own file system for each kind of store, with what its environment says. A process that forks
afterwards has children that hang: start them by forkserver or spawn.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from typing_extensions import override

from . import store_urls
from .errors import RequestError
from .files import UnfitFile
from .redaction import public_url

T = TypeVar("T")

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""URL scheme → the extra of this package that installs its driver."""

# They wrap other file systems, run something, or are files of this machine.
_REFUSED_SCHEMES = frozenset(
    {"asynclocal", "asyncwrapper", "blockcache", "cached", "data", "dir", "filecache", "generic", "local"}
    | {"pyscript", "reference", "simplecache"}
)
_LOGGERS = ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "s3fs")
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 15.0
_S3_ATTEMPTS = 3
_LOOKUPS_AT_ONCE = 32

_lock = threading.Lock()
_file_systems: dict[tuple[int, str], Any] = {}
"""By process and URL scheme; what another process had before a fork is none of this one's."""

_DRIVERS = ("botocore", "aiobotocore", "s3fs", "aiohttp", "gcsfs", "google", "adlfs", "azure", "fsspec")
_DENIED = frozenset({401, 403})
_MISSING = frozenset({404, 410})
_MISSING_CODES = frozenset({"NoSuchBucket", "NoSuchKey", "404"})
_CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"})
_TIMEOUTS = frozenset({"ConnectTimeoutError", "ReadTimeoutError", "ServerTimeoutError", "FSTimeoutError"})
_NO_CONNECTION = frozenset(
    {
        "EndpointConnectionError",
        "ConnectionError",
        "ClientConnectionError",
        "ClientPayloadError",
        "HTTPClientError",
        "TransportError",
    }
)
_BAD_REQUEST = frozenset({"ParamValidationError", "InvalidURL", "UnknownEndpointError", "InvalidRegionError"})


class StoreError(OSError):
    """What this package itself finds wrong with an object."""


class StoreConflict(StoreError):
    """An object was not written, because it is there already, or is not what it was."""

    def __init__(self) -> None:
        super().__init__(errno.EEXIST, "another process has written it")


class TooLarge(StoreError, UnfitFile):
    """An object is larger than its reader allows; nothing was read. `size` is in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(errno.EFBIG, f"it has {size} bytes")
        self.size = size


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Raise what a driver raises as an OSError with a short `strerror`.

    The class says what a caller can do: FileNotFoundError, PermissionError, `StoreConflict`, TimeoutError,
    ConnectionError, or OSError. The driver's own exception, whose text may hold a signed URL, is not chained.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from None


def _translated(error: Exception) -> OSError | None:
    """Return an error of a driver as ours; None when it is none of a driver's."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        # What fsspec's HTTP driver raises whatever the reason is.
        translated = _translated(error.__cause__)
        if translated is not None:
            return translated
    names = {kind.__name__ for kind in type(error).__mro__}
    code, status = _code_of(error), _status_of(error)
    if code in _CONFLICTS or isinstance(error, FileExistsError):
        return StoreConflict()
    if isinstance(error, FileNotFoundError) or status in _MISSING or code in _MISSING_CODES:
        bucket = code == "NoSuchBucket" or "bucket does not exist" in str(error)
        return FileNotFoundError(errno.ENOENT, "no such bucket" if bucket else "no such object")
    if names & _NO_CREDENTIALS:
        return PermissionError(errno.EACCES, "access denied: no credentials were found on this machine")
    if isinstance(error, PermissionError) or status in _DENIED:
        return PermissionError(errno.EACCES, f"access denied{f' ({code})' if code else ''}")
    if isinstance(error, TimeoutError) or names & _TIMEOUTS:
        return TimeoutError(errno.ETIMEDOUT, "the server did not answer in time")
    if names & _NO_CONNECTION or isinstance(error, ConnectionError):
        ended = "ClientPayloadError" in names
        reason = "the connection ended too early" if ended else "no connection to the server"
        return ConnectionError(errno.ECONNREFUSED, reason)
    if names & _BAD_REQUEST or isinstance(error, ValueError):
        return OSError(errno.EINVAL, "not a valid address")
    if isinstance(error, NotImplementedError):
        return OSError(errno.ENOTSUP, "this store does not support that")
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _DRIVERS:
        reason = code or (f"the server answered {status}" if status else type(error).__name__)
        return OSError(errno.EIO, reason)
    return None


def _code_of(error: BaseException) -> str:
    """Return the code with which S3 refused a request, or an empty string."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an answer, where the error has one."""
    for name in ("status", "code", "status_code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return None


class StoreObject(NamedTuple):
    """An object: its name, size in bytes, ETag, and time of change.

    `etag` is without quotes, or None in a store without; `mtime_ns` is None where it is not known.
    """

    name: str
    size: int | None
    etag: str | None
    mtime_ns: int | None

    @classmethod
    def of(cls, name: str, info: Mapping[str, Any]) -> StoreObject:
        """Return what a driver's dictionary says of an object; drivers use different keys."""
        etag = info.get("ETag") or info.get("etag")
        size = next((info[key] for key in ("size", "Size", "ContentLength") if key in info), None)
        return cls(name, size, _clean_etag(etag), _mtime_ns(info))


class Content(NamedTuple):
    """The bytes of an object, and what they are the content of."""

    data: bytes
    object: StoreObject


@dataclass(frozen=True)
class Store:
    """The objects below a URL: a bucket, or a part of one; `store_at` makes one.

    Names are what follows `url` and a slash. They are taken literally: no character means anything. Listings
    are never cached. Reading and writing is of whole objects, so that none is ever there in part.

    All methods raise RequestError where there is no driver, else an OSError with a short `strerror` (see
    `clear_errors`): FileNotFoundError, PermissionError, ConnectionError, TimeoutError or another. This class
    uses what all of fsspec's file systems have.

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

    @property
    def file_system(self) -> Any:
        """The fsspec file system of this process, made on its first use, without a cache of listings.

        Raises
        ------
        RequestError
            There is no such kind of store, or its driver is not installed; the message names the extra.
        """
        key = os.getpid(), self.scheme
        with _lock:
            if key not in _file_systems:
                _file_systems[key] = _open(self.scheme)
            return _file_systems[key]

    def url_of(self, name: str) -> str:
        """Return the URL of an object below this store."""
        return f"{self.url}/{name}" if name else self.url

    def check_driver(self) -> None:
        """Raise RequestError when this kind of store has no driver here; the message says how to get it."""
        self.file_system  # noqa: B018 - it opens it

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
        top, skipped = self._path(folder), len(self._path("")) + 1
        options: dict[str, Any] = {} if deep else {"maxdepth": 1}
        with clear_errors():
            found = self.file_system.find(top, detail=True, **options)
        for path in sorted(found):
            name = path.lstrip("/")
            # A name that ends in a slash stands for a directory that a web console made.
            if (
                found[path].get("type") == "file"
                and name.startswith(f"{top}/{start}")
                and not name.endswith("/")
            ):
                yield StoreObject.of(name[skipped:], found[path])

    def info(self, name: str = "") -> StoreObject | None:
        """Return an object, or None where there is none, also where others' names begin with it and a slash.

        A missing bucket is not told from a missing object; `list` and `read` do that.
        """
        with contextlib.suppress(FileNotFoundError), clear_errors():
            info = self.file_system.info(self._path(name))
            return StoreObject.of(name, info) if info.get("type") == "file" else None
        return None

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
        path = self._path(name)
        with clear_errors():
            found = StoreObject.of(name, self.file_system.info(path))
            check_size(found.size, max_bytes)
            data = self._bytes(path, max_bytes)
            check_size(len(data), max_bytes)
            if found.size is not None and len(data) != found.size:
                raise StoreError(errno.EIO, "it changed while it was being read")
        return Content(data, found)

    def read_part(self, name: str, start: int, stop: int) -> bytes:
        """Return some bytes of an object that is too large to be read at once."""
        with clear_errors():
            data: bytes = self.file_system.cat_file(self._path(name), start=start, end=stop)
        return data

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object; readers see the old one or the new one, never a part."""
        with clear_errors():
            self.file_system.pipe_file(self._path(name), data)

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
            self.file_system.pipe_file(self._path(name), data, mode="create")
        return self._etag(name)

    def replace(self, name: str, data: bytes, etag: str | None) -> str | None:
        """Replace an object that still has this ETag; return the new ETag, where the store tells.

        S3 compares and writes in one step. Other stores are asked for the ETag first: somebody else may
        write between the two.

        Raises
        ------
        StoreConflict
            It has another ETag, or is gone.
        """
        found = self.info(name)
        if found is None or found.etag != etag:
            raise StoreConflict
        self.write(name, data)
        return self._etag(name)

    def remove(self, name: str) -> None:
        """Delete an object; does nothing where there is none."""
        with contextlib.suppress(FileNotFoundError), clear_errors():
            self.file_system.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        """Return the path by which the file system knows an object: ``bucket/key``."""
        return self.url_of(name).partition("://")[2]

    def _bytes(self, path: str, max_bytes: int | None) -> bytes:  # noqa: ARG002 - see `_WebServer`
        """Return the content of an object, whose size has been checked."""
        data: bytes = self.file_system.cat_file(path)
        return data

    def _etag(self, name: str) -> str | None:
        found = self.info(name)
        return found.etag if found is not None else None

    def _info_or_error(self, name: str) -> StoreObject | OSError | None:
        try:
            return self.info(name)
        except OSError as error:
            return error


class _WebServer(Store):
    """Files of a web server, which has no listings, and need not say how large they are, nor the truth."""

    @override
    def _path(self, name: str) -> str:
        return self.url_of(name)

    @override
    def _bytes(self, path: str, max_bytes: int | None) -> bytes:
        file_system = self.file_system

        async def read() -> bytes:
            session = await file_system.set_session()
            url = file_system.encode_url(path)
            # As the size was asked for: what is compressed can become a thousand times as large.
            async with session.get(url, headers={"Accept-Encoding": "identity"}) as answer:
                answer.raise_for_status()
                data = bytearray()
                async for block in answer.content.iter_any():
                    data += block
                    check_size(len(data), max_bytes)
                return bytes(data)

        return _run_in_loop(file_system, read)


class _S3(Store):
    """S3 by its own requests: exact about keys, one request per object, writes on a condition."""

    @override
    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[StoreObject]:
        bucket, key = self._bucket_and_key("")
        below = f"{key}/" if key else ""
        request = {"Bucket": bucket, "Prefix": below + prefix}
        if not deep:
            request["Delimiter"] = "/"
        while True:
            with clear_errors():
                page = self.file_system.call_s3("list_objects_v2", **request)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):
                    yield StoreObject.of(found["Key"][len(below) :], found)
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    @override
    def info(self, name: str = "") -> StoreObject | None:
        bucket, key = self._bucket_and_key(name)
        with contextlib.suppress(FileNotFoundError), clear_errors():
            if key:
                return StoreObject.of(name, self.file_system.call_s3("head_object", Bucket=bucket, Key=key))
        return None

    @override
    def read(self, name: str = "", *, max_bytes: int | None = None) -> Content:
        # In one request, so that the ETag is that of the bytes.
        bucket, key = self._bucket_and_key(name)
        file_system = self.file_system

        async def read() -> Content:
            answer = await file_system._call_s3("get_object", Bucket=bucket, Key=key)
            async with answer["Body"] as body:
                check_size(answer["ContentLength"], max_bytes)
                return Content(await body.read(), StoreObject.of(name, answer))

        with clear_errors():
            return _run_in_loop(file_system, read)

    @override
    def write(self, name: str, data: bytes) -> None:
        self._put(name, data)

    @override
    def create(self, name: str, data: bytes) -> str | None:
        return self._put(name, data, IfNoneMatch="*")

    @override
    def replace(self, name: str, data: bytes, etag: str | None) -> str | None:
        return self._put(name, data, IfMatch=f'"{etag}"')

    @override
    def remove(self, name: str) -> None:
        bucket, key = self._bucket_and_key(name)
        with contextlib.suppress(FileNotFoundError), clear_errors():
            self.file_system.call_s3("delete_object", Bucket=bucket, Key=key)

    def _put(self, name: str, data: bytes, **condition: str) -> str | None:
        bucket, key = self._bucket_and_key(name)
        with clear_errors():
            answer = self.file_system.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        return _clean_etag(answer.get("ETag"))

    def _bucket_and_key(self, name: str) -> tuple[str, str]:
        bucket, _, key = self._path(name).partition("/")
        return bucket, key


_CLASSES: dict[str, type[Store]] = {"s3": _S3, "http": _WebServer}
"""Extra → class of the stores that have one of their own."""


def store_at(url: str) -> Store:
    """Return the objects below a URL; raises RequestError as `Store` does."""
    return _CLASSES.get(EXTRAS.get(store_urls.split(url).scheme, ""), Store)(url)


def object_at(url: str) -> tuple[Store, str]:
    """Return the store of a URL's bucket or web server, and the object's name in it."""
    parts = store_urls.split(url)
    return store_at(parts.root), parts.key


def are_in_use() -> bool:
    """Say whether this process has opened a store: then it has threads, and what it forks may hang."""
    return any(process == os.getpid() for process, _ in _file_systems)


def check_size(size: int | None, max_bytes: int | None) -> None:
    """Raise TooLarge for an object with more than `max_bytes`."""
    if max_bytes is not None and size is not None and size > max_bytes:
        raise TooLarge(size)


def _clean_etag(etag: str | None) -> str | None:
    """Return an ETag without quotes and the mark of a weak one; None where there is none."""
    return etag.removeprefix("W/").strip('"') or None if etag else None


def _open(scheme: str) -> Any:
    import fsspec
    from fsspec.registry import known_implementations

    if scheme in _REFUSED_SCHEMES or scheme not in fsspec.available_protocols():
        raise RequestError(f"{scheme}://: not a supported store; use s3://, gs:// or https://")
    try:
        kind = fsspec.get_filesystem_class(scheme)
        options = _options(scheme)
    except ImportError:
        extra = EXTRAS.get(scheme)
        known = known_implementations.get(scheme, {})
        fix = f"pip install 'fcn-cli[{extra}]'" if extra else known.get("err", "see fsspec's documentation")
        raise RequestError(f"{scheme}://: the driver for these URLs is not installed; {fix}") from None
    for name in _LOGGERS:
        # What they warn of is not for people, unless a program has asked for it.
        logging.getLogger(name).addHandler(logging.NullHandler())
    with clear_errors():
        return kind(skip_instance_cache=True, use_listings_cache=False, **options)


def _options(scheme: str) -> Mapping[str, Any]:
    """Return what a file system is given beside what it reads from the environment."""
    match EXTRAS.get(scheme):
        case "s3":
            retries = {"mode": "standard", "total_max_attempts": _S3_ATTEMPTS}
            times = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
            return {"config_kwargs": {"retries": retries, **times}}
        case "http":
            import aiohttp

            limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
            # As other commands do, it honours proxies.
            return {"client_kwargs": {"timeout": limits, "trust_env": True}}
    return {}


def _run_in_loop(file_system: Any, work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in the thread that serves a file system's connections; return its result."""
    from fsspec.asyn import sync

    result: T = sync(file_system.loop, work)
    return result


def _mtime_ns(info: Mapping[str, Any]) -> int | None:
    for name in ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created"):
        value = info.get(name)
        try:
            if isinstance(value, str):
                is_iso = value[:4].isdigit()
                value = datetime.fromisoformat(value) if is_iso else parsedate_to_datetime(value)
            if isinstance(value, datetime):
                return int(value.timestamp()) * 1_000_000_000 + value.microsecond * 1000
        except (ValueError, OverflowError, OSError):
            continue
    return None
