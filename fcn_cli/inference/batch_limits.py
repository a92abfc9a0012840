"""The batch size for each image shape, limited by the free memory."""

from __future__ import annotations

import torch

from ..common import resources
from .execution import ExecutionConfig

Shape = tuple[int, ...]
"""Height and width in pixels, then any further dimensions."""

# Bytes that upsampling and the libraries need on a GPU at any batch size.
_RESERVED_ON_CUDA = 1 << 30


class BatchLimits:
    """Computes the largest batch of a shape that fits into the memory that is free now.

    After a batch has run out of memory, later batches of its shape are smaller; other shapes keep their size.

    Parameters
    ----------
    execution
        Where the network runs; its `batch_size` is the maximum.
    bytes_per_pixel
        Peak memory of a forward pass in float32, in bytes per pixel of input.
    """

    def __init__(self, execution: ExecutionConfig, bytes_per_pixel: int) -> None:
        self._execution = execution
        half = execution.precision in {"bf16", "fp16"} and execution.device.type == "cuda"
        self._bytes_per_pixel = bytes_per_pixel / 2 if half else bytes_per_pixel
        self._reduced: dict[Shape, int] = {}

    @property
    def maximum(self) -> int:
        """The largest batch, whatever the memory."""
        return self._execution.batch_size

    def images(self, shape: Shape) -> int:
        """Return the number of images of this shape for one batch.

        It is 0 where a CPU has too little memory for one image: Linux would grant the memory, and kill the
        process when it is used. On a GPU it is at least 1, because a failed allocation there does no harm.
        """
        maximum = self._reduced.get(shape, self._execution.batch_size)
        free = self._free_memory()
        if free is None:
            return maximum
        room = int(free // (shape[0] * shape[1] * self._bytes_per_pixel))
        if self._execution.device.type == "cuda":
            return max(1, min(maximum, room))
        # Our kernels take the images of a batch one by one.
        return min(maximum, room) if self._execution.kernels == "torch" or room < 1 else maximum

    def did_not_fit(self, shape: Shape, count: int) -> None:
        """Halve the batch size of this shape after `count` images, at least 2, ran out of memory."""
        self._reduced[shape] = count // 2

    def _free_memory(self) -> int | None:
        """Return the bytes that a forward pass may use, or None where that is unknown."""
        if self._execution.device.type != "cuda":
            return resources.available_memory()
        device = self._execution.device
        free = torch.cuda.mem_get_info(device)[0]
        # Memory that torch's allocator caches is free for this process, though not for others.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached - _RESERVED_ON_CUDA
