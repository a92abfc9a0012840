"""Download official weights.

``FCN_WEIGHTS_MIRROR`` names a server with the same file names.
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
    hub_folder,
    search_folders,
    sha256_of,
    verify,
)

CONNECT_SECONDS = 10.0
"""How long a server may take to answer at all, name look-up and redirects included."""
READ_SECONDS = 30.0
"""How long a download may stand still."""

_CHUNK = 1 << 20
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all (None when the server does not say)."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds: until a server answers, and between two pieces of its answer."""

    connect: float = CONNECT_SECONDS
    read: float = READ_SECONDS


def obtain(
    official: OfficialWeights, *, offline: bool = False, progress: Progress | None = None
) -> WeightsFile:
    """Return verified official weights: from the search folders, else downloaded.

    Raises
    ------
    WeightsError
        They are damaged, or missing and cannot be had.
    """
    found = cached(official)
    if found is None:
        if offline:
            raise WeightsError(
                f"{official.file_name} is not on this machine and --offline forbids to fetch it; "
                f"{_ways(official)}"
            )
        found = fetch(official, progress=progress)
    return verify(found, official.sha256_prefix)


def fetch(
    official: OfficialWeights,
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
    timeouts: Timeouts | None = None,
) -> Path:
    """Put official weights into a folder (default: torch.hub's); downloads unless the right file is there.

    The file appears under its name only whole, verified and fsynced; of two processes one downloads and the
    other takes its file.

    Raises
    ------
    WeightsError
        The download failed or is not the file it should be; nothing is left behind.
    """
    folder = folder or hub_folder()
    target = folder / official.file_name
    try:
        files.make_folders(folder)
        with filelock.FileLock(folder / f".{official.file_name}.lock"):
            if not (target.is_file() and sha256_of(target).startswith(official.sha256_prefix)):
                files.write_whole(
                    target, lambda stream: _download(official, stream.write, progress, timeouts or Timeouts())
                )
                files.sync_folders([folder])
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot be written ({error.strerror or error}); {_ways(official)}"
        ) from None
    return target


def _download(
    official: OfficialWeights, write: Callable[[bytes], object], progress: Progress | None, timeouts: Timeouts
) -> None:
    url = download_url(official)
    try:
        digest = hashlib.sha256()
        done = 0
        with _answer(url, timeouts) as response:
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
        reason = f"no connection ({_why(error)})"
    except (HTTPException, ConnectionError, ssl.SSLError) as error:
        reason = f"the connection broke ({type(error).__name__})"
    else:
        if total is not None and done < total:
            reason = f"the connection ended after {done} of {counted(total, 'byte')}"
        elif not digest.hexdigest().startswith(official.sha256_prefix):
            reason = (
                f"what came is not the right file (its sha256 starts with {digest.hexdigest()[:8]}, "
                f"not {official.sha256_prefix[:8]})"
            )
        else:
            return
    raise WeightsError(f"{url}: cannot be downloaded: {reason}; {_ways(official)}")


def _answer(url: str, timeouts: Timeouts) -> HTTPResponse:
    """Open a URL within a deadline that holds for all of it: urllib's own is per address and skips DNS."""
    result: list[HTTPResponse | BaseException] = []
    finished = threading.Event()

    def ask() -> None:
        try:
            # An opener of our own reads the proxy variables as they are now.
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls_context()))
            opener.addheaders = [("User-Agent", f"fcn-cli/{__version__}")]
            result.append(opener.open(url, timeout=timeouts.read))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            result.append(error)
        finished.set()

    threading.Thread(target=ask, daemon=True).start()
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
        raise WeightsError(f"{bundle}: not a usable file of CA certificates ({error})") from None


def _why(error: urllib.error.URLError) -> str:
    reason = error.reason
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)


def _ways(official: OfficialWeights) -> str:
    return (
        f"put {official.file_name} from {download_url(official)} into {search_folders()[0]}, "
        "or run `fcn weights fetch` where there is a network and copy the file; "
        "`--backbone mobilenet_v2` (a small preview) works right now"
    )
