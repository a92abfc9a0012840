"""Decoding workers: a torch DataLoader that survives workers that crash or hang.

The loader yields decoded, resized images in input order, small ones some at a time. Each worker notes in
shared memory which image it holds. When a decoder bug or the kernel kills a worker, or a worker hangs,
exactly that image fails; then the pool is rebuilt for the rest.

Pixels travel in shared memory (`shared_pixels`), those of small images through the workers' pipe; none
travel through /dev/shm, which may be too small in a container. A worker that dies in the middle of a write
would block the reader of that pipe for ever. So a thread reads it, which can be abandoned. torch's SIGCHLD
handler, which raises wherever the main thread happens to be, is disabled.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from ..common import resources, store_urls
from ..common.errors import Failure, FcnError
from ..common.swept_directory import SweptDirectory
from . import decoder
from .decoder import DecodedImage, DecodeSettings, decode_source
from .discovery import Source
from .shared_pixels import (
    LARGE_BYTES,
    InFile,
    InFlight,
    Pixels,
    ReceivedPixels,
    Shared,
    SharedMemory,
    WorkerPixels,
    most_shared_bytes,
)
from .workers import (
    PROCESS_NAME,
    become_worker,
    death_of,
    first,
    hung,
    later,
    most_bytes,
    preload,
    starting,
)

POLL_SECONDS = 0.5
"""How often a waiting caller regains control, and how soon a dead worker is noticed."""

_PREFETCH = 2
_MAX_TOGETHER = 8
_BYTES_TOGETHER = 1 << 20
_MAX_FRUITLESS_REBUILDS = 3
_PATIENCE_SECONDS = 5.0

_PILLOW_BYTES_PER_PIXEL = 4

IDLE = -1
"""The index in the status table of a worker that holds no image."""


class DecodePool:
    """Decodes images in worker processes, in order.

    Iterating yields a `DecodedImage` per source, in input order, and None whenever no image is ready for
    `POLL_SECONDS`, so that the caller can do other work.

    Parameters
    ----------
    sources
        The images.
    settings
        How to decode them.
    workers
        The number of processes; 0 decodes in this process, unprotected from decoders that crash or hang.
    clean
        Start the workers from a clean process: this one has threads or CUDA, so it must not fork.

    Raises
    ------
    FcnError
        The workers die repeatedly without having begun an image.
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
        # Where pixels of large images wait for the network.
        self._directory = SweptDirectory()
        self._pool = self._start(_from_clean_process() if clean else first()) if self.workers else None

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[DecodedImage | None]:
        while self._position < len(self._sources):
            image = self._next()
            if image is not None:
                self._position += 1
                self._fruitless = 0
            yield image
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None
        self._directory.remove()

    def _next(self) -> DecodedImage | None:
        if self._pool is None:
            return decode_source(self._sources[self._position], self._settings)
        decoded = self._pool.get(self._position)
        if decoded is None:
            self._rebuild_if_lost(self._pool)
        return decoded

    def _rebuild_if_lost(self, pool: _Pool) -> None:
        """Find out why no image is ready; fail the image of a dead or stuck worker, and rebuild the pool."""
        lost = pool.lost(self._settings.options.timeout)
        stalled = pool.waited > _MAX_TOGETHER * self._settings.options.timeout + 10 * POLL_SECONDS
        if lost is None and not stalled and not pool.broken:
            return
        pool.stop()
        if lost:
            self._failed.update(lost)
            self._fruitless = 0
        else:
            self._fruitless += 1
            if self._fruitless > _MAX_FRUITLESS_REBUILDS:
                raise FcnError("the decoding workers die before they decode anything; try --workers 0")
        self._pool = self._start(_from_clean_process())

    def _start(self, context: BaseContext) -> _Pool:
        table = _StatusTable(context, self.workers)
        images = _Images(self._sources, self._settings, dict(self._failed), table, self._directory.path)
        return _Pool(images, _together(self._sources, self._position, self.workers), self.workers, context)


def _from_clean_process() -> BaseContext:
    # It has to import torch, which takes long.
    preload(__name__)
    return later()


def _together(sources: Sequence[Source], position: int, workers: int) -> list[range]:
    """Return the indices of the images from a position on, in groups that a worker sends at once.

    Sending a small image by itself takes long compared with decoding it.
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


def _unchanged(images: list[_Sent]) -> list[_Sent]:
    return images


class _Pool:
    """Workers from one start of the pool, their loader, and the thread that reads from it."""

    def __init__(self, images: _Images, groups: Sequence[range], workers: int, context: BaseContext) -> None:
        self._table = images.table
        self._pixels = ReceivedPixels(self._table.shared, self._table.in_flight.release)
        self._sources = images.sources
        others = {child.pid for child in multiprocessing.active_children()}
        with warnings.catch_warnings():
            # Of more workers than CPUs, which is the user's choice, and of a fork beside threads.
            warnings.simplefilter("ignore")
            loader = DataLoader(
                images,
                batch_sampler=groups,  # type: ignore[arg-type] # ranges take less memory than lists
                num_workers=workers,
                collate_fn=_unchanged,
                prefetch_factor=_PREFETCH,
                multiprocessing_context=context,
                worker_init_fn=images.start_worker,
            )
            iterator = _iterate(loader)
        # Another thread may start a process for calls at this moment.
        self._processes = [
            process
            for process in multiprocessing.active_children()
            if process.pid not in others and process.name != PROCESS_NAME
        ]
        self._received: queue.Queue[list[_Sent]] = queue.Queue(maxsize=2)
        self._next: deque[_Sent] = deque()
        self.waited = 0.0
        self._stopping = False
        self.broken = False
        threading.Thread(target=self._read, args=(iterator,), daemon=True).start()

    def _read(self, iterator: Iterator[list[_Sent]]) -> None:
        # Only this thread refers to the loader's iterator, so that the iterator ends with it.
        try:
            for images in iterator:
                while not self._stopping:
                    with contextlib.suppress(queue.Full):
                        self._received.put(images, timeout=POLL_SECONDS)
                        break
                if self._stopping:
                    return
        except Exception:  # noqa: BLE001 - whatever breaks the loader, the pool is rebuilt
            self.broken = True

    def get(self, index: int) -> DecodedImage | None:
        """Return the next image, which has this index, or None when it is not ready for `POLL_SECONDS`."""
        self._table.in_flight.want(index)
        if not self._next:
            try:
                self._next.extend(self._received.get(timeout=POLL_SECONDS))
            except queue.Empty:
                self.waited += POLL_SECONDS
                return None
            self.waited = 0.0
        return self._next.popleft().received(self._pixels)

    def lost(self, seconds: float) -> dict[int, Failure] | None:
        """Return index → failure of the images of dead or overdue workers; None if all workers are well."""
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
                lost[index] = replace(
                    failure, message=f"{failure.message}; a longer --decode-timeout may help"
                )
        return None if well else lost

    def _what_hangs(self, index: int) -> str:
        return "the store or the decoder" if store_urls.is_url(self._sources[index].path) else "the decoder"

    def stop(self) -> None:
        """End these workers at once, in the middle of an image too."""
        self._stopping = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(timeout=POLL_SECONDS)


def _iterate(loader: DataLoader[Any]) -> Iterator[list[_Sent]]:
    """Start the loader's workers; torch's handler of SIGCHLD, which it sets in the main thread, goes."""
    has_handler = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if has_handler else None
    try:
        with starting():
            return iter(loader)
    except OSError as error:
        reason = error.strerror or error
        raise FcnError(f"cannot start decoding workers ({reason}); fewer --workers may help") from None
    finally:
        if has_handler:
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


class _Sent(NamedTuple):
    """An image as a worker sends it: without its pixels, and where they are, or themselves."""

    image: DecodedImage
    parts: tuple[Pixels | Shared | InFile, ...] = ()

    @classmethod
    def of(cls, image: DecodedImage, made: WorkerPixels) -> _Sent:
        """Take out the pixels of an image; `made` has made their arrays."""
        if image.pixels is None:
            return cls(image)
        parts = tuple(made.pass_on(part) for part in (image.pixels, *image.smaller))
        return cls(replace(image, pixels=None, smaller=()), parts)

    @property
    def shared_bytes(self) -> int:
        """The size of the pixels that are not sent themselves."""
        return sum(math.prod(part.shape) for part in self.parts if isinstance(part, Shared | InFile))

    def received(self, pixels: ReceivedPixels) -> DecodedImage:
        """Return the image with its pixels; those that were not sent themselves are read-only."""
        if not self.parts:
            return self.image
        first, *smaller = (
            pixels.pixels(part) if isinstance(part, Shared | InFile) else part for part in self.parts
        )
        return replace(self.image, pixels=first, smaller=tuple(smaller))


class _StatusTable:
    """Shared memory in which worker `w` notes its process id, and which image it holds since when.

    `index` is the image's place in the list of sources, or `IDLE`; `since` is a monotonic time in seconds.
    `in_flight` counts the bytes of shared pixels, and of large images; `shared` has the pixels.
    """

    def __init__(self, context: BaseContext, workers: int) -> None:
        self.workers = workers
        self.pid = context.RawArray("q", workers)
        self.index = context.RawArray("q", [IDLE] * workers)
        self.since = context.RawArray("d", workers)
        self.in_flight = InFlight(context, workers)
        self.shared = SharedMemory(context, workers, most_shared_bytes() // workers)


class _Images(Dataset[list[_Sent]]):
    """The images as a dataset of lists; those in `failed` are not decoded again.

    Pixels of large ones go into files in `directory`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: DecodeSettings,
        failed: dict[int, Failure],
        table: _StatusTable,
        directory: str,
    ) -> None:
        self.sources = sources
        self.settings = settings
        self.failed = failed
        self.table = table
        self._directory = directory
        self._most_bytes = most_bytes(settings.options.max_pixels, table.workers)
        # Of this process, once it is a worker.
        self._worker = 0
        self._made: WorkerPixels | None = None

    def __getitems__(self, indices: Sequence[int]) -> list[_Sent]:
        """Decode some images that follow each other."""
        return [self._decoded(index, indices[0]) for index in indices]

    def _decoded(self, index: int, first: int) -> _Sent:
        """Decode one image; the images from `first` on are passed on together."""
        if index in self.failed:
            return _Sent(DecodedImage.failed(self.sources[index], self.failed[index]))
        worker, made, claimed = self._worker, self._made, 0
        assert made is not None  # noqa: S101 - `start_worker` has made it

        def alive() -> None:
            self.table.since[worker] = time.monotonic()

        def begin(pixels: int) -> None:
            nonlocal claimed
            # What was fetched took its own time.
            alive()
            size = pixels * _PILLOW_BYTES_PER_PIXEL
            if size >= LARGE_BYTES:
                claimed = size
                # Whoever waits for the first of them waits for this one too.
                self.table.in_flight.claim(worker, first, size, alive)
                alive()

        alive()
        self.table.index[worker] = index
        passed_on = 0
        try:
            image = decode_source(self.sources[index], self.settings, made.allocate, begin)
            packed = _Sent.of(image, made)
            passed_on = packed.shared_bytes
            return packed
        finally:
            made.take_back()
            self.table.in_flight.give_back(worker, claimed - passed_on)
            self.table.index[worker] = IDLE

    def start_worker(self, worker: int) -> None:
        """Make this process worker number `worker`."""
        self._worker = worker
        self.table.pid[worker] = os.getpid()
        self._made = WorkerPixels(self.table.shared, worker, self._directory, LARGE_BYTES)
        resources.lower_thread_priority()
        # What was there before the fork is never collected, and stays in memory that processes share.
        gc.freeze()
        become_worker()
        decoder.prepare_worker(self.settings.options.max_pixels)
        resources.limit_memory(self._most_bytes)
