"""A lock in an object store: an object that its holder writes again every minute."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..common import store_drivers
from ..common.errors import OutputLost
from ..common.processes import ProcessIdentity, process_table
from ..common.store_errors import StoreConflict
from ..common.stores import Content, WritableStore

_PROBE_FILE = ".fcn.clock"
_RETRY_SHARE = 1 / 6
_CERTAIN_SHARE = 0.9
"""For this share of `LeaseTimes.expiry` a holder can be sure that nobody takes its lock over."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """In seconds: how often a lock is refreshed, and after how long without that it can be taken over.

    `settle` is longer than any write takes: in stores that cannot compare and write in one step, whoever
    takes a lock over waits so long and then looks whose it is.
    """

    refresh: float = 60.0
    expiry: float = 600.0
    settle: float = 5.0


class Lease:
    """A lock that is an object, created only where there is none.

    It is taken over when its holder has not refreshed it for `LeaseTimes.expiry`. Its age is what lies
    between two times of one clock, the store's: when it was written, and when a probe was written. A holder
    that is known to be dead (a process of this machine's own table) is not waited for. A holder that cannot
    be sure of its lock any more must stop writing; see `check`.

    Parameters
    ----------
    objects
        The output directory's objects.
    name
        The name of the lock.
    times
        How often it is refreshed, and when it expires.
    """

    def __init__(self, objects: WritableStore, name: str, times: LeaseTimes) -> None:
        self._objects = objects
        self._name = name
        self._times = times
        self._token = secrets.token_hex(8)
        self._etag: str | None = None
        self._count = 0
        self._held = self._lost = False
        self._refreshed = 0.0
        self._clock_difference: float | None = None
        self._mutex = threading.Lock()
        self._over = threading.Event()

    @property
    def is_held(self) -> bool:
        """Whether this process took it and did not let it go."""
        return self._held

    def acquire(self) -> bool:
        """Try to take it; see `NamedLock`."""
        began, content = _now(), self._content()
        if not self._write(content, lambda: self._objects.create(self._name, content)) and not (
            self._take_over(content)
        ):
            return False
        self._held, self._lost, self._refreshed = True, False, began
        self._over = threading.Event()
        threading.Thread(target=self._keep, args=(self._over,), name="fcn-lock", daemon=True).start()
        return True

    def release(self) -> None:
        """Let it go; raises nothing: what stays expires."""
        if not self._held:
            return
        self._over.set()
        with self._mutex:
            self._held = False
            try:
                if not self._lost and self._is_mine(self._read()):
                    self._objects.remove(self._name)
            except OSError:
                return

    def is_taken(self) -> bool:
        """Say whether another process holds it."""
        found = self._read()
        return found is not None and not self._has_expired(found)

    def check(self) -> None:
        """Raise OutputLost when another process has taken it over, or could have."""
        if not self._held or (not self._lost and not self._is_uncertain()):
            return
        if not self._lost:
            # The machine slept, or the store was out of reach: ask whether it is still there.
            self._refresh()
        if self._lost or self._is_uncertain():
            minutes = self._times.expiry / 60
            raise OutputLost(
                f"{self._objects.url_of(self._name)}: this run has lost its lock; after {minutes:g} minutes "
                "without a sign of life another one may take over. Run the same command again to continue"
            )

    def _is_uncertain(self) -> bool:
        return _now() - self._refreshed > _CERTAIN_SHARE * self._times.expiry

    def _keep(self, over: threading.Event) -> None:
        """Refresh the lock until it is lost or let go; the body of a thread."""
        pause = self._times.refresh
        while not over.wait(pause) and not self._lost:
            pause = self._times.refresh * (1 if self._refresh() else _RETRY_SHARE)

    def _refresh(self) -> bool:
        """Write the lock again, if it is still ours; say whether that succeeded."""
        with self._mutex:
            if not self._held or self._lost:
                return False
            began, content = _now(), self._content()
            try:
                if self._write(content, lambda: self._objects.replace(self._name, content, self._etag)):
                    self._refreshed = began
                    return True
                found = self._read()
                self._lost = not self._is_mine(found)
                self._etag = found.object.etag if found is not None else None
            except FileNotFoundError:
                self._lost = True
            except OSError:
                # The store is out of reach; `check` knows when that has lasted too long.
                return False
            return False

    def _take_over(self, content: bytes) -> bool:
        found = self._read()
        if found is None or not self._has_expired(found):
            return False
        etag = found.object.etag
        if not self._write(content, lambda: self._objects.replace(self._name, content, etag)):
            return False
        if store_drivers.is_s3(self._objects.scheme):
            return True
        time.sleep(self._times.settle)
        found = self._read()
        return found is not None and found.data == content

    def _write(self, content: bytes, write: Callable[[], str | None]) -> bool:
        """Write the lock on a condition; say whether the condition held."""
        try:
            self._etag = write()
        except StoreConflict:
            # Or this content was written, the answer was lost, and the driver asked again.
            found = self._read()
            if found is None or found.data != content:
                return False
            self._etag = found.object.etag
        return True

    def _read(self) -> Content | None:
        try:
            return self._objects.read(self._name)
        except FileNotFoundError:
            return None

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

    def _is_mine(self, found: Content | None) -> bool:
        return found is not None and _parsed(found).get("token") == self._token

    def _has_expired(self, found: Content) -> bool:
        if _is_dead(_parsed(found)):
            return True
        written = found.object.mtime_ns
        return written is not None and self._store_time() - written / 1e9 > self._times.expiry

    def _store_time(self) -> float:
        """Return what time it is by the store's clock."""
        if self._clock_difference is None:
            name = f"{_PROBE_FILE}-{self._token}"
            self._objects.write(name, b"")
            written = self._objects.info(name)
            self._objects.remove(name)
            if written is None or written.mtime_ns is None:
                return 0.0
            self._clock_difference = written.mtime_ns / 1e9 - _now()
        return self._clock_difference + _now()


def _parsed(found: Content) -> dict[str, Any]:
    try:
        value = json.loads(found.data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Say whether the holder of a lock is a process of this machine that has ended."""
    table = process_table()
    if table is None or holder.get("process_table") != table:
        return False
    try:
        return ProcessIdentity.from_json(holder).is_alive() is False
    except (KeyError, TypeError, ValueError):
        return False


def _now() -> float:
    """Return a clock that goes on while the machine sleeps, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot_time is None else time.clock_gettime(boot_time)
