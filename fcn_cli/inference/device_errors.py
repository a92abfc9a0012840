"""What PyTorch's errors mean: not enough memory for this batch, a lost device, or a bug.

Only some of them have a class of their own; the rest is told by the text that the CUDA libraries put into
theirs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from ..common.errors import DeviceLost

# The CPU's allocator (its second text is Windows's); CUDA calls outside torch's allocator, such as for pinned
# memory; cuBLAS's status; cuDNN's status up to version 8, and since version 9.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|DefaultCPUAllocator: not enough memory|CUDA error: out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_INTERNAL_ERROR_(?:DEVICE|HOST)_ALLOCATION_FAILED"
)
# After an error of the CUDA runtime (illegal access, assertion, launch failure, ECC, a GPU that fell off the
# bus) no call of this process can succeed any more; a library then says that it could not execute.
_LOST = re.compile(r"CUDA error: |CUDNN_STATUS_(?:EXECUTION_FAILED|MAPPING_ERROR|INTERNAL_ERROR)")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether a smaller batch may succeed where this error was raised."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def is_lost_device(error: BaseException) -> bool:
    """Say whether the device cannot compute anything more for this process."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


@contextlib.contextmanager
def named(device: torch.device) -> Iterator[None]:
    """Turn an error that says that the device is lost into `DeviceLost`, which names it.

    Raises
    ------
    DeviceLost
        With the first line of what CUDA says.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_device(error):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DeviceLost(f"{_name(device)} failed and cannot compute anything more ({reason})") from error


@contextlib.contextmanager
def loading_on(device: torch.device) -> Iterator[None]:
    """Do the same while a network is moved to a device, and say so where it does not fit there.

    Raises
    ------
    DeviceLost
        The device is lost, or has not enough free memory for the network itself.
    """
    try:
        with named(device):
            yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceLost(
            f"{_name(device)} has not enough free memory for the network itself; end what else uses it, "
            "or take another --device"
        ) from error


def _name(device: torch.device) -> str:
    """Return a device with the name of its hardware, where that can still be asked."""
    if device.type != "cuda":
        return f"device {device}"
    with contextlib.suppress(Exception):
        return f"device {device} ({torch.cuda.get_device_name(device)})"
    return f"device {device}"
