"""Pixels on their way from a decoding worker to the network, in temporary files.

Both sides map the files, so that no process makes or holds a copy, and the system writes the pixels out where
memory is short. A file whose pixels are gone is used for the next photo, as making one is most of the work.
Pixels of small images travel through the workers' pipe.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .in_flight import LARGE_BYTES

Pixels = NDArray[np.uint8]
Allocate = Callable[[tuple[int, int, int]], Pixels]
"""Returns an array of a shape (h, w, 3), to be filled."""

FILE_BYTES = 256 << 10 if os.name == "posix" else LARGE_BYTES
"""Workers pass pixels of at least so many bytes in a file.

That is less work than a pipe. Elsewhere a mapped file cannot be removed: it takes space until the end.
"""

KEPT_BYTES = 512 << 20
"""The files that all workers keep to use them again have at most so many bytes."""

_FILES_PER_WORKER = 128
_GRAIN = 256 << 10
_ONCE = -1


def in_memory(shape: tuple[int, int, int]) -> Pixels:
    """Return an array of a shape in the memory of this process."""
    return np.empty(shape, np.uint8)


class FilePixels(NamedTuple):
    """Pixels at the beginning of a file. Its number is its place in `InUse`, or -1: it is used once."""

    path: str
    number: int
    shape: tuple[int, ...]


class InUse:
    """Shared memory: which files have pixels. A worker sets a mark, and the main process takes it away."""

    def __init__(self, context: BaseContext, workers: int) -> None:
        self._marks = context.RawArray("b", workers * _FILES_PER_WORKER)
        self.workers = workers

    def __getitem__(self, number: int) -> bool:
        return bool(self._marks[number])

    def __setitem__(self, number: int, value: bool) -> None:
        if number != _ONCE:
            self._marks[number] = value

    @staticmethod
    def of_worker(worker: int) -> range:
        """Return the numbers of a worker's files."""
        return range(worker * _FILES_PER_WORKER, (worker + 1) * _FILES_PER_WORKER)


@dataclass(slots=True)
class _Made:
    """A file that is mapped for writing."""

    path: str
    number: int
    memory: mmap.mmap

    @classmethod
    def of_size(cls, directory: str, number: int, size: int, prefix: str = "") -> _Made | None:
        """Make a file of a size in bytes; return None where the disk has no room for it."""
        path = None
        try:
            descriptor, path = tempfile.mkstemp(prefix=f"pixels-{prefix}", dir=directory)
            with open(descriptor, "r+b") as file:
                # Without it a full disk would be a signal (SIGBUS) instead of an error.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                return cls(path, number, mmap.mmap(file.fileno(), size))
        except (OSError, ValueError):
            if path is not None:
                _remove(path)
            return None

    def array(self, shape: tuple[int, int, int]) -> Pixels:
        """Return an array of a shape at the beginning of the file."""
        return np.frombuffer(self.memory, np.uint8, math.prod(shape)).reshape(shape)


class LargePixelFiles:
    """Makes a file for each photo that is large, in a directory that someone else removes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._smallest = LARGE_BYTES
        self._filled: list[tuple[Pixels, _Made]] = []

    def allocate(self, shape: tuple[int, int, int]) -> Pixels:
        """Return an array of a shape: in a file, if it is not small and the disk has room for it."""
        size = math.prod(shape)
        file = self._file(size) if size >= self._smallest else None
        if file is None:
            return in_memory(shape)
        pixels = file.array(shape)
        self._filled.append((pixels, file))
        return pixels

    def pass_on(self, pixels: Pixels) -> Pixels | FilePixels:
        """Return what to send for an array of `allocate`: its file, or itself."""
        for place, (array, file) in enumerate(self._filled):
            if array is pixels:
                del self._filled[place]
                return FilePixels(file.path, file.number, pixels.shape)
        return pixels

    def take_back(self) -> None:
        """Free the files of arrays that are not passed on: the photo failed."""
        for _, file in self._filled:
            self._free(file)
        self._filled.clear()

    def _file(self, size: int) -> _Made | None:
        return _Made.of_size(self._directory, _ONCE, size)

    def _free(self, file: _Made) -> None:
        _remove(file.path)


class PixelFiles(LargePixelFiles):
    """Makes the files of one worker, and uses them again once the main process has freed them.

    Parameters
    ----------
    directory
        Where they are; someone else removes it.
    in_use
        Says which of them are.
    worker
        The worker's number.
    """

    def __init__(self, directory: str, in_use: InUse, worker: int) -> None:
        super().__init__(directory)
        self._smallest = FILE_BYTES
        self._in_use = in_use
        self._numbers = in_use.of_worker(worker)
        self._max_bytes = KEPT_BYTES // in_use.workers
        self._kept: dict[int, _Made] = {}
        self._made = 0

    def _file(self, size: int) -> _Made | None:
        free = [file for number, file in self._kept.items() if not self._in_use[number]]
        fitting = [file for file in free if len(file.memory) >= size]
        file = min(fitting, key=lambda file: len(file.memory)) if fitting else self._new(size, free)
        if file is None:
            return super()._file(size)
        self._in_use[file.number] = True
        return file

    def _new(self, size: int, too_small: list[_Made]) -> _Made | None:
        """Make a file to keep, in place of some that are too small if there would be too many."""
        size = -(-size // _GRAIN) * _GRAIN
        kept = sum(len(file.memory) for file in self._kept.values())
        if size > self._max_bytes:
            return None
        while kept + size > self._max_bytes or len(self._kept) == len(self._numbers):
            if not too_small:
                return None
            dropped = too_small.pop()
            del self._kept[dropped.number]
            kept -= len(dropped.memory)
            # The main process removes the name when it maps the file, which it may never have done.
            _remove(dropped.path)
        number = next(number for number in self._numbers if number not in self._kept)
        # No path may come twice: by it the main process knows a new file.
        self._made += 1
        file = _Made.of_size(self._directory, number, size, f"{self._made}-")
        if file is not None:
            self._kept[number] = file
        return file

    def _free(self, file: _Made) -> None:
        if file.number == _ONCE:
            super()._free(file)
        self._in_use[file.number] = False


class _Lent:
    """Lends a mapped file's memory to an array: it goes when the array and all views of it are gone."""

    def __init__(self, memory: Pixels, shape: tuple[int, ...]) -> None:
        self.memory = memory
        self.__array_interface__ = {**memory.__array_interface__, "shape": shape}


class MappedFiles:
    """The files as the main process has them: each is mapped when its first pixels come.

    `released` is told, in any thread, the bytes of pixels that are gone.
    """

    def __init__(self, in_use: InUse | None, released: Callable[[int], None]) -> None:
        self._in_use = in_use
        self._released = released
        self._kept: dict[int, tuple[str, Pixels]] = {}

    def pixels(self, file: FilePixels) -> Pixels:
        """Return the pixels of a file, read-only; it is free when they, and all views of them, are gone."""
        path, memory = self._kept.get(file.number, ("", None))
        if memory is None or path != file.path:
            memory = np.memmap(file.path, np.uint8, "r")
            # Mapped, it needs no name; so a run that is killed leaves few files.
            _remove(file.path)
            if file.number != _ONCE:
                self._kept[file.number] = file.path, memory
        lent = _Lent(memory, file.shape)
        weakref.finalize(lent, self._free, file.number, math.prod(file.shape))
        return np.asarray(lent)

    def _free(self, number: int, size: int) -> None:
        if self._in_use is not None:
            self._in_use[number] = False
        self._released(size)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
