"""A checkpoint by URL: downloaded once, into the cache of torch.hub."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import filelock

from ..common import files, store_urls, stores
from ..common.errors import WeightsError
from ..common.redaction import public_url
from .weights import hub_directory


def obtain_url(url: str, *, offline: bool = False) -> Path:
    """Return the file of a checkpoint's URL, as the store has it now; downloads it if the cache has another.

    The store tells by ETag, or time of change, whether the cached file is still the one. Of two processes,
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
    try:
        found = store.info(name)
    except OSError as error:
        raise WeightsError(f"{shown}: cannot be read ({error.strerror or error})") from None
    if found is None:
        raise WeightsError(f"{shown}: there is no such object")
    directory = hub_directory()
    # The name says which URL it is of, and which version.
    start = f"fcn-{_short_hash(shown)}-"
    version = found.etag or found.mtime_ns
    suffix = Path(store_urls.name_in(url)).suffix
    target = directory / f"{start}{_short_hash(f'{found.size} {version}')}{suffix}"
    try:
        files.make_directories(directory)
        with filelock.FileLock(directory / f".{start}lock"):
            if version is None or not target.is_file() or target.stat().st_size != found.size:
                files.write_bytes(target, _download(store, name, shown))
                files.sync_directories([directory])
                _remove_others(target, start)
    except OSError as error:
        raise WeightsError(f"{directory}: cannot be written ({error.strerror or error})") from None
    return target


def _download(store: stores.Store, name: str, shown: str) -> bytes:
    try:
        return store.read(name).data
    except OSError as error:
        raise WeightsError(f"{shown}: cannot be downloaded ({error.strerror or error})") from None


def _remove_others(target: Path, start: str) -> None:
    """Delete earlier versions of a downloaded file; who reads one still has it open."""
    for path in target.parent.glob(f"{start}*"):
        if path != target:
            with contextlib.suppress(OSError):
                path.unlink()


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
