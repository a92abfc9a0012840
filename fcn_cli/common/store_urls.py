"""URLs of objects in stores: recognise and split them."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from .errors import RequestError
from .redaction import public_url

_URL = re.compile(r"([A-Za-z][\w+.:-]+)://")
_WEB = frozenset({"http", "https"})


class StoreUrl(NamedTuple):
    """The parts of an object's URL: ``s3://bucket/key``, ``https://host/path``.

    `root` is the URL of the bucket or web server, without a slash at its end; `key` is what follows, as it
    stands in the URL. A `?` or `#` belongs to the key of an object; on a web server it has its usual meaning.
    """

    scheme: str
    root: str
    key: str


def is_url(text: str) -> bool:
    """Say whether an input or output is a URL, also one that nothing can open; no URL is a local path."""
    return _URL.match(text) is not None


def is_web(url: str) -> bool:
    """Say whether a URL is one of a web server: it can be read, and neither listed nor written."""
    return url.partition("://")[0].lower() in _WEB


def local_path(text: str) -> str:
    """Return a ``file://`` URL as the local path that it is; every other text as it is."""
    return text[len("file://") :] if text[:7].lower() == "file://" else text


def split(url: str) -> StoreUrl:
    """Return the parts of a URL.

    Raises
    ------
    RequestError
        It has no bucket or no valid server, or holds a password.
    """
    match = _URL.match(url)
    if match is None:
        raise RequestError(f"{url}: not a URL")
    scheme = match[1].lower()
    place, _, key = url[match.end() :].partition("/")
    if "@" in place and (scheme in _WEB or ":" in place.partition("@")[0]):
        raise RequestError(
            f"{public_url(url)}: a URL must not contain a password, because other programs can see it; "
            "put credentials into the environment"
        )
    if not place:
        raise RequestError(f"{url}: this URL has no {'server' if scheme in _WEB else 'bucket'}")
    if scheme in _WEB:
        _check_server(url)
    return StoreUrl(scheme, f"{scheme}://{place}", key)


def _check_server(url: str) -> None:
    reason = "it has no server"
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0 and not re.search(r"[\s\x00-\x20]", parts.netloc):
            return
    except ValueError as error:
        reason = str(error)
    raise RequestError(f"{url}: not a valid address ({reason})")


def name_in(url: str) -> str:
    """Return the path of an object below its bucket or server, as people read it: the start of its name.

    On a web server that is the path, decoded, without a query.
    """
    key = split(url).key
    if not is_web(url):
        return key
    return unquote(urlsplit(url).path, errors="surrogateescape").lstrip("/")


def absolute(path: str) -> str:
    """Return the absolute path of a file, or the public URL of an object: what records have as `path`."""
    return public_url(path) if is_url(path) else os.path.abspath(path)


class AbsolutePaths:
    """Returns what `absolute` returns, at a fraction of its time; for one current directory.

    It remembers the directories. A folder of images has thousands of files in each.
    """

    def __init__(self) -> None:
        self._directories: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """Return the absolute path of a file, or the public URL of an object."""
        if "://" in path:
            return absolute(path)
        directory, slash, name = path.rpartition("/")
        # Where names can have other separators, where two slashes have a meaning of their own (POSIX), and
        # where nothing is saved.
        if os.sep != "/" or path.startswith("//") or name in {"", ".", ".."} or (slash and not directory):
            return os.path.abspath(path)
        known = self._directories.get(directory)
        if known is None:
            known = self._directories[directory] = os.path.abspath(directory or ".").rstrip("/")
        return f"{known}/{name}"
