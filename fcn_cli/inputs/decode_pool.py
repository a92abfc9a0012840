"""Decoding workers: a torch DataLoader that outlives a worker that dies or hangs.

The loader yields decoded, resized photos in input order, small ones some at a time. Each worker notes in
shared memory which photo it holds. When a decoder bug or the kernel kills a worker, or a worker hangs,
exactly that photo fails; then the pool is rebuilt for the rest.

Pixels travel in shared memory (`shared_pixels`), those of small images through the workers' pipe; none
travel through /dev/shm, which may be too small in a container. A worker that dies in the middle of a write
would block the reader of that pipe for ever. So a thread reads it, which can be abandoned. torch's SIGCHLD
handler, which raises wherever the main thread happens to be, is disabled.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader

from ..common import store_urls
from ..common.errors import Failure, FcnError
from ..common.signals import ENDING_SIGNALS
from ..common.swept_directory import SweptDirectory
from .decode_worker import IDLE, PackedPhoto, Photos, WorkerStatusTable
from .decoded_photo import DecodedPhoto, DecodeSettings, decode_photo
from .discovery import Source
from .shared_pixels import ReceivedPixels
from .workers import death_of, first, hung, later, preload

POLL_SECONDS = 0.5
"""How often a waiting caller regains control, and how soon a dead worker is noticed."""

_PREFETCH = 2
_MAX_TOGETHER = 8
_BYTES_TOGETHER = 1 << 20
_MAX_FRUITLESS_REBUILDS = 3
_PATIENCE_SECONDS = 5.0


class DecodePool:
    """Decodes photos in worker processes, in order.

    Iterating yields a `DecodedPhoto` per source, in input order, and None whenever no photo is ready for
    `POLL_SECONDS`, so that the caller can do other work.

    Parameters
    ----------
    sources
        The photos.
    settings
        How to decode them.
    workers
        The number of processes; 0 decodes in this process, unprotected from decoders that crash or hang.
    clean
        Start the workers from a clean process: this one has threads or CUDA, so it must not fork.

    Raises
    ------
    FcnError
        The workers die repeatedly without having begun a photo.
    """

    def __init__(
        self, sources: Sequence[Source], settings: DecodeSettings, workers: int, *, clean: bool = False
    ) -> None:
        self._sources = sources
        self._settings = settings
        self.workers = min(workers, len(sources))
        self._failed: dict[int, Failure] = {}
        self._position = 0
        self._fruitless = 0
        # Where pixels of large photos wait for the network.
        self._directory = SweptDirectory()
        self._pool = self._start(_from_clean_process() if clean else first()) if self.workers else None

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[DecodedPhoto | None]:
        while self._position < len(self._sources):
            photo = self._next()
            if photo is not None:
                self._position += 1
                self._fruitless = 0
            yield photo
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None
        self._directory.remove()

    def _next(self) -> DecodedPhoto | None:
        if self._pool is None:
            return decode_photo(self._sources[self._position], self._settings)
        decoded = self._pool.get(self._position)
        if decoded is None:
            self._rebuild_if_lost(self._pool)
        return decoded

    def _rebuild_if_lost(self, pool: _Pool) -> None:
        """Find out why no photo is ready; fail the photo of a dead or stuck worker, and rebuild the pool."""
        lost = pool.lost(self._settings.seconds)
        stalled = pool.waited > _MAX_TOGETHER * self._settings.seconds + 10 * POLL_SECONDS
        if lost is None and not stalled and not pool.broken:
            return
        pool.stop()
        if lost:
            self._failed.update(lost)
            self._fruitless = 0
        else:
            self._fruitless += 1
            if self._fruitless > _MAX_FRUITLESS_REBUILDS:
                raise FcnError("the decoding workers end before they decode anything; try --workers 0")
        self._pool = self._start(_from_clean_process())

    def _start(self, context: BaseContext) -> _Pool:
        table = WorkerStatusTable(context, self.workers)
        photos = Photos(self._sources, self._settings, dict(self._failed), table, self._directory.path)
        return _Pool(photos, _together(self._sources, self._position, self.workers), self.workers, context)


def _from_clean_process() -> BaseContext:
    # It has to import torch, which takes long.
    preload(__name__)
    return later()


def _together(sources: Sequence[Source], position: int, workers: int) -> list[range]:
    """Return the indices of the photos from a position on, in groups that a worker sends at once.

    Sending a small photo by itself takes long compared with decoding it.
    """
    # Each worker has some groups, so that all have work to the end.
    most = max(1, min(_MAX_TOGETHER, (len(sources) - position) // (4 * workers)))
    groups, first, size = [], position, 0
    for index in range(position, len(sources)):
        known = sources[index].size_bytes
        size_bytes = _BYTES_TOGETHER if known is None else known
        size += size_bytes
        if index > first and (index - first == most or size > _BYTES_TOGETHER):
            groups.append(range(first, index))
            first, size = index, size_bytes
    return [*groups, range(first, len(sources))]


def _unchanged(photos: list[PackedPhoto]) -> list[PackedPhoto]:
    return photos


class _Pool:
    """Workers from one start of the pool, their loader, and the thread that reads from it."""

    def __init__(self, photos: Photos, groups: Sequence[range], workers: int, context: BaseContext) -> None:
        self._table = photos.table
        self._received_pixels = ReceivedPixels(self._table.shared, self._table.in_flight.release)
        self._sources = photos.sources
        loader = DataLoader(
            photos,
            batch_sampler=groups,  # type: ignore[arg-type] # ranges take less memory than lists
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=_PREFETCH,
            multiprocessing_context=context,
            worker_init_fn=photos.start_worker,
        )
        others = {child.pid for child in multiprocessing.active_children()}
        iterator = _iterate(loader)
        self._processes = [p for p in multiprocessing.active_children() if p.pid not in others]
        self._received: queue.Queue[list[PackedPhoto]] = queue.Queue(maxsize=2)
        self._next: deque[PackedPhoto] = deque()
        self.waited = 0.0
        self._stopping = False
        self.broken = False
        threading.Thread(target=self._read, args=(iterator,), daemon=True).start()

    def _read(self, iterator: Iterator[list[PackedPhoto]]) -> None:
        # Only this thread refers to the loader's iterator, so that the iterator ends with it.
        try:
            for photos in iterator:
                while not self._stopping:
                    with contextlib.suppress(queue.Full):
                        self._received.put(photos, timeout=POLL_SECONDS)
                        break
                if self._stopping:
                    return
        except Exception:  # noqa: BLE001 - whatever breaks the loader, the pool is rebuilt
            self.broken = True

    def get(self, index: int) -> DecodedPhoto | None:
        """Return the next photo, which has this index, or None when it is not ready for `POLL_SECONDS`."""
        self._table.in_flight.want(index)
        if not self._next:
            try:
                self._next.extend(self._received.get(timeout=POLL_SECONDS))
            except queue.Empty:
                self.waited += POLL_SECONDS
                return None
            self.waited = 0.0
        return self._next.popleft().unpack(self._received_pixels)

    def lost(self, seconds: float) -> dict[int, Failure] | None:
        """Return index → failure of the photos of dead or overdue workers; None if all workers are well."""
        lost: dict[int, Failure] = {}
        well = True
        # When a job that was stopped (Ctrl-Z) continues, every worker is overdue.
        patient = self.waited >= min(seconds, _PATIENCE_SECONDS)
        by_pid = {process.pid: process for process in self._processes}
        held = {pid: worker for worker, pid in enumerate(self._table.pid)}
        for pid, process in by_pid.items():
            worker = held.get(pid)
            index = self._table.index[worker] if worker is not None else IDLE
            since = self._table.since[worker] if worker is not None else 0.0
            if not process.is_alive():
                well = False
                if index != IDLE:
                    lost[index] = death_of(process)
            elif index != IDLE and patient and time.monotonic() - since > seconds:
                well = False
                failure = hung(self._what_hangs(index), seconds)
                lost[index] = replace(failure, message=f"{failure.message}; --decode-timeout gives it longer")
        return None if well else lost

    def _what_hangs(self, index: int) -> str:
        return "its store or decoder" if store_urls.is_url(self._sources[index].path) else "its decoder"

    def stop(self) -> None:
        """End these workers at once, in the middle of a photo too."""
        self._stopping = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(timeout=POLL_SECONDS)


def _iterate(loader: DataLoader[Any]) -> Iterator[list[PackedPhoto]]:
    """Start the loader's workers; block signals until every worker has set its own handlers."""
    main = threading.current_thread() is threading.main_thread()
    masked = hasattr(signal, "pthread_sigmask")
    child_handler = signal.getsignal(signal.SIGCHLD) if masked and main else None
    if masked:
        # Workers inherit the mask of the thread that starts them.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return iter(loader)
    finally:
        if masked and main:
            signal.signal(signal.SIGCHLD, child_handler or signal.SIG_DFL)
        if masked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
