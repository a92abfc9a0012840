"""Memory that the kernels reuse."""

from __future__ import annotations

import ctypes
import math
import mmap

import torch
from torch import Tensor


class Workspace:
    """Named buffers on the CPU, each as large as the largest use of it so far.

    Only one thread may use it at a time. Reuse avoids page faults: on fresh memory, one every few KiB takes a
    good part of a transform's time.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._taken: dict[str, Tensor] = {}
        self._zeroed: dict[str, tuple[int, ...]] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return an uninitialised contiguous tensor, valid until the name is taken again.

        `dtype` is float32 or bfloat16.
        """
        latest = self._taken.get(name)
        if latest is not None and latest.shape == shape and latest.dtype == dtype:
            return latest
        numbers = math.prod(shape)
        # Buffers are counted in float32.
        count = -(-numbers * dtype.itemsize // torch.float32.itemsize)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count:
            # Free the old buffer first: both together would be the peak.
            for held in (self._buffers, self._taken):
                held.pop(name, None)
            del buffer, latest
            buffer = self._buffers[name] = torch.empty(count)
        self._taken[name] = buffer[:count].view(dtype)[:numbers].view(shape)
        return self._taken[name]

    def take_zeroed(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the same filled with zeros, or, if it had this shape the last time, as it was left then.

        No other use may be made of the name.
        """
        buffer = self.take(name, *shape, dtype=dtype)
        if self._zeroed.get(name) != shape:
            self._zeroed[name] = shape
            prefer_huge_pages(buffer).zero_()
        return buffer

    def nbytes(self) -> int:
        """Return the size of all buffers in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())


def prefer_huge_pages(memory: Tensor) -> Tensor:
    """Ask Linux for large pages in memory that nothing was written to yet, and return it.

    Far fewer addresses have to be translated then. Elsewhere nothing happens.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return memory
    page = mmap.PAGESIZE
    start = -(-memory.data_ptr() // page) * page
    length = (memory.data_ptr() + memory.nbytes - start) // page * page
    if length > 0:
        # It may fail where the system has no such pages, which changes nothing.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return memory
