"""Photos prepared in threads beside the network, a bounded number ahead, and handed out in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..common import resources
from ..common.errors import ImageError
from . import photos
from .photos import Photo, Prepared
from .shape_batches import LOOK_AHEAD_BYTES

_MAX_THREADS = 8

Outcome = TypeVar("Outcome")


@dataclass(slots=True)
class Entry(Generic[Outcome]):
    """A photo in its place: being prepared, and what came of it once that is known."""

    future: Future[Prepared]
    outcome: Outcome | ImageError | None = None


class LookAhead(Generic[Outcome]):
    """A window of the next photos, in their order.

    All methods belong to one thread. It is a context manager, which ends the threads.

    Parameters
    ----------
    given
        The photos; taken from it a bounded number ahead, in the caller's thread.
    short_side
        See `resizing.network_input`.
    batch_size
        How many photos of one shape are wanted together; the window has room to look for them.
    """

    def __init__(self, given: Iterable[Photo], short_side: int | None, batch_size: int) -> None:
        self._given = iter(given)
        self._short_side = short_side
        self._batch_size = batch_size
        self._count = min(resources.cpu_count(), _MAX_THREADS)
        self._most = 2 * batch_size + self._count
        self._threads = ThreadPoolExecutor(
            self._count, thread_name_prefix="fcn-decode", initializer=resources.lower_thread_priority
        )
        self._largest = 0
        self._entries: deque[Entry[Outcome]] = deque()
        self._exhausted = False
        self._broken: Exception | None = None

    def __enter__(self) -> LookAhead[Outcome]:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def first(self) -> Entry[Outcome] | None:
        """Return the first entry, its photo prepared or its failure in it; None when there are no more.

        Raises
        ------
        Exception
            What the iterable of photos raised, or the TypeError of something that is no photo, in its turn.
        """
        self._fill()
        if not self._entries:
            if self._broken is not None:
                raise self._broken
            return None
        entry = self._entries[0]
        if entry.outcome is None:
            error = entry.future.exception()
            if isinstance(error, ImageError):
                entry.outcome = error
            elif error is not None:
                raise error
        return entry

    def like_first(self) -> list[Entry[Outcome]]:
        """Return the first entry, and those in the window that go into a batch with it."""
        shape = self._entries[0].future.result().pixels.shape
        found: list[Entry[Outcome]] = []
        place = 0
        while place < len(self._entries) and len(found) < self._batch_size:
            entry = self._entries[place]
            place += 1
            # Waited for in order, so that what a batch holds is not a matter of chance.
            if (
                entry.outcome is None
                and entry.future.exception() is None
                and entry.future.result().pixels.shape == shape
            ):
                found.append(entry)
            self._fill()
        return found

    def drop_first(self) -> None:
        """Go on to the next photo."""
        self._entries.popleft()

    def _fill(self) -> None:
        while not self._exhausted and len(self._entries) < self._most and self._has_room():
            try:
                photo = next(self._given)
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # noqa: BLE001 - the caller's own, which is raised in its turn
                self._exhausted, self._broken = True, error
            else:
                self._entries.append(Entry(self._start(photo)))

    def _start(self, photo: Photo) -> Future[Prepared]:
        try:
            taken: Callable[[], photos.Upright] = photos.take(photo)
        except (TypeError, ImageError) as error:
            failed: Future[Prepared] = Future()
            failed.set_exception(error)
            return failed
        return self._threads.submit(photos.prepare, taken, self._short_side)

    def _has_room(self) -> bool:
        """Say whether there is memory for one more; one on its way is taken to be as large as the largest."""
        done = [entry.future for entry in self._entries if entry.future.done()]
        sizes = [one.result().nbytes for one in done if one.exception() is None]
        self._largest = max(self._largest, *sizes, 0)
        under_way = len(self._entries) - len(done)
        if not self._largest:
            return under_way < self._count
        return not self._entries or sum(sizes) + under_way * self._largest < LOOK_AHEAD_BYTES
