"""The object of a lock in an object store: who wrote it, and how old it is by the store's own clock."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from ..common import files
from ..common.processes import ProcessIdentity, process_table
from ..common.stores import Content, Store, StoreConflict

_PROBE_FILE = ".fcn.clock"


class LockObject:
    """An object that says which process wrote it last, read and written by one of them.

    Parameters
    ----------
    objects
        The objects of an output directory.
    name
        The name of this one.
    """

    def __init__(self, objects: Store, name: str) -> None:
        self.objects = objects
        self.name = name
        self.etag: str | None = None
        self._token = secrets.token_hex(8)
        self._count = 0
        self._clock_difference: float | None = None

    def __str__(self) -> str:
        return f"{self.objects}/{self.name}"

    def create(self) -> bool:
        """Write it where there is none; say whether there was none. Raises OSError."""
        content = self._content()
        return self._write(content, lambda: self.objects.create(self.name, content))

    def replace(self, etag: str | None) -> bool:
        """Write it in the place of the one with this ETag; say whether that was still there.

        Raises
        ------
        OSError
            The store is out of reach. A FileNotFoundError says that there is no such object.
        """
        content = self._content()
        return self._write(content, lambda: self.objects.replace(self.name, content, etag))

    def read(self) -> Content | None:
        """Return what is there, or None; raises OSError."""
        try:
            return self.objects.read(self.name, max_bytes=files.SMALL_BYTES)
        except FileNotFoundError:
            return None

    def is_mine(self, found: Content | None) -> bool:
        """Say whether this process wrote it last."""
        return found is not None and _parsed(found).get("token") == self._token

    def is_of_dead_process(self, found: Content) -> bool:
        """Say whether a process of this machine wrote it that has ended; others are not known to have."""
        table, holder = process_table(), _parsed(found)
        if table is None or holder.get("process_table") != table:
            return False
        try:
            return ProcessIdentity.from_json(holder).is_alive() is False
        except (KeyError, TypeError, ValueError):
            return False

    def age(self, found: Content) -> float:
        """Return how many seconds ago it was written, both times being the store's; 0 when it tells none."""
        if found.object.mtime_ns is None:
            return 0.0
        if self._clock_difference is None:
            probe = f"{_PROBE_FILE}-{self._token}"
            self.objects.write(probe, b"")
            written = self.objects.info(probe)
            self.objects.remove(probe)
            if written is None or written.mtime_ns is None:
                return 0.0
            self._clock_difference = written.mtime_ns / 1e9 - now()
        return self._clock_difference + now() - found.object.mtime_ns / 1e9

    def _write(self, content: bytes, write: Callable[[], str | None]) -> bool:
        try:
            self.etag = write()
        except StoreConflict:
            # Or this content was written, the answer was lost, and the driver asked again.
            found = self.read()
            if found is None or found.data != content:
                return False
            self.etag = found.object.etag
        return True

    def _content(self) -> bytes:
        # It differs each time, and so does the ETag.
        self._count += 1
        value = {
            "token": self._token,
            "count": self._count,
            "process_table": process_table(),
            **ProcessIdentity.current().as_json(),
        }
        return json.dumps(value).encode() + b"\n"


def now() -> float:
    """Return a clock that goes on while the machine sleeps, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot_time is None else time.clock_gettime(boot_time)


def _parsed(found: Content) -> dict[str, Any]:
    try:
        value = files.parse_json(found.data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
