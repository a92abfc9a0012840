"""Download weights: official ones, or a checkpoint by URL, once, into the cache of torch.hub.

The environment variable ``FCN_WEIGHTS_MIRROR`` is the URL of a server with files of the official names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import queue
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import filelock
from typing_extensions import override

from .. import __version__
from ..common import files, store_urls, stores
from ..common.errors import FcnError, WeightsError
from ..common.redaction import public_url
from ..common.wording import counted
from .registry import OfficialWeights
from .weights import (
    WeightsFile,
    cached,
    download_url,
    hub_directory,
    search_directories,
    sha256_of,
    verify,
)

MAX_BYTES = 1 << 30
"""What a file may have. The largest network's checkpoint, with an optimiser's two moments, has 0.7 GB."""

_BLOCK = 1 << 20
_PART = 8 << 20
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_IN_PATHS = "%/:=&?~+!$,;'@()*[]"
"""What has a meaning in a path or a query, beside letters and digits."""
_LENGTH = re.compile("[0-9]{1,18}")

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total (None if the server does not state it)."""


class Received(NamedTuple):
    """A block of a file; the file's size and what tells its versions apart, as its server says."""

    size: int | None
    version: str | None
    block: bytes


class _Failed(Exception):
    """A download has failed; the text says why."""


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds.

    `connect`: until a server answers, with names, redirects and headers. `read`: until more of the file
    comes. `total`: for all of it.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 3600.0


def obtain(
    official: OfficialWeights, *, offline: bool = False, progress: Progress | None = None
) -> WeightsFile:
    """Return verified official weights from the search directories, or download them.

    Raises
    ------
    WeightsError
        The file is damaged, or missing and cannot be downloaded.
    """
    found = cached(official)
    if found is None:
        if offline:
            raise WeightsError(
                f"{official.file_name} is not on this machine, and --offline forbids downloading it; "
                f"{_alternatives(official)}"
            )
        found = fetch(official, progress=progress)
    return verify(found, official.sha256_prefix)


def fetch(
    official: OfficialWeights,
    directory: Path | None = None,
    *,
    progress: Progress | None = None,
    timeouts: Timeouts | None = None,
) -> Path:
    """Download official weights into a directory, unless the right file is already there; return its path.

    The file gets its name only once it is complete, verified and fsynced. Of two processes, one downloads and
    the other uses its file.

    Parameters
    ----------
    official
        The weights to download.
    directory
        Where to put them; torch.hub's checkpoint directory by default.
    progress
        Called as the download proceeds.
    timeouts
        The time limits; the defaults of `Timeouts` if None.

    Raises
    ------
    WeightsError
        The download failed or the file has another hash; no partial file remains.
    """
    directory = directory or hub_directory()
    target = directory / official.file_name
    url = download_url(official)
    limits = timeouts or Timeouts()
    try:
        with _locked(directory, official.file_name) as partial:
            if not (target.is_file() and sha256_of(target).startswith(official.sha256_prefix)):
                with contextlib.closing(_in_time(lambda: _web_file(url, limits), limits)) as received:
                    _save(received, partial, official.sha256_prefix, progress)
                _publish(partial, target)
    except _Failed as failed:
        raise WeightsError(f"{url}: cannot be downloaded: {failed}; {_alternatives(official)}") from None
    except OSError as error:
        raise WeightsError(
            f"{directory}: cannot be written ({error.strerror or error}); {_alternatives(official)}"
        ) from None
    return target


def obtain_url(
    url: str,
    *,
    offline: bool = False,
    timeouts: Timeouts | None = None,
) -> Path:
    """Return the file of a checkpoint's URL, as its server has it now; downloads it if the cache has another.

    The server tells by ETag, or time of change, whether the cached file is still the one. Of two processes,
    one downloads.

    Raises
    ------
    WeightsError
        It cannot be had, or the cache cannot be written; no partial file remains.
    """
    shown = public_url(url)
    if offline:
        raise WeightsError(
            f"{shown}: --offline forbids downloading weights; copy the file to this machine and give its path"
        )
    store, name = stores.object_at(url)
    limits = timeouts or Timeouts()
    directory = hub_directory()
    # The name says which URL it is of, and which version.
    start = f"fcn-{_short_hash(shown)}-"
    suffix = Path(store_urls.name_in(url)).suffix

    def source() -> Generator[Received]:
        return _web_file(url, limits) if store_urls.is_web(url) else _object(store, name)

    if not store_urls.is_web(url):
        # Importing a driver takes longer than a server.
        store.check_driver()
    try:
        with _locked(directory, start) as partial, contextlib.closing(_in_time(source, limits)) as received:
            first = next(received)
            target = directory / f"{start}{_short_hash(f'{first.size} {first.version}')}{suffix}"
            if first.version is None or not target.is_file() or target.stat().st_size != first.size:
                _save(itertools.chain([first], received), partial)
                _publish(partial, target)
                _remove_others(target, start)
    except _Failed as failed:
        raise WeightsError(f"{shown}: cannot be downloaded: {failed}") from None
    except OSError as error:
        raise WeightsError(f"{directory}: cannot be written ({error.strerror or error})") from None
    return target


@contextlib.contextmanager
def _locked(directory: Path, name: str) -> Iterator[Path]:
    """Hold the lock of a file's download, and yield where to write it; what is there afterwards goes.

    What killed downloads have left goes, too.
    """
    files.make_directories(directory)
    for partial in directory.glob(".*.part"):
        left = filelock.FileLock(partial.with_suffix(".lock"))
        with contextlib.suppress(OSError, filelock.Timeout), left.acquire(blocking=False):
            partial.unlink()
    partial = directory / f".{name}.part"
    with filelock.FileLock(partial.with_suffix(".lock")):
        partial.unlink(missing_ok=True)
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def _save(
    received: Iterable[Received], partial: Path, sha256_prefix: str = "", progress: Progress | None = None
) -> None:
    """Write what comes to a file, durably; raise `_Failed` unless it is complete and has the right hash."""
    digest, done, size = hashlib.sha256(), 0, None
    with open(partial, "xb") as stream:
        for size, _, block in received:
            done += len(block)
            if max(done, size or 0) > MAX_BYTES:
                raise _Failed(f"it is larger than {MAX_BYTES >> 20:,} MiB, the most that is downloaded")
            digest.update(block)
            stream.write(block)
            if progress:
                progress(done, size)
        stream.flush()
        os.fsync(stream.fileno())
    if size is not None and done != size:
        raise _Failed(f"the connection ended after {done} of {counted(size, 'byte')}")
    if not digest.hexdigest().startswith(sha256_prefix):
        raise _Failed(
            f"the file received is not the right one (its sha256 starts with {digest.hexdigest()[:8]}, "
            f"not {sha256_prefix[:8]})"
        )


def _publish(partial: Path, target: Path) -> None:
    """Give a complete file its name."""
    os.replace(partial, target)
    files.sync_directories([target.parent])


def _in_time(source: Callable[[], Generator[Received]], limits: Timeouts) -> Generator[Received]:
    """Yield what a source yields, each within its time, or raise `_Failed`.

    The source runs in a thread of its own: no library bounds the time of every step (names, redirects, a
    header or a block that comes byte by byte).
    """
    items: queue.Queue[Received | BaseException | None] = queue.Queue(4)
    is_abandoned = threading.Event()

    def run() -> None:
        end: BaseException | None = None
        try:
            with contextlib.closing(source()) as received:
                for one in received:
                    items.put(one)
                    if is_abandoned.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            end = error
        items.put(end)

    threading.Thread(target=run, name="fcn-download", daemon=True).start()
    deadline = time.monotonic() + limits.total
    patience = limits.connect
    try:
        while True:
            try:
                item = items.get(timeout=max(0, min(patience, deadline - time.monotonic())))
            except queue.Empty:
                item = TimeoutError()
            if item is None:
                return
            if time.monotonic() >= deadline:
                raise _Failed(f"it was not complete after {limits.total / 60:.3g} minutes")
            if isinstance(item, FcnError):
                raise item
            if isinstance(item, BaseException):
                raise _Failed(_why(item)) from None
            yield item
            patience = limits.read
    finally:
        is_abandoned.set()
        # The thread may be waiting for room.
        with contextlib.suppress(queue.Empty):
            while True:
                items.get_nowait()


def _web_file(url: str, limits: Timeouts) -> Generator[Received]:
    parts = urlsplit(url)
    # People write spaces and letters of all kinds; what is encoded already stays.
    address = urlunsplit(
        parts._replace(path=quote(parts.path, _IN_PATHS), query=quote(parts.query, _IN_PATHS), fragment="")
    )
    # A new opener reads the current proxy variables.
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls_context()), _NoWayDown())
    opener.addheaders = [("User-Agent", f"fcn-cli/{__version__}")]
    with opener.open(address, timeout=limits.read) as response:
        length = response.headers["Content-Length"] or ""
        size = int(length) if _LENGTH.fullmatch(length) else None
        version = response.headers["ETag"] or response.headers["Last-Modified"]
        yield Received(size, version, b"")
        while block := response.read1(_BLOCK):
            yield Received(size, version, block)


class _NoWayDown(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but none away from HTTPS, and none to another protocol."""

    @override
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = (urlsplit(url).scheme.lower() for url in (req.full_url, newurl))
        if after not in {before, "https"}:
            fp.close()
            raise _Failed(f"the server redirects from {before} to {after}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _object(store: stores.Store, name: str) -> Generator[Received]:
    found = store.info(name)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such object")
    size = found.size or 0
    version = found.etag or (str(found.mtime_ns) if found.mtime_ns is not None else None)
    yield Received(size, version, b"")
    for start in range(0, size, _PART):
        yield Received(size, version, store.read_part(name, start, min(start + _PART, size)))
    if store.info(name) != found:
        raise _Failed("it changed while it was being read")


def _tls_context() -> ssl.SSLContext:
    bundle = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), None)
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise WeightsError(f"{bundle}: not a valid file of CA certificates ({error})") from None


def _why(error: BaseException) -> str:
    """Return why a server's answer does not come."""
    match error:
        case _Failed():
            return str(error)
        case urllib.error.HTTPError():
            error.close()
            return f"the server answered {error.code} {str(error.reason)[:100]}"
        case TimeoutError():
            return "the server did not answer in time"
        case urllib.error.URLError():
            reason = error.reason
            known = reason.strerror if isinstance(reason, OSError) else None
            return f"no connection ({known or reason})"
        case OSError(strerror=str(reason)) if not isinstance(error, ssl.SSLError):
            return reason
        case HTTPException() | OSError() | ValueError():
            # Such as a redirect to what is no address.
            return f"the connection failed ({type(error).__name__})"
    raise error


def _remove_others(target: Path, start: str) -> None:
    """Delete earlier versions of a downloaded file; who reads one still has it open."""
    for path in target.parent.glob(f"{start}*"):
        if path != target:
            with contextlib.suppress(OSError):
                path.unlink()


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _alternatives(official: OfficialWeights) -> str:
    return (
        f"put {official.file_name} from {download_url(official)} into {search_directories()[0]}, "
        "or run `fcn weights fetch` on a machine with network access and copy the file; "
        "`--backbone efficientnet_lite0` (a small preview) works right now"
    )
