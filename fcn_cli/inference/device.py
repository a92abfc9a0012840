"""What a pipeline needs of a device: host buffers, and transfers that run beside the computation.

`CpuDevice` and `CudaDevice` have one interface, so that one pipeline serves both. On a CPU nothing is copied,
and every transfer is complete at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from . import device_errors


class Upload(Protocol):
    """A batch on its way to the device."""

    def wait(self) -> None:
        """Wait until the host memory that it is copied from may be written again."""
        ...

    def receive(self) -> Tensor:
        """Return the batch on the device; what this thread computes from now on comes after its transfer."""
        ...


class Download(Protocol):
    """Results on their way to the host."""

    def arrays(self) -> list[NDArray[Any]]:
        """Wait for the results and return them as arrays of their own."""
        ...


class Device(Protocol):
    """A device that computes; several threads may use it.

    `name` is PyTorch's device. `in_flight` is how many batches are launched before the results of the first
    one are waited for: 1 where launching a batch computes it.
    """

    name: torch.device
    in_flight: int

    def active(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which this thread computes on the device."""
        ...

    def make_buffer(self, size: int) -> Tensor:
        """Return host memory for transfers: uint8, shape (size,)."""
        ...

    def upload(self, host: Tensor) -> Upload:
        """Begin to copy a tensor to the device."""
        ...

    def download(self, tensors: Sequence[Tensor]) -> Download:
        """Begin to copy uint8 and bool tensors to the host, once this thread's computations are done."""
        ...


def open_device(name: torch.device) -> Device:
    """Return the device of a name."""
    return CudaDevice(name) if name.type == "cuda" else CpuDevice(name)


class CpuDevice:
    """The CPU; `upload` and `download` share memory with what they are given."""

    in_flight = 1

    def __init__(self, name: torch.device) -> None:
        self.name = name

    def active(self) -> contextlib.AbstractContextManager[object]:
        """Return a context that does nothing; see `Device`."""
        return contextlib.nullcontext()

    def make_buffer(self, size: int) -> Tensor:
        """Return ordinary memory; see `Device`."""
        return torch.empty(size, dtype=torch.uint8)

    def upload(self, host: Tensor) -> _Shared:
        """Return the tensor itself; see `Device`."""
        return _Shared([host])

    def download(self, tensors: Sequence[Tensor]) -> _Shared:
        """Return the tensors themselves; see `Device`."""
        return _Shared(tensors)


class _Shared:
    """A transfer that is none."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def wait(self) -> None:
        """Return at once: whoever computes with the buffer says when it is free."""

    def receive(self) -> Tensor:
        """Return the tensor."""
        return self._tensors[0]

    def arrays(self) -> list[NDArray[Any]]:
        """Return arrays that share the tensors' memory."""
        return [tensor.numpy() for tensor in self._tensors]


class CudaDevice:
    """A GPU: transfers run on two streams beside the computation, from and to pinned host memory."""

    in_flight = 2

    def __init__(self, name: torch.device) -> None:
        self.name = name
        self._uploads = torch.cuda.Stream(name)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(name)  # type: ignore[no-untyped-call]

    def active(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which kernels are launched on this GPU, not on the first one."""
        return torch.cuda.device(self.name)

    def make_buffer(self, size: int) -> Tensor:
        """Return pinned memory, or ordinary memory where the system grants no more; see `Device`."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            if not device_errors.is_out_of_memory(error):
                raise
            return torch.empty(size, dtype=torch.uint8)

    def upload(self, host: Tensor) -> _CudaUpload:
        """Copy on the stream of uploads; see `Device`."""
        with torch.cuda.stream(self._uploads):
            tensor = torch.empty(host.shape, dtype=host.dtype, device=self.name)
            tensor.copy_(host, non_blocking=True)
            return _CudaUpload(self.name, tensor, _record(self._uploads))

    def download(self, tensors: Sequence[Tensor]) -> _CudaDownload:
        """Copy everything at once on the stream of downloads; see `Device`."""
        with self.active():
            flat = torch.cat([tensor.view(torch.uint8).flatten() for tensor in tensors])
            self._downloads.wait_event(_record(torch.cuda.current_stream(self.name)))
        with torch.cuda.stream(self._downloads):
            host = self.make_buffer(len(flat))
            host.copy_(flat, non_blocking=True)
            # Its memory is used again only when the copy is done.
            flat.record_stream(self._downloads)
            copied = _record(self._downloads)
        return _CudaDownload(host, [(tensor.shape, tensor.dtype) for tensor in tensors], copied)


class _CudaUpload:
    def __init__(self, name: torch.device, tensor: Tensor, copied: torch.cuda.Event) -> None:
        self._name = name
        self._tensor = tensor
        self._copied = copied

    def wait(self) -> None:
        self._copied.synchronize()

    def receive(self) -> Tensor:
        stream = torch.cuda.current_stream(self._name)
        stream.wait_event(self._copied)
        # The allocator knows the stream of uploads only: the memory stays taken until this stream has passed.
        self._tensor.record_stream(stream)
        return self._tensor


class _CudaDownload:
    def __init__(
        self, host: Tensor, layout: Sequence[tuple[torch.Size, torch.dtype]], copied: torch.cuda.Event
    ) -> None:
        self._host = host
        self._layout = layout
        self._copied = copied

    def arrays(self) -> list[NDArray[Any]]:
        self._copied.synchronize()
        return list(self._parts())

    def _parts(self) -> Iterator[NDArray[Any]]:
        start = 0
        for shape, dtype in self._layout:
            stop = start + shape.numel()
            # Pinned memory is scarce, and these arrays wait for their writer: ordinary copies.
            yield self._host[start:stop].view(dtype).reshape(shape).numpy().copy()
            start = stop


def _record(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Return an event of what the stream was given so far; who waits for it sleeps instead of polling."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
