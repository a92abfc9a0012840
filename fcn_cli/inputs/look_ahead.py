"""Decode and resize photos in threads beside the network, a bounded number ahead, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from ..common import resources
from ..common.errors import ImageError
from ..common.ordered_work import OrderedWork
from . import photos
from .photos import Photo, Prepared
from .samples import BY_THE_FILE, Rendering
from .shape_batches import LOOK_AHEAD_BYTES

_MAX_THREADS = 8

Outcome = TypeVar("Outcome")


@dataclass(slots=True, eq=False)
class Entry(Generic[Outcome]):
    """A photo in the window: `future` prepares it, `outcome` is its result or failure once that is known."""

    future: Future[Prepared] = field(init=False)
    outcome: Outcome | ImageError | None = None


class LookAhead(Generic[Outcome]):
    """A window of the next photos, in order.

    All methods belong to one thread. Leaving the context ends the threads.

    Parameters
    ----------
    given
        The photos; the caller's thread takes them from the iterable, a bounded number ahead.
    short_side, scales
        See `resizing.network_inputs`.
    batch_size
        The largest number of photos of one shape in a batch; the window has room to look for them.
    rendering
        How their samples become RGB.
    """

    def __init__(
        self,
        given: Iterable[Photo],
        short_side: int | None,
        scales: Sequence[float],
        batch_size: int,
        rendering: Rendering = BY_THE_FILE,
    ) -> None:
        self._given = iter(given)
        self._short_side = short_side
        self._scales = scales
        self._batch_size = batch_size
        self._rendering = rendering
        self._threads = min(resources.cpu_count(), _MAX_THREADS)
        self._max_count = 2 * batch_size + self._threads
        # `_fill` keeps the bounds: how many bytes a photo holds is known only when it is decoded.
        self._work = OrderedWork[Entry[Outcome], Prepared](
            self._threads,
            "fcn-decode",
            max_bytes=LOOK_AHEAD_BYTES,
            max_count=self._max_count,
            low_priority=True,
        )
        self._taken = 0
        self._largest = 0
        self._exhausted = False
        self._broken: Exception | None = None

    def __enter__(self) -> LookAhead[Outcome]:
        return self

    def __exit__(self, *error: object) -> None:
        self._work.__exit__(*error)

    def first(self) -> Entry[Outcome] | None:
        """Return the first entry, with its photo prepared or its failure; None when there are no more photos.

        Raises
        ------
        Exception
            The exception of the iterable of photos, or the TypeError of something that is no photo, in its
            turn.
        """
        self._fill()
        if not len(self._work):
            if self._broken is not None:
                raise self._broken
            return None
        entry = self._work[0].key
        if entry.outcome is None:
            error = entry.future.exception()
            if isinstance(error, ImageError):
                entry.outcome = error
            elif error is not None:
                raise error
        return entry

    def like_first(self) -> list[Entry[Outcome]]:
        """Return the first entry, and the entries in the window that go into a batch with it."""
        shape = self._work[0].future.result().pixels.shape
        found: list[Entry[Outcome]] = []
        place = 0
        while place < len(self._work) and len(found) < self._batch_size:
            entry = self._work[place].key
            place += 1
            # Wait in order, so that the contents of a batch are not a matter of chance.
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
        self._work.take_oldest()

    def _fill(self) -> None:
        while not self._exhausted and len(self._work) < self._max_count and self._has_room():
            try:
                photo = next(self._given)
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # noqa: BLE001 - the caller's own, which is raised in its turn
                self._exhausted, self._broken = True, error
            else:
                self._start(photo)

    def _start(self, photo: Photo) -> None:
        entry = Entry[Outcome]()
        source = photos.source_of(photo, self._taken)
        self._taken += 1
        try:
            with photos.naming(source):
                decode = photos.take(photo, self._rendering)
            work = partial(photos.prepare, source, decode, self._short_side, self._scales)
        except (TypeError, ImageError) as error:
            entry.future = self._work.submit_result(entry, error)
        else:
            entry.future = self._work.submit(entry, work)

    def _has_room(self) -> bool:
        """Say whether there is memory for one more photo; an unfinished one counts as the largest so far."""
        done = [task.future for task in self._work if task.future.done()]
        sizes = [future.result().nbytes for future in done if future.exception() is None]
        self._largest = max(self._largest, *sizes, 0)
        unfinished = len(self._work) - len(done)
        if not self._largest:
            return unfinished < self._threads
        return not len(self._work) or sum(sizes) + unfinished * self._largest < LOOK_AHEAD_BYTES
