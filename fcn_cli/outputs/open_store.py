"""From the name of an output directory to the store that has its files."""

from __future__ import annotations

from pathlib import Path

from ..common import store_urls
from ..common.errors import RequestError
from ..common.stores import WritableStore
from .object_store import ObjectStore
from .output_store import LocalStore, OutputStore

_SCHEMES = ("s3", "s3a", "gs", "gcs")
"""Stores that publish whole objects only, and can create one on the condition that there is none."""


def open_store(directory: str) -> OutputStore:
    """Return an output directory, which need not exist.

    Parameters
    ----------
    directory
        A path, or the URL of a place in an object store: ``s3://bucket/results``.

    Raises
    ------
    RequestError
        It is a URL of something that cannot be written, or holds a password; or there is no driver for it.
    """
    directory = store_urls.local_path(directory)
    if not store_urls.is_url(directory):
        return LocalStore(Path(directory))
    scheme = store_urls.split(directory).scheme
    if store_urls.is_web(directory):
        raise RequestError(
            f"--output {directory}: {scheme}:// is for input only; give s3://, gs:// or a directory"
        )
    if scheme == "memory":
        raise RequestError(
            f"--output {directory}: this memory ends with the process; give s3://, gs:// or a directory"
        )
    if scheme not in _SCHEMES:
        raise RequestError(
            f"--output {directory}: cannot write to {scheme}://; give s3://, gs:// or a directory"
        )
    objects = WritableStore(directory)
    objects.check_driver()
    return ObjectStore(objects)
