"""Inside a decoding worker process: decode one photo after another, and note in shared memory which one."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..common import resources
from ..common.errors import Failure
from . import decoder, workers
from .decoded_photo import DecodedPhoto, DecodeSettings, decode_photo, failed
from .discovery import Source
from .shared_pixels import LARGE_BYTES, InFile, InFlight, ReceivedPixels, Shared, SharedMemory, WorkerPixels

_PILLOW_BYTES_PER_PIXEL = 4

IDLE = -1
"""The index in the status table of a worker that holds no photo."""


class PackedPhoto(NamedTuple):
    """A photo as a worker sends it: without its pixels, and where they are, or themselves."""

    photo: DecodedPhoto
    parts: tuple[NDArray[np.uint8] | Shared | InFile, ...]

    @classmethod
    def of(cls, photo: DecodedPhoto, made: WorkerPixels) -> PackedPhoto:
        """Take out the pixels of a photo; `made` has made their arrays."""
        if photo.pixels is None:
            return cls(photo, ())
        parts = tuple(made.pass_on(part) for part in (photo.pixels, *photo.smaller))
        return cls(replace(photo, pixels=None, smaller=()), parts)

    @property
    def shared_bytes(self) -> int:
        """The size of the pixels that are not sent themselves."""
        return sum(math.prod(part.shape) for part in self.parts if isinstance(part, Shared | InFile))

    def unpack(self, received: ReceivedPixels) -> DecodedPhoto:
        """Return the photo with its pixels; those that were not sent themselves are read-only."""
        if not self.parts:
            return self.photo
        pixels = [received.pixels(part) if isinstance(part, Shared | InFile) else part for part in self.parts]
        return replace(self.photo, pixels=pixels[0], smaller=tuple(pixels[1:]))


class WorkerStatusTable:
    """Shared memory in which worker `w` notes its process id, and which photo it holds since when.

    `index` is the photo's place in the list of sources, or `IDLE`; `since` is a monotonic time in seconds.
    `in_flight` counts the bytes of shared pixels, and of large photos; `shared` has the pixels.
    """

    def __init__(self, context: BaseContext, workers: int) -> None:
        self.workers = workers
        self.pid = context.RawArray("q", workers)
        self.index = context.RawArray("q", [IDLE] * workers)
        self.since = context.RawArray("d", workers)
        self.in_flight = InFlight(context, workers)
        self.shared = SharedMemory(context, workers)


class Photos(Dataset[list[PackedPhoto]]):
    """The photos as a dataset of lists; those in `failed` are not decoded again.

    Pixels of large ones go into files in `directory`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: DecodeSettings,
        failed: dict[int, Failure],
        table: WorkerStatusTable,
        directory: str,
    ) -> None:
        self.sources = sources
        self.settings = settings
        self.failed = failed
        self.table = table
        self._directory = directory
        self._most_bytes = workers.most_bytes(settings.max_pixels, table.workers)
        # Of this process, once it is a worker.
        self._worker = 0
        self._made: WorkerPixels | None = None

    def __getitems__(self, indices: Sequence[int]) -> list[PackedPhoto]:
        """Decode some photos that follow each other."""
        return [self._decoded(index, indices[0]) for index in indices]

    def _decoded(self, index: int, first: int) -> PackedPhoto:
        """Decode one photo; the photos from `first` on are passed on together."""
        if index in self.failed:
            return PackedPhoto(failed(self.sources[index], self.failed[index]), ())
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
            photo = decode_photo(self.sources[index], self.settings, made.allocate, begin)
            packed = PackedPhoto.of(photo, made)
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
        self._made = WorkerPixels(self.table.shared, worker, self._directory)
        resources.lower_thread_priority()
        # What was there before the fork is never collected, and stays in memory that processes share.
        gc.freeze()
        workers.become_worker()
        decoder.prepare_worker(self.settings.max_pixels)
        resources.limit_memory(self._most_bytes)
