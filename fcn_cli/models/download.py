"""Download official weights.

The environment variable ``FCN_WEIGHTS_MIRROR`` is the URL of a server with files of the same names.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import filelock

from .. import __version__
from ..common import files
from ..common.errors import WeightsError
from ..common.wording import counted
from .weights import (
    OfficialWeights,
    WeightsFile,
    cached,
    download_url,
    hub_directory,
    search_directories,
    sha256_of,
    verify,
)

CONNECT_SECONDS = 10.0
"""How long a server may take to answer, including DNS and redirects."""
READ_SECONDS = 30.0
"""How long a download may stall."""

_CHUNK = 1 << 20
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total (None if the server does not state it)."""


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds: until a server answers, and between two reads of its answer."""

    connect: float = CONNECT_SECONDS
    read: float = READ_SECONDS


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
    try:
        files.make_directories(directory)
        with filelock.FileLock(directory / f".{official.file_name}.lock"):
            if not (target.is_file() and sha256_of(target).startswith(official.sha256_prefix)):
                files.write_whole(
                    target, lambda stream: _download(official, stream.write, progress, timeouts or Timeouts())
                )
                files.sync_directories([directory])
    except OSError as error:
        raise WeightsError(
            f"{directory}: cannot be written ({error.strerror or error}); {_alternatives(official)}"
        ) from None
    return target


def _download(
    official: OfficialWeights, write: Callable[[bytes], object], progress: Progress | None, timeouts: Timeouts
) -> None:
    url = download_url(official)
    try:
        digest = hashlib.sha256()
        done = 0
        with _open(url, timeouts) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            while block := response.read(_CHUNK):
                digest.update(block)
                write(block)
                done += len(block)
                if progress:
                    progress(done, total)
    except urllib.error.HTTPError as error:
        reason = f"the server answered {error.code} {error.reason}"
    except TimeoutError:
        reason = "the server did not answer in time"
    except urllib.error.URLError as error:
        reason = f"no connection ({_reason(error)})"
    except (HTTPException, ConnectionError, ssl.SSLError) as error:
        reason = f"the connection failed ({type(error).__name__})"
    else:
        if total is not None and done < total:
            reason = f"the connection ended after {done} of {counted(total, 'byte')}"
        elif not digest.hexdigest().startswith(official.sha256_prefix):
            reason = (
                f"the file received is not the right one (its sha256 starts with {digest.hexdigest()[:8]}, "
                f"not {official.sha256_prefix[:8]})"
            )
        else:
            return
    raise WeightsError(f"{url}: cannot be downloaded: {reason}; {_alternatives(official)}")


def _open(url: str, timeouts: Timeouts) -> HTTPResponse:
    """Open a URL within one deadline for all steps: urllib's timeout is per address and excludes DNS."""
    result: list[HTTPResponse | BaseException] = []
    finished = threading.Event()

    def request() -> None:
        try:
            # A new opener reads the current proxy variables.
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls_context()))
            opener.addheaders = [("User-Agent", f"fcn-cli/{__version__}")]
            result.append(opener.open(url, timeout=timeouts.read))
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            result.append(error)
        finished.set()

    threading.Thread(target=request, daemon=True).start()
    if not finished.wait(timeouts.connect):
        raise TimeoutError
    answer = result[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _tls_context() -> ssl.SSLContext:
    bundle = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), None)
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise WeightsError(f"{bundle}: not a valid file of CA certificates ({error})") from None


def _reason(error: urllib.error.URLError) -> str:
    reason = error.reason
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)


def _alternatives(official: OfficialWeights) -> str:
    return (
        f"put {official.file_name} from {download_url(official)} into {search_directories()[0]}, "
        "or run `fcn weights fetch` on a machine with network access and copy the file; "
        "`--backbone mobilenet_v2` (a small preview) works right now"
    )
