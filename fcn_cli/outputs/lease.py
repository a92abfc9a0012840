"""A lock in an object store: an object that its holder writes again every minute."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ..common.errors import OutputLost
from ..common.stores import Content, Store
from .lock_object import LockObject, now

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

    It is taken over when its holder has not refreshed it for `LeaseTimes.expiry`, or is a process of this
    machine that has ended. No clocks of two machines are compared: how old it is says the store. A holder
    that cannot be sure of its lock any more must stop writing; see `check`.

    Parameters
    ----------
    objects
        The output directory's objects.
    name
        The name of the lock.
    times
        How often it is refreshed, and when it expires.
    """

    def __init__(self, objects: Store, name: str, times: LeaseTimes) -> None:
        self._object = LockObject(objects, name)
        self._times = times
        self._held = self._lost = False
        self._refreshed = 0.0
        self._mutex = threading.Lock()
        self._over = threading.Event()

    @property
    def is_held(self) -> bool:
        """Whether this process took it and did not let it go."""
        return self._held

    def acquire(self) -> bool:
        """Try to take it; see `NamedLock`."""
        began = now()
        if not self._object.create():
            began = now()
            if not self._take_over():
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
                if not self._lost and self._object.is_mine(self._object.read()):
                    self._object.objects.remove(self._object.name)
            except OSError:
                return

    def is_taken(self) -> bool:
        """Say whether another process holds it."""
        found = self._object.read()
        return found is not None and not self._has_expired(found)

    def check(self) -> None:
        """Raise OutputLost when another process has taken it over, or could have."""
        if not self._held or (not self._lost and not self._is_uncertain()):
            return
        # The machine slept, or the store was out of reach: ask whether it is still there.
        self._refresh()
        if self._lost or self._is_uncertain():
            raise OutputLost(
                f"{self._object}: this run has lost its lock; after {self._times.expiry / 60:g} minutes "
                "without a sign of life another one may take over. Run the same command again to continue"
            )

    def _is_uncertain(self) -> bool:
        return now() - self._refreshed > _CERTAIN_SHARE * self._times.expiry

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
            began = now()
            try:
                if self._object.replace(self._object.etag):
                    self._refreshed = began
                    return True
                found = self._object.read()
                self._lost = not self._object.is_mine(found)
                self._object.etag = found.object.etag if found is not None else None
            except FileNotFoundError:
                self._lost = True
            except OSError:
                # The store is out of reach; `check` knows when that has lasted too long.
                return False
            return False

    def _take_over(self) -> bool:
        found = self._object.read()
        if found is None or not self._has_expired(found) or not self._object.replace(found.object.etag):
            return False
        if not self._object.objects.replaces_in_one_step:
            time.sleep(self._times.settle)
            return self._object.is_mine(self._object.read())
        return True

    def _has_expired(self, found: Content) -> bool:
        return self._object.is_of_dead_process(found) or self._object.age(found) > self._times.expiry
