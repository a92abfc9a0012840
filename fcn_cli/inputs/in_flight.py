"""How many bytes of pixels are between the decoding workers and the network, so that few large photos are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from multiprocessing.context import BaseContext

LARGE_BYTES = 32 << 20
"""A photo that decodes into so many bytes is large: workers wait before they begin one too many."""

MAX_BYTES = 1 << 30
"""Workers begin no large photo while others of so many bytes are being decoded, or wait for the network."""

_POLL_SECONDS = 0.02


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
        # Pixels may go in any thread, in the middle of anything.
        self._going: deque[int] = deque()

    def want(self, index: int) -> None:
        """Say which photo the main process waits for; one thread does."""
        while self._going:
            self._released.value += self._going.popleft()
        self._wanted.value = index

    def release(self, size: int) -> None:
        """Say, in any thread of the main process, that so many bytes are not needed any more."""
        self._going.append(size)

    def claim(self, worker: int, index: int, size: int, alive: Callable[[], None]) -> None:
        """Wait until a worker may begin a photo of so many bytes; `alive` is called meanwhile."""
        self._claimed[worker] += size
        while sum(self._claimed) - self._released.value > MAX_BYTES and index > self._wanted.value:
            alive()
            time.sleep(_POLL_SECONDS)

    def give_back(self, worker: int, size: int) -> None:
        """Say, in a worker, that so many of the bytes it claimed are not passed on."""
        self._claimed[worker] -= size
