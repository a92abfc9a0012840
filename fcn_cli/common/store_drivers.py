"""The drivers of object stores: fsspec file systems, one per process and kind of store, and what S3 adds."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .errors import RequestError
from .store_errors import clear_errors

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""URL scheme → the extra of this package that installs its driver."""

# They wrap other file systems, run something, or are files of this machine.
_REFUSED_SCHEMES = frozenset(
    {"asynclocal", "asyncwrapper", "blockcache", "cached", "data", "dir", "filecache", "generic", "local"}
    | {"pyscript", "reference", "simplecache"}
)
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 15.0
_S3_ATTEMPTS = 3

_lock = threading.Lock()
_file_systems: dict[tuple[int, str], Any] = {}


def file_system(scheme: str) -> Any:
    """Return this process's file system for a kind of store, made on its first use.

    It is never sent to another process, which has one of its own.

    Raises
    ------
    RequestError
        There is no such kind of store, or its driver is not installed; the message names the extra.
    """
    key = os.getpid(), scheme
    with _lock:
        if key not in _file_systems:
            _file_systems[key] = _open(scheme)
        return _file_systems[key]


def are_open() -> bool:
    """Say whether this process has a driver, and so its thread: a fork of it could hang."""
    return any(process == os.getpid() for process, _ in _file_systems)


def is_s3(scheme: str) -> bool:
    """Say whether a kind of store is S3, or what speaks its language."""
    return scheme in {"s3", "s3a"}


def run(driver: Any, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine in the thread that serves a driver's connections; return its result."""
    from fsspec.asyn import sync

    return sync(driver.loop, work)


def bucket_and_key(path: str) -> dict[str, str]:
    """Return the path of an object in S3 as the parameters of a request."""
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}


def put_s3(driver: Any, path: str, data: bytes, **condition: str) -> str | None:
    """Write an object of S3 on a condition (``IfNoneMatch``, ``IfMatch``); return its ETag."""
    answer = driver.call_s3("put_object", Body=data, **bucket_and_key(path), **condition)
    etag: str | None = answer.get("ETag")
    return etag


def _open(scheme: str) -> Any:
    import fsspec
    from fsspec.registry import known_implementations

    if scheme in _REFUSED_SCHEMES or scheme not in fsspec.available_protocols():
        raise RequestError(f"{scheme}://: there is no such kind of store; give s3://, gs:// or https://")
    try:
        driver = fsspec.get_filesystem_class(scheme)
        options = _options(scheme)
    except ImportError:
        extra = EXTRAS.get(scheme)
        known = known_implementations.get(scheme, {})
        fix = f"pip install 'fcn-cli[{extra}]'" if extra else known.get("err", "see fsspec's documentation")
        raise RequestError(f"{scheme}://: the driver for these URLs is not installed; {fix}") from None
    with clear_errors():
        return driver(skip_instance_cache=True, use_listings_cache=False, **options)


def _options(scheme: str) -> Mapping[str, Any]:
    """Return what a driver is given beside what it reads from the environment."""
    if is_s3(scheme):
        retries = {"mode": "standard", "total_max_attempts": _S3_ATTEMPTS}
        times = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
        return {"config_kwargs": {"retries": retries, **times}}
    if scheme in {"http", "https"}:
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        # As other commands do, it honours proxies.
        return {"client_kwargs": {"timeout": limits, "trust_env": True}}
    return {}
