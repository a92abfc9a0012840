"""What the drivers of object stores raise, as OSErrors whose text is fit for users and holds no secret."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from .files import UnfitFile

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
        super().__init__(errno.EEXIST, "it was written by somebody else")


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
        return OSError(errno.ENOTSUP, "this kind of store cannot do that")
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
