"""Shared memory for pixels on their way from a decoding worker to the network.

The memory is a file without a name that is on no disk (memfd_create(2)): no process makes or holds a copy,
nothing is written out, and it takes one descriptor. Each worker has a part of it, in units. It marks the
units that it fills; the main process takes the marks away when nobody has these pixels or a view of them.
Pixels of large images are in a file each. Those of small ones, of those that find no room, and all where a
system has no such memory, go through the workers' pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..common import resources

Pixels = NDArray[np.uint8]
"""One image: RGB, uint8, shape (h, w, 3)."""
Allocate = Callable[[tuple[int, int, int]], Pixels]
"""Returns an array of a shape (h, w, 3), to be filled."""

SHARED_BYTES = 256 << 10
"""Pixels of fewer bytes go through the pipe: that is no more work."""

LARGE_BYTES = 32 << 20
"""Pixels of so many bytes are in a file. An image that decodes into so many bytes is large: workers wait
before they begin one too many."""

MOST_SHARED_BYTES = 1 << 30
"""All workers together have at most so much memory for pixels, and an eighth of what is available."""

MAX_BYTES = 1 << 30
"""Workers begin no large image while others of so many bytes are being decoded, or wait for the network."""

LOOK_AHEAD_BYTES = 256 << 20
"""How many bytes of pixels may wait for others of their shape."""

_UNIT = 64 << 10
_POLL_SECONDS = 0.02


def most_shared_bytes() -> int:
    """Return the memory that all workers together may have for pixels now."""
    available = resources.available_memory()
    return MOST_SHARED_BYTES if available is None else min(MOST_SHARED_BYTES, available // 8)


def in_memory(shape: tuple[int, int, int]) -> Pixels:
    """Return an array of a shape in the memory of this process."""
    return np.empty(shape, np.uint8)


class Shared(NamedTuple):
    """Pixels in the shared memory, from a unit on."""

    unit: int
    shape: tuple[int, ...]


class InFile(NamedTuple):
    """Pixels in a file of their own."""

    path: str
    shape: tuple[int, ...]


class SharedMemory:
    """The memory and its marks, made by the main process before its workers start.

    `context` is how they start: forked, they have it already; else it is sent to them. Each has `each_bytes`.
    """

    def __init__(self, context: BaseContext, workers: int, each_bytes: int) -> None:
        self.units = each_bytes // _UNIT
        self.marks: ctypes.Array[ctypes.c_byte] | None = None
        self.descriptor: int | None = None
        self.memory: Pixels | None = None
        # The pipe is left where there is no such call, or a limit on sizes of files or of the address space.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self.marks = context.RawArray("b", max(1, workers * self.units))
            descriptor = os.memfd_create("fcn-pixels")
            weakref.finalize(self, os.close, descriptor)
            os.ftruncate(descriptor, workers * self.units * _UNIT)
            self.memory = np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
            self.descriptor = descriptor

    def __getstate__(self) -> dict[str, Any]:
        sent = reduction.DupFd(self.descriptor) if self.descriptor is not None else None
        return {**self.__dict__, "descriptor": sent, "memory": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.descriptor is not None:
            self.descriptor = state["descriptor"].detach()
            weakref.finalize(self, os.close, self.descriptor)


class WorkerPixels:
    """A worker's end: makes arrays, and says where what is in them can be found.

    Files are made in `directory`, which someone else removes. Pixels of `most_bytes` and more are in files
    even if there is room for them in the memory, which stays filled.
    """

    def __init__(self, shared: SharedMemory, worker: int, directory: str, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._first = worker * shared.units
        self._units = shared.units
        self._backed = 0
        self._filled: list[tuple[Pixels, Shared | InFile]] = []
        self._memory: mmap.mmap | None = None
        self._shared = shared
        if shared.descriptor is not None:
            # Without room in the address space, the pipe is left.
            with contextlib.suppress(OSError):
                offset, size = self._first * _UNIT, self._units * _UNIT
                self._memory = mmap.mmap(shared.descriptor, size, offset=offset)

    def allocate(self, shape: tuple[int, int, int]) -> Pixels:
        """Return an array of a shape: shared if it is not small and there is room for it."""
        size = math.prod(shape)
        made: tuple[Pixels, Shared | InFile] | None = None
        if SHARED_BYTES <= size < self._most_bytes:
            made = self._in_shared_memory(shape, size)
        if made is None and size >= LARGE_BYTES:
            made = self._in_file(shape, size)
        if made is None:
            return in_memory(shape)
        self._filled.append(made)
        return made[0]

    def pass_on(self, pixels: Pixels) -> Pixels | Shared | InFile:
        """Return what to send for an array of `allocate`: where it is, or itself."""
        for number, (array, place) in enumerate(self._filled):
            if array is pixels:
                del self._filled[number]
                return place
        return pixels

    def take_back(self) -> None:
        """Free the arrays that are not passed on: the image failed."""
        for _, place in self._filled:
            if isinstance(place, InFile):
                _remove(place.path)
            else:
                _mark(self._shared, place, 0)
        self._filled.clear()

    def _in_shared_memory(self, shape: tuple[int, ...], size: int) -> tuple[Pixels, Shared] | None:
        if self._memory is None:
            return None
        count = _units(size)
        # The first that fit: so what was used before is used again, and the rest takes no memory.
        marks = ctypes.string_at(_address(self._shared) + self._first, self._units)
        unit = marks.find(bytes(count))
        if unit < 0 or not self._is_backed(unit + count):
            return None
        place = Shared(self._first + unit, shape)
        _mark(self._shared, place, 1)
        return np.frombuffer(self._memory, np.uint8, size, unit * _UNIT).reshape(shape), place

    def _is_backed(self, units: int) -> bool:
        """Say whether there is memory for the first units; where it lacks, writing would be a SIGBUS."""
        if units > self._backed:
            assert self._shared.descriptor is not None  # noqa: S101 - it is mapped
            start, size = (self._first + self._backed) * _UNIT, (units - self._backed) * _UNIT
            try:
                os.posix_fallocate(self._shared.descriptor, start, size)
            except OSError:
                return False
            self._backed = units
        return True

    def _in_file(self, shape: tuple[int, ...], size: int) -> tuple[Pixels, InFile] | None:
        path = None
        try:
            descriptor, path = tempfile.mkstemp(prefix="pixels-", dir=self._directory)
            with open(descriptor, "r+b") as file:
                # As with memory: a full disk is to be an error and no signal.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                memory = mmap.mmap(file.fileno(), size)
        except (OSError, ValueError):
            if path is not None:
                _remove(path)
            return None
        return np.frombuffer(memory, np.uint8).reshape(shape), InFile(path, shape)


class _Lent:
    """Lends memory to an array: it goes when the array and all views of it are gone."""

    def __init__(self, memory: Pixels, shape: tuple[int, ...]) -> None:
        self.memory = memory
        self.__array_interface__ = {**memory.__array_interface__, "shape": shape}


def leave_rows(pixels: Pixels, rows: int) -> None:
    """Leave the first rows of pixels to the file that they are in, if they are: reading brings them back."""
    owner: object = pixels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    mapped: object = owner.memory.base if isinstance(owner, _Lent) else None
    size = rows * pixels.shape[1] * pixels.shape[2] // mmap.PAGESIZE * mmap.PAGESIZE
    if size and isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED, 0, size)


def _not_counted(size: int) -> None:
    """Be told, as `ReceivedPixels` tells, of bytes that nobody counts."""


class ReceivedPixels:
    """The main process's end; `released` is told, in any thread, the bytes of pixels that are gone."""

    def __init__(self, shared: SharedMemory, released: Callable[[int], None] = _not_counted) -> None:
        self._shared = shared
        self._released = released

    def pixels(self, place: Shared | InFile) -> Pixels:
        """Return the pixels of a place, read-only; it is free when they, and all views of them, are gone."""
        if isinstance(place, InFile):
            lent = _Lent(np.memmap(place.path, np.uint8, "r"), place.shape)
            # Mapped, it needs no name; so a run that is killed leaves few files.
            _remove(place.path)
        else:
            assert self._shared.memory is not None  # noqa: S101 - a worker has filled it
            lent = _Lent(self._shared.memory[place.unit * _UNIT :], place.shape)
        weakref.finalize(lent, self._free, place)
        return np.asarray(lent)

    def _free(self, place: Shared | InFile) -> None:
        if isinstance(place, Shared):
            _mark(self._shared, place, 0)
        self._released(math.prod(place.shape))


def _units(size: int) -> int:
    return -(-size // _UNIT)


def _mark(shared: SharedMemory, place: Shared, mark: int) -> None:
    count = _units(math.prod(place.shape))
    ctypes.memset(_address(shared) + place.unit, mark, count)


def _address(shared: SharedMemory) -> int:
    assert shared.marks is not None  # noqa: S101 - there is the memory that they mark
    return ctypes.addressof(shared.marks)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class InFlight:
    """Shared memory in which workers and the main process count the bytes of large images.

    A worker waits before it begins a large image while there are too many bytes, unless it is the image that
    the main process waits for: so there is always progress.
    """

    def __init__(self, context: BaseContext, workers: int) -> None:
        # Each entry has one writer.
        self._claimed = context.RawArray("q", workers)
        self._released = context.RawValue("q", 0)
        self._wanted = context.RawValue("q", 0)
        # Pixels may go in any thread, in the middle of anything.
        self._going: deque[int] = deque()

    def want(self, index: int) -> None:
        """Say which image the main process waits for; one thread does."""
        while self._going:
            self._released.value += self._going.popleft()
        self._wanted.value = index

    def release(self, size: int) -> None:
        """Say, in any thread of the main process, that so many bytes are not needed any more."""
        self._going.append(size)

    def claim(self, worker: int, index: int, size: int, alive: Callable[[], None]) -> None:
        """Wait until a worker may begin an image of so many bytes; `alive` is called meanwhile."""
        self._claimed[worker] += size
        while sum(self._claimed) - self._released.value > MAX_BYTES and index > self._wanted.value:
            alive()
            time.sleep(_POLL_SECONDS)

    def give_back(self, worker: int, size: int) -> None:
        """Say, in a worker, that so many of the bytes it claimed are not passed on."""
        self._claimed[worker] -= size
