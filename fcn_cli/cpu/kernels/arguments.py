"""What the wrappers of kernels do with their arguments: check them, and turn them into task fields.

A compiled function reads what it is told to, inside or outside of a tensor. So a wrapper checks first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Clamp = tuple[float | None, float | None]
"""The minimum and maximum of a result, None for no limit: (0, None) is ReLU."""


def contiguous_pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
    """Return the data pointer of a contiguous tensor; ValueError for another, which no kernel notices."""
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} that is not contiguous")
    return data_pointer(tensor, dtype)


def data_pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
    """Return the data pointer for a kernel that knows the strides; ValueError for another dtype or device."""
    if tensor.dtype != dtype or tensor.device.type != "cpu":
        raise ValueError(f"a tensor of {tensor.dtype} on {tensor.device}, not {dtype} on the CPU")
    return tensor.data_ptr()


def require_shape(name: str, tensor: Tensor, *shape: int) -> None:
    """Raise ValueError where an argument has another shape: a kernel would leave its bounds."""
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def require_contiguous_matrices(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless all matrices (all but the first dimension) are contiguous and disjoint."""
    disjoint = len(tensor) == 1 or tensor.stride(0) >= tensor[0].numel()
    if not disjoint or not tensor[0].is_contiguous():
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} has strides {tensor.stride()}, "
            "expected contiguous matrices that do not overlap"
        )


def clamp_fields(clamp: Clamp) -> dict[str, float]:
    """Return a kernel's task fields for a clamp; no limit is an infinite one."""
    low, high = clamp
    return {
        "low": -math.inf if low is None else float(low),
        "high": math.inf if high is None else float(high),
    }
