"""The drivers of object stores: fsspec file systems, one per process and kind of store.

A driver knows an object by its path: ``bucket/key``, or on a web server the whole URL.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from .errors import RequestError
from .store_errors import StoreConflict, StoreError, TooLarge, clear_errors

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

_lock = threading.Lock()
_drivers: dict[tuple[int, str], Driver] = {}


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
        return cls(name, size, clean_etag(etag), _mtime_ns(info))


class Content(NamedTuple):
    """The bytes of an object, and what they are the content of."""

    data: bytes
    object: StoreObject


class Driver:
    """Objects by fsspec's methods that every file system has.

    Parameters
    ----------
    file_system
        Made for this process, without a cache of listings.
    """

    replaces_in_one_step = False
    """Whether `replace` compares and writes in one step, so that of several processes one succeeds."""

    def __init__(self, file_system: Any) -> None:
        self.file_system = file_system

    def list(self, folder: str, start: str, *, deep: bool) -> Iterator[StoreObject]:
        """Yield the objects whose path is `folder`, a slash and what begins with `start`, in order."""
        options: dict[str, Any] = {} if deep else {"maxdepth": 1}
        found = self.file_system.find(folder, detail=True, **options)
        for path in sorted(found):
            if found[path].get("type") == "file" and path.lstrip("/").startswith(f"{folder}/{start}"):
                yield StoreObject.of(path.lstrip("/"), found[path])

    def info(self, path: str) -> StoreObject | None:
        """Return an object; None for a "directory"; raise FileNotFoundError where there is neither."""
        info = self.file_system.info(path)
        return StoreObject.of(path, info) if info.get("type") == "file" else None

    def read(self, path: str, max_bytes: int | None) -> Content:
        """Return an object; raise TooLarge where it has more bytes than `max_bytes`."""
        info = self.file_system.info(path)
        found = StoreObject.of(path, info)
        check_size(found.size, max_bytes)
        data = self._bytes(path, max_bytes)
        check_size(len(data), max_bytes)
        if found.size is not None and len(data) != found.size:
            raise StoreError(errno.EIO, "it changed while it was being read")
        return Content(data, found)

    def write(self, path: str, data: bytes) -> None:
        """Create or replace an object."""
        self.file_system.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> str | None:
        """Create an object that is not there, and return its ETag; else raise StoreConflict."""
        self.file_system.pipe_file(path, data, mode="create")
        return self._etag(path)

    def replace(self, path: str, data: bytes, etag: str | None) -> str | None:
        """Replace an object with this ETag, and return the new one; else raise StoreConflict."""
        found = self.info(path)
        if found is None or found.etag != etag:
            raise StoreConflict
        self.write(path, data)
        return self._etag(path)

    def remove(self, path: str) -> None:
        """Delete an object; raise FileNotFoundError where there is none."""
        self.file_system.rm_file(path)

    def _bytes(self, path: str, max_bytes: int | None) -> bytes:  # noqa: ARG002 - see `WebDriver`
        """Return the content of an object, whose size has been checked."""
        data: bytes = self.file_system.cat_file(path)
        return data

    def _etag(self, path: str) -> str | None:
        found = self.info(path)
        return found.etag if found is not None else None


class WebDriver(Driver):
    """Files of web servers, which need not say how large they are, nor the truth."""

    def _bytes(self, path: str, max_bytes: int | None) -> bytes:
        async def read() -> bytes:
            session = await self.file_system.set_session()
            url = self.file_system.encode_url(path)
            # As the size was asked for: what is compressed can become a thousand times as large.
            async with session.get(url, headers={"Accept-Encoding": "identity"}) as answer:
                answer.raise_for_status()
                data = bytearray()
                async for block in answer.content.iter_any():
                    data += block
                    check_size(len(data), max_bytes)
                return bytes(data)

        return _run_in_loop(self.file_system, read)


class S3Driver(Driver):
    """S3 by its own requests: exact about keys, one request per object, writes on a condition."""

    replaces_in_one_step = True

    def list(self, folder: str, start: str, *, deep: bool) -> Iterator[StoreObject]:
        """See `Driver.list`; yields while pages of 1000 come."""
        bucket, key = _divided(folder)
        request = {"Bucket": bucket, "Prefix": f"{key}/{start}" if key else start}
        if not deep:
            request["Delimiter"] = "/"
        while True:
            page = self.file_system.call_s3("list_objects_v2", **request)
            for found in page.get("Contents", ()):
                yield StoreObject.of(f"{bucket}/{found['Key']}", found)
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def info(self, path: str) -> StoreObject | None:
        """See `Driver.info`."""
        bucket, key = _divided(path)
        if not key:
            return None
        return StoreObject.of(path, self.file_system.call_s3("head_object", Bucket=bucket, Key=key))

    def read(self, path: str, max_bytes: int | None) -> Content:
        """See `Driver.read`; in one request, so that the ETag is that of the bytes."""
        bucket, key = _divided(path)

        async def read() -> Content:
            answer = await self.file_system._call_s3("get_object", Bucket=bucket, Key=key)
            async with answer["Body"] as body:
                check_size(answer["ContentLength"], max_bytes)
                return Content(await body.read(), StoreObject.of(path, answer))

        return _run_in_loop(self.file_system, read)

    def write(self, path: str, data: bytes) -> None:
        """See `Driver.write`."""
        self._put(path, data)

    def create(self, path: str, data: bytes) -> str | None:
        """See `Driver.create`."""
        return self._put(path, data, IfNoneMatch="*")

    def replace(self, path: str, data: bytes, etag: str | None) -> str | None:
        """See `Driver.replace`; compares and writes in one step."""
        return self._put(path, data, IfMatch=f'"{etag}"')

    def remove(self, path: str) -> None:
        """See `Driver.remove`; S3 does not say whether there was one."""
        bucket, key = _divided(path)
        self.file_system.call_s3("delete_object", Bucket=bucket, Key=key)

    def _put(self, path: str, data: bytes, **condition: str) -> str | None:
        bucket, key = _divided(path)
        answer = self.file_system.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        return clean_etag(answer.get("ETag"))


def driver_of(scheme: str) -> Driver:
    """Return this process's driver for a kind of store, made on its first use.

    It is never sent to another process, which has one of its own.

    Raises
    ------
    RequestError
        There is no such kind of store, or its driver is not installed; the message names the extra.
    """
    key = os.getpid(), scheme
    with _lock:
        if key not in _drivers:
            _drivers[key] = _open(scheme)
        return _drivers[key]


def are_in_use() -> bool:
    """Say whether this process has a driver: then it has threads, and what it forks may hang."""
    return any(process == os.getpid() for process, _ in _drivers)


def check_size(size: int | None, max_bytes: int | None) -> None:
    """Raise TooLarge for an object with more than `max_bytes`."""
    if max_bytes is not None and size is not None and size > max_bytes:
        raise TooLarge(size)


def clean_etag(etag: str | None) -> str | None:
    """Return an ETag without quotes and the mark of a weak one; None where there is none."""
    return etag.removeprefix("W/").strip('"') or None if etag else None


def _divided(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key


def _open(scheme: str) -> Driver:
    import fsspec
    from fsspec.registry import known_implementations

    if scheme in _REFUSED_SCHEMES or scheme not in fsspec.available_protocols():
        raise RequestError(f"{scheme}://: there is no such kind of store; give s3://, gs:// or https://")
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
        file_system = kind(skip_instance_cache=True, use_listings_cache=False, **options)
    match EXTRAS.get(scheme):
        case "s3":
            return S3Driver(file_system)
        case "http":
            return WebDriver(file_system)
    return Driver(file_system)


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
