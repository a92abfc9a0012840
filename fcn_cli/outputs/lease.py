"""Locks of an output directory in an object store: numbered objects, each created once.

A lock is the objects ``.fcn.lock.1``, ``.fcn.lock.2`` and so on (of a shard
``.fcn.lock.2-of-4.<settings>.1``), of which the one with the highest number counts. Its holder writes it
again every minute, and empties it in the end. To take a lock is to create the next number, on the condition
that there is none, where the last one is empty, or its holder has ended, or has given no sign of life for
`LeaseTimes.expiry`. Then the lower numbers are removed. The highest one never is, so that no number is used
twice: what a process writes that has lost its lock, however late, is an object that counts no more.

Whoever creates a number looks once more: whether that is the highest (somebody may have been faster by two
numbers), and whether the one before is as it was found. A holder that slept and writes again looks after that
for a higher number. Of the two one was the later, and sees the other: if the holder was heard of in time, the
number created is given up; otherwise the holder stops. No clocks of two machines are compared: how old an
object is says the store.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from typing_extensions import override

from ..common import files
from ..common.errors import OutputLost
from ..common.limits import MOST_SHARDS
from ..common.output_layout import HOLDER_FILE, LOCK_FILE
from ..common.processes import ProcessIdentity, process_table
from ..common.shard import Shard, shard_file
from ..common.stores import Store, StoreConflict, StoreObject
from .lock import Claim, Held, Holder, Lock

_CLOCK_FILE = ".fcn.clock"
# Without a number: of 0.2.
_NAME = re.compile(
    re.escape(LOCK_FILE)
    + r"(?:\.([1-9]\d{0,8})-of-([1-9]\d{0,8})(?:\.([0-9a-f]{16}))?)?(?:\.([1-9]\d{0,11}))?"
)
_RETRY_SHARE = 1 / 6
_CERTAIN_SHARE = 0.9
"""For this share of `LeaseTimes.expiry` a holder can be sure that nobody takes its lock over."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """In seconds: how often a lock is refreshed, and after how long without that it can be taken over."""

    refresh: float = 60.0
    expiry: float = 600.0


class _Numbered(NamedTuple):
    """One object of a lock."""

    claim: Claim
    number: int
    object: StoreObject

    @property
    def is_free(self) -> bool:
        return self.object.size == 0


class Lease(Lock):
    """A lock that is an object. A holder that cannot be sure of it any more must stop writing; see `check`.

    Parameters
    ----------
    objects
        The output directory's objects.
    claim
        What it is the lock of.
    times
        How often it is refreshed, and when it expires.
    """

    def __init__(self, objects: Store, claim: Claim, times: LeaseTimes) -> None:
        self.claim = claim
        self._objects = objects
        self._times = times
        self._token = secrets.token_hex(8)
        self._count = 0
        self._number = 0
        self._holder: Holder | None = None
        self._held = self._lost = False
        self._refreshed = 0.0
        self._clock_difference: float | None = None
        self._mutex = threading.Lock()
        self._over = threading.Event()

    def __str__(self) -> str:
        return f"{self._objects}/{_name(self.claim, self._number)}"

    @override
    def take(self) -> bool:
        last = self._last().get(self.claim)
        if last is not None and not last.is_free and not self._has_passed(last, self._read(last.object.name)):
            return False
        began = now()
        number = self._follow(self.claim, last, self._content())
        if number is None:
            return False
        self._number, self._holder = number, None
        self._held, self._lost, self._refreshed = True, False, began
        self._over = threading.Event()
        threading.Thread(target=self._keep, args=(self._over,), name="fcn-lock", daemon=True).start()
        return True

    @override
    def others(self) -> Iterator[Held]:
        for last in self._last().values():
            is_mine = self._held and last.claim == self.claim and last.number == self._number
            if is_mine or last.is_free or not self.claim.excludes(last.claim):
                continue
            content = self._read(last.object.name)
            if content is None or not self._has_passed(last, content):
                yield Held(last.claim, _holder(content))
            elif self._held and self._follow(last.claim, last, b"") is None:
                yield Held(last.claim, None)

    @override
    def clear(self) -> None:
        if self.claim.shard is None:
            # What a kill left of a look at the clock, and of those that worked.
            for prefix in (_CLOCK_FILE, HOLDER_FILE.removesuffix("json")):
                for found in self._objects.list(prefix, deep=False):
                    self._objects.remove(found.name)

    @override
    def tell(self, holder: Holder) -> None:
        with self._mutex:
            self._holder = holder
            self._objects.write(_name(self.claim, self._number), self._content())
        # For who reads a copy of the directory while this works.
        self._objects.write(shard_file(HOLDER_FILE, self.claim.shard), holder.as_file())

    @override
    def let_go(self) -> None:
        """Raise nothing: what is left expires."""
        if not self._held:
            return
        self._over.set()
        with self._mutex:
            self._held = False
            try:
                if not self._lost and self._is_mine():
                    if self._holder is not None:
                        self._objects.remove(shard_file(HOLDER_FILE, self.claim.shard))
                    self._objects.write(_name(self.claim, self._number), b"")
            except OSError:
                return

    def holder(self) -> Holder | None:
        """Return who works by this lock, this process or another one; raises OSError."""
        last = self._last().get(self.claim)
        return _holder(self._read(last.object.name)) if last is not None and not last.is_free else None

    def check(self) -> None:
        """Raise OutputLost when another process has taken it over, or could have."""
        if not self._held or (not self._lost and not self._is_uncertain()):
            return
        # The machine slept, or the store was out of reach: ask whether it is still there.
        self._refresh()
        if self._lost or self._is_uncertain():
            raise OutputLost(
                f"{self}: this run has lost its lock: it could not renew it for "
                f"{self._times.expiry / 60:g} minutes, and another run may have taken over. Run the "
                "same command again to continue"
            )

    def _is_uncertain(self) -> bool:
        return now() - self._refreshed > _CERTAIN_SHARE * self._times.expiry

    def _keep(self, over: threading.Event) -> None:
        """Refresh the lock until it is lost or let go; the body of a thread."""
        wait = self._times.refresh
        while not over.wait(wait) and not self._lost:
            wait = self._times.refresh * (1 if self._refresh() else _RETRY_SHARE)

    def _refresh(self) -> bool:
        """Write the lock again, if it is still ours; say whether that succeeded."""
        with self._mutex:
            if not self._held or self._lost:
                return False
            began = now()
            try:
                # Somebody may have deleted it by hand.
                self._lost = not self._is_mine()
                if not self._lost:
                    self._objects.write(_name(self.claim, self._number), self._content())
                    last = self._last().get(self.claim)
                    self._lost = last is None or last.number != self._number
            except OSError:
                # The store is out of reach; `check` knows when that has lasted too long.
                return False
            if not self._lost:
                self._refreshed = began
            return not self._lost

    def _follow(self, claim: Claim, before: _Numbered | None, content: bytes) -> int | None:
        """Create the number after one that was found free; return it, or None where another one is there."""
        number = before.number + 1 if before is not None else 1
        name = _name(claim, number)
        try:
            self._objects.create(name, content)
        except StoreConflict:
            # Or this content was written, the answer was lost, and the driver asked again.
            if not content or self._read(name) != content:
                return None
        others = [other for other in self._all() if other.claim == claim and other.number != number]
        if any(other.number > number for other in others):
            self._objects.remove(name)
            return None
        if any(before is not None and other.number == before.number and other != before for other in others):
            # Its holder has given a sign of life meanwhile.
            self._objects.write(name, b"")
            return None
        for other in others:
            self._objects.remove(other.object.name)
        return number

    def _all(self) -> Iterator[_Numbered]:
        for found in self._objects.list(LOCK_FILE, deep=False):
            if (match := _NAME.fullmatch(found.name)) is None:
                continue
            index, count, settings, number = match.groups()
            shard = Shard(int(index), int(count)) if index else None
            if shard is None or shard.index <= shard.count <= MOST_SHARDS:
                yield _Numbered(Claim(shard, settings or ""), int(number or 0), found)

    def _last(self) -> dict[Claim, _Numbered]:
        """Return the object that counts of each lock."""
        last: dict[Claim, _Numbered] = {}
        for one in self._all():
            if one.claim not in last or one.number > last[one.claim].number:
                last[one.claim] = one
        return last

    def _read(self, name: str) -> bytes | None:
        try:
            return self._objects.read(name, max_bytes=files.SMALL_BYTES).data
        except FileNotFoundError:
            return None

    def _is_mine(self) -> bool:
        return _parsed(self._read(_name(self.claim, self._number))).get("token") == self._token

    def _content(self) -> bytes:
        # It differs each time, so that a sign of life is one.
        self._count += 1
        who = self._holder.as_json() if self._holder is not None else ProcessIdentity.current().as_json()
        value = {
            "token": self._token,
            "count": self._count,
            "process_table": process_table(),
            "works": self._holder is not None,
            **who,
        }
        return json.dumps(value).encode() + b"\n"

    def _has_passed(self, last: _Numbered, content: bytes | None) -> bool:
        """Say whether nobody has a lock: it is free, or its holder has ended or was not heard of for long."""
        if content is None:
            return False
        is_free = not content or _is_of_dead_process(_parsed(content))
        return is_free or self._age(last.object) > self._times.expiry

    def _age(self, found: StoreObject) -> float:
        """Return how many seconds ago it was written, both times being the store's; 0 when it tells none."""
        if found.mtime_ns is None:
            return 0.0
        if self._clock_difference is None:
            probe = f"{_CLOCK_FILE}-{self._token}"
            self._objects.write(probe, b"")
            written = self._objects.info(probe)
            self._objects.remove(probe)
            if written is None or written.mtime_ns is None:
                return 0.0
            self._clock_difference = written.mtime_ns / 1e9 - now()
        return self._clock_difference + now() - found.mtime_ns / 1e9


def now() -> float:
    """Return a clock that goes on while the machine sleeps, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot_time is None else time.clock_gettime(boot_time)


def _name(claim: Claim, number: int) -> str:
    name = shard_file(LOCK_FILE, claim.shard)
    return f"{name}.{claim.settings}.{number}" if claim.settings else f"{name}.{number}"


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        value = files.parse_json(content or b"")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _holder(content: bytes | None) -> Holder | None:
    """Return who works, by the content of a lock; None where somebody only looks."""
    value = _parsed(content)
    try:
        # 0.2 did not say it.
        return Holder.from_json(value) if value.get("works", True) else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _is_of_dead_process(value: dict[str, Any]) -> bool:
    """Say whether a process of this machine wrote it that has ended; others are not known to have."""
    table = process_table()
    if table is None or value.get("process_table") != table:
        return False
    try:
        return ProcessIdentity.from_json(value).is_alive() is False
    except (KeyError, TypeError, ValueError):
        return False
