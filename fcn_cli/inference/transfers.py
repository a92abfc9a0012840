"""Copies to and from a GPU on their own streams, in parallel to the computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from . import device_errors


def open_transfers(device: torch.device) -> CudaTransfers | None:
    """Return the transfers of a GPU; None for a CPU, where nothing is copied."""
    return CudaTransfers(device) if device.type == "cuda" else None


class CudaTransfers:
    """Copies from and to pinned host memory, on two streams; several threads may use it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def make_buffer(self, size: int) -> Tensor:
        """Return pinned memory, or ordinary memory where the system grants no more: uint8, shape (size,)."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            if not device_errors.is_out_of_memory(error):
                raise
            return torch.empty(size, dtype=torch.uint8)

    def upload(self, host: Tensor) -> Upload:
        """Begin to copy a tensor to the device."""
        with torch.cuda.stream(self._uploads):
            tensor = torch.empty(host.shape, dtype=host.dtype, device=self._device)
            tensor.copy_(host, non_blocking=True)
            return Upload(self._device, tensor, _record(self._uploads))

    def download(self, tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy uint8 and bool tensors to the host, once this thread's computations are done.

        The function that is returned waits for them and returns them as arrays of their own.
        """
        flat = torch.cat([tensor.view(torch.uint8).flatten() for tensor in tensors])
        layout = [(tensor.shape, tensor.dtype) for tensor in tensors]
        self._downloads.wait_event(_record(torch.cuda.current_stream(self._device)))
        with torch.cuda.stream(self._downloads):
            host = self.make_buffer(len(flat))
            host.copy_(flat, non_blocking=True)
            # Its memory is used again only when the copy is done.
            flat.record_stream(self._downloads)
            copied = _record(self._downloads)

        def arrays() -> list[NDArray[Any]]:
            copied.synchronize()
            return list(_parts(host, layout))

        return arrays


class Upload:
    """A batch on its way to the device."""

    def __init__(self, device: torch.device, tensor: Tensor, copied: torch.cuda.Event) -> None:
        self._device = device
        self._tensor = tensor
        self._copied = copied

    def wait(self) -> None:
        """Wait until the host memory that it is copied from may be written again."""
        self._copied.synchronize()

    def receive(self) -> Tensor:
        """Return the batch on the device; what this thread computes from now on comes after its copy."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._copied)
        # The allocator knows the stream of uploads only: the memory stays taken until this stream has passed.
        self._tensor.record_stream(stream)
        return self._tensor


def _parts(host: Tensor, layout: Sequence[tuple[torch.Size, torch.dtype]]) -> Iterator[NDArray[Any]]:
    start = 0
    for shape, dtype in layout:
        stop = start + shape.numel()
        # Pinned memory is scarce, and these arrays wait for their writer: ordinary copies.
        yield host[start:stop].view(dtype).reshape(shape).numpy().copy()
        start = stop


def _record(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Return an event of what the stream was given so far; who waits for it sleeps instead of polling."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
