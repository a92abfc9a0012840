"""Classify PyTorch's errors: out of memory, a lost device, or a bug.

Only some of these errors have a class of their own; the others are recognised by the CUDA libraries' texts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from ..common.errors import DeviceLost

# In order: the CPU's allocator (the second text is Windows's); CUDA calls outside torch's allocator, such as
# for pinned memory; cuBLAS's status; cuDNN's status up to version 8, and since version 9.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|DefaultCPUAllocator: not enough memory|CUDA error: out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_INTERNAL_ERROR_(?:DEVICE|HOST)_ALLOCATION_FAILED"
)
# After an error of the CUDA runtime (illegal access, assertion, launch failure, ECC, a GPU that fell off the
# bus) every later call of this process fails.
_LOST = re.compile(r"CUDA error: (?!CUBLAS_STATUS)")
# A library then reports that it could not execute, but it reports that for reasons of its own too.
_LIBRARY_FAILED = re.compile(r"CU(?:BLAS|DNN)_STATUS_")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error means too little memory, so that a smaller batch may succeed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def is_lost_device(error: BaseException, device: torch.device) -> bool:
    """Return whether the error means that the device cannot compute any more for this process."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    if isinstance(error, torch.AcceleratorError) or _LOST.search(str(error)):
        return True
    return _LIBRARY_FAILED.search(str(error)) is not None and not _answers(device)


def _answers(device: torch.device) -> bool:
    """Ask a device whether it can still compute."""
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return False
    return True


@contextlib.contextmanager
def detect_lost_device(device: torch.device) -> Iterator[None]:
    """Convert an error that means a lost device into `DeviceLost`, with the first line of CUDA's message."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_device(error, device):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DeviceLost(f"{_name(device)} failed and cannot compute any more ({reason})") from error


@contextlib.contextmanager
def detect_load_failure(device: torch.device) -> Iterator[None]:
    """Convert the errors of moving a network to a device into `DeviceLost`: too little memory is one, too."""
    try:
        with detect_lost_device(device):
            yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceLost(
            f"{_name(device)} has too little free memory for the network itself; stop other programs "
            "that use it, or choose another --device"
        ) from error


def _name(device: torch.device) -> str:
    """Return the device's name for messages, with its hardware's name where that is still available."""
    if device.type != "cuda":
        return f"device {device}"
    with contextlib.suppress(Exception):
        return f"device {device} ({torch.cuda.get_device_name(device)})"
    return f"device {device}"
