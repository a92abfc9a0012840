"""JSON lines, file names of any bytes, and times, as journals and JSON files have them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def to_line(value: Mapping[str, Any]) -> str:
    """Return one line of JSON, in ASCII, so that any file name survives any terminal or pipe."""
    return json.dumps(value, separators=(", ", ": "))


def printable_utf8(name: str) -> str:
    r"""Return a file name with the bytes that are not UTF-8 as ``\xNN``."""
    if name.isascii():
        return name
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()
    return data.decode("utf-8", "backslashreplace")


def name_fields(key: str, name: str) -> dict[str, str]:
    """Return the JSON fields of a file name: its text, and its bytes in base64 where it is not UTF-8."""
    printable = printable_utf8(name)
    return {key: name} if printable == name else {key: printable, f"{key}_bytes": to_base64(name)}


def read_name(value: Mapping[str, Any], key: str) -> str:
    """Return the file name in fields as of `name_fields`; KeyError, TypeError or ValueError when damaged."""
    data = value.get(f"{key}_bytes")
    return usable_name(value[key] if data is None else from_base64(data))


def usable_name(name: str) -> str:
    """Return a file name that the system can be asked for; ValueError where it is none."""
    if "\0" in name:
        raise ValueError("a name with a NUL")
    if not name.isascii():
        # ValueError for half of a surrogate pair.
        os.fsencode(name)
    return name


def to_base64(name: str) -> str:
    """Return the bytes of a file name in base64."""
    return base64.b64encode(os.fsencode(name)).decode("ascii")


def from_base64(data: str) -> str:
    """Return the file name from its bytes in base64; raise ValueError when damaged."""
    return os.fsdecode(base64.b64decode(data, validate=True))


def utc_now() -> str:
    """Return the time in UTC, in whole seconds: ``2026-11-24T03:00:00Z``."""
    return datetime.now(UTC).strftime(_TIME)


def seconds_of(time: str) -> float | None:
    """Return a time in seconds since 1970, or None when it is damaged."""
    try:
        return datetime.strptime(time, _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
