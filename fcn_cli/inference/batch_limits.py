"""How many images of a shape go through the network together: as many as the memory has room for."""

from __future__ import annotations

import torch

from ..common import resources
from .execution import ExecutionConfig

Shape = tuple[int, ...]
"""Height and width in pixels come first."""

# What upsampling and the libraries take on a GPU, whatever the batch.
_RESERVED_ON_CUDA = 1 << 30


class BatchLimits:
    """The bound of a batch, by its pixels, from the memory that is free just now.

    A shape that did not fit all the same goes in smaller batches from then on; other shapes do not.

    Parameters
    ----------
    execution
        Where the network runs; its `batch_size` is never exceeded.
    bytes_per_pixel
        What a forward pass takes at its peak in float32, per pixel of input.
    """

    def __init__(self, execution: ExecutionConfig, bytes_per_pixel: int) -> None:
        self._plan = execution
        half = execution.precision in {"bf16", "fp16"} and execution.device.type == "cuda"
        self._bytes_per_pixel = bytes_per_pixel / 2 if half else bytes_per_pixel
        self._learned: dict[Shape, int] = {}

    def images(self, shape: Shape) -> int:
        """Return how many images of this shape to take at once.

        0 where a CPU has not enough memory for one: Linux would grant it, and kill the process when it is
        used. A GPU is always asked for one, because it refuses without harm.
        """
        most = self._learned.get(shape, self._plan.batch_size)
        free = self._free()
        if free is None:
            return most
        room = int(free // (shape[0] * shape[1] * self._bytes_per_pixel))
        if self._plan.device.type == "cuda":
            return max(1, min(most, room))
        # Our kernels take the images of a batch one by one.
        return min(most, room) if self._plan.kernels == "torch" or not room else most

    def did_not_fit(self, shape: Shape, count: int) -> None:
        """Learn that so many images of this shape, at least 2, were too many."""
        self._learned[shape] = count // 2

    def _free(self) -> int | None:
        """Return the bytes that a forward pass may take, or None where it cannot be told."""
        if self._plan.device.type != "cuda":
            return resources.available_memory()
        device = self._plan.device
        free = torch.cuda.mem_get_info(device)[0]
        # What torch's allocator keeps is free for us, though not for others.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept - _RESERVED_ON_CUDA
