"""URLs for messages, logs and records: without passwords, signatures, tokens and keys."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_plus

_URL = re.compile(r"[A-Za-z][\w+.-]+://\S+")
_AFTER_URL = "'\"`,;:.!)>]}"
"""What follows a URL in a sentence and is no part of it."""

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory", "file"})
"""Schemes where what follows the bucket is a key, in which `?` and `#` mean nothing."""
_CONTAINERS = frozenset({"abfs", "abfss", "az", "adl"})
"""Schemes of Azure, where what stands before the `@` is a container."""

_HARMLESS = frozenset(
    ("v", "ver", "version", "w", "width", "h", "height", "size", "fm", "format", "quality", "page", "frame")
)
"""Parameters of a query whose values are shown."""
# What allows somebody to fetch an object says nothing about which one it is.
_CREDENTIAL = re.compile(
    r"x-(amz|goog|ms)-.*|signature|sig|token|.*[_-]token|se|sp|sv|sr|st|spr|skoid|sktid|skt|ske|sks|skv"
    r"|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|.*api[_-]?key|pass|passwd|password|pwd"
    r"|.*secret|auth|authorization|credentials?|jwt|session|sessionid",
    re.IGNORECASE,
)
_MASKED = re.compile(r"~[0-9a-f]{16}")


def public_url(url: str) -> str:
    """Return a URL as it is written down: the same image has the same one, whoever fetches it and when.

    User information and fragments are left out, and so are parameters that sign or authorize. Of all other
    parameters but a few harmless ones the value is a hash, so that what it distinguishes stays distinct. Keys
    in object stores are names and stay as they are. What was written down already stays as it is.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    end = next((place for place, character in enumerate(rest) if character in "/?#"), len(rest))
    place, path = _without_user(scheme.lower(), rest[:end], rest[end:])
    if scheme.lower() in _OBJECT_STORES:
        return f"{scheme}://{place}{path}"
    path, question, query = path.partition("#")[0].partition("?")
    kept = [part for part in map(_written_down, query.split("&")) if part]
    return f"{scheme}://{place}{path}{question if kept else ''}{'&'.join(kept)}"


def redacted(text: str) -> str:
    """Return a text for people, with the URLs in it as `public_url` returns them.

    Of keys in object stores, too, what looks like a parameter is hidden: somebody may have taken a signed
    URL's for the store's. Records keep such a key as it is, because there it says which image it was.
    """
    if "://" not in text:
        return text
    return _URL.sub(_redact, text)


def _redact(match: re.Match[str]) -> str:
    url = match[0].rstrip(_AFTER_URL)
    return _without_parameters(public_url(url)) + match[0][len(url) :]


def _without_parameters(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    key, question, query = rest.partition("?")
    if scheme.lower() not in _OBJECT_STORES or "=" not in query:
        return url
    kept = [_written_down(part) if "=" in part else part for part in query.split("&")]
    kept = [part for part in kept if part]
    return f"{scheme}{separator}{key}{question if kept else ''}{'&'.join(kept)}"


def _without_user(scheme: str, place: str, path: str) -> tuple[str, str]:
    """Return the host and what follows it."""
    if "@" not in place and re.search(r":\d*[^\d\]]", place.rpartition("]")[2]) and "@" in path:
        # No number of a port: a password that should have been escaped.
        host, separator, path = path.rpartition("@")[2].partition("/")
        return host, separator + path
    user, _, host = place.rpartition("@")
    return (place if scheme in _CONTAINERS and ":" not in user else host), path


def _written_down(part: str) -> str:
    """Return a part of a query without its secret; an empty string leaves it out."""
    name, equals, value = part.partition("=")
    plain = unquote_plus(name)
    if not part or _CREDENTIAL.fullmatch(plain):
        return ""
    if plain.lower() in _HARMLESS:
        return part
    if not equals:
        name, value = "", name
    if not value or _MASKED.fullmatch(value):
        return part
    hashed = hashlib.sha256(unquote_plus(value).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{name}{equals}~{hashed}"
