"""Pixels on their way from a decoding worker to the network: in temporary files, and bounded in number.

Both sides map the file, so that no process makes or holds a copy, and the system writes the pixels out where
memory is short. Those of small images travel through the workers' pipe.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import weakref
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Allocate = Callable[[tuple[int, int, int]], Pixels]
"""Returns an array of a shape (h, w, 3), to be filled."""

LARGE_BYTES = 32 << 20
"""A photo that decodes into so many bytes is large: workers wait before they begin one too many."""

FILE_BYTES = 256 << 10 if os.name == "posix" else LARGE_BYTES
"""Pixels of at least so many bytes are passed in a file.

That is less work than a pipe. Elsewhere a mapped file cannot be removed: it takes space until the end.
"""

MAX_BYTES = 1 << 30
"""Workers begin no large photo while others of so many bytes are being decoded, or wait for the network."""

_POLL_SECONDS = 0.02


def in_memory(shape: tuple[int, int, int]) -> Pixels:
    """Return an array of a shape in the memory of this process."""
    return np.empty(shape, np.uint8)


class FilePixels(NamedTuple):
    """Pixels in a file of their own."""

    path: str
    shape: tuple[int, ...]

    def map(self, released: Callable[[int], None]) -> Pixels:
        """Map the pixels and remove the file's name; `released` is told the bytes when they go."""
        pixels = np.memmap(self.path, np.uint8, "r", shape=self.shape)
        weakref.finalize(pixels, released, pixels.nbytes)
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        return pixels


class PixelFiles:
    """Makes the files of one worker, in a directory that someone else removes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def allocate(self, shape: tuple[int, int, int]) -> Pixels:
        """Return an array of a shape: in a file, if it is not small and the disk has room for it."""
        size = int(np.prod(shape))
        if size < FILE_BYTES:
            return in_memory(shape)
        path = None
        try:
            descriptor, path = tempfile.mkstemp(dir=self._directory)
            with open(descriptor, "r+b") as file:
                # Without it a full disk would be a signal (SIGBUS) instead of an error.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            return np.memmap(path, np.uint8, "r+", shape=shape)
        except OSError:
            if path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return in_memory(shape)


def as_file(pixels: Pixels) -> Pixels | FilePixels:
    """Return the file of pixels that are in one, else the pixels."""
    return FilePixels(str(pixels.filename), pixels.shape) if isinstance(pixels, np.memmap) else pixels


class InFlight:
    """Shared memory in which workers and the main process count the bytes of large photos.

    A worker waits before it begins a large photo while there are too many bytes, unless it is the photo that
    the main process waits for: so there is always progress.
    """

    def __init__(self, context: BaseContext, workers: int) -> None:
        # Each entry has one writer.
        self._claimed = context.RawArray("q", workers)
        self._released = context.RawValue("q", 0)
        self._wanted = context.RawValue("q", 0)

    def want(self, index: int) -> None:
        """Say which photo the main process waits for."""
        self._wanted.value = index

    def release(self, size: int) -> None:
        """Say, in the main process, that so many bytes are not needed any more."""
        self._released.value += size

    def claim(self, worker: int, index: int, size: int, alive: Callable[[], None]) -> None:
        """Wait until a worker may begin a photo of so many bytes; `alive` is called meanwhile."""
        self._claimed[worker] += size
        while sum(self._claimed) - self._released.value > MAX_BYTES and index > self._wanted.value:
            alive()
            time.sleep(_POLL_SECONDS)

    def give_back(self, worker: int, size: int) -> None:
        """Say, in a worker, that so many of the bytes it claimed are not passed on."""
        self._claimed[worker] -= size
