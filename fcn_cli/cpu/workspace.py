"""Memory that the kernels use again and again."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Named float32 buffers on the CPU, each as large as the largest use of it so far.

    For one thread at a time. Memory fresh from the operating system costs a page fault every few KiB, a good
    part of what a transform takes; these pages are touched once.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return an uninitialised contiguous tensor, valid until the name is taken again."""
        count = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count:
            # The old one goes first: both at once would be the peak.
            self._buffers.pop(name, None)
            del buffer
            buffer = self._buffers[name] = torch.empty(count)
        return buffer[:count].view(shape)

    def nbytes(self) -> int:
        """Return how much memory it holds."""
        return sum(buffer.nbytes for buffer in self._buffers.values())
