"""A network on its device: transfers, normalisation and the forward pass."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import device_errors
from .execution import ONEDNN_PRIMITIVES, ExecutionConfig

if TYPE_CHECKING:
    from ..cpu.network import CpuNetwork

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's statistics of RGB in [0, 1]; torchvision trained its weights with them."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that autocast computes in, by the name of the precision; float32 uses no autocast."""

T = TypeVar("T")

Pixels = Sequence[NDArray[np.uint8]]
"""RGB images of one shape (h, w, 3)."""


class DeviceNetwork:
    """A network on its device. It is not safe to share between threads.

    Creating one sets the process's number of torch threads, turns off cuDNN's benchmark mode, and turns off
    TF32 where float32 is computed on CUDA. The first one also limits oneDNN's cache, unless
    ONEDNN_PRIMITIVE_CACHE_CAPACITY is set.

    Parameters
    ----------
    model
        An FCN of torchvision's structure (`backbone` and `classifier`) in eval mode.
    execution
        The device, precision, kernels and number of threads.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    """

    def __init__(self, model: nn.Module, execution: ExecutionConfig) -> None:
        torch.set_num_threads(execution.threads)
        # oneDNN reads this at its first computation.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_PRIMITIVES))
        # Photos have many shapes: searching an algorithm for each shape costs more than it saves.
        torch.backends.cudnn.benchmark = False
        self.execution = execution
        self._device = execution.device
        self._on_cuda = execution.device.type == "cuda"
        if self._on_cuda and "fp32" in {execution.precision, execution.fallback}:
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        with device_errors.detect_load_failure(execution.device):
            model = model.to(execution.device)
            if self._on_cuda:
                model = model.to(memory_format=torch.channels_last)
            self._mean = torch.tensor(MEAN, device=execution.device).view(3, 1, 1)
            self._std = torch.tensor(STD, device=execution.device).view(3, 1, 1)
        self._cpu_network = _cpu_network(model, execution)
        self._forward: Callable[[Tensor], Tensor] = self._cpu_network or _plain_forward(model)

    @property
    def device(self) -> torch.device:
        """The device of the network and its logits."""
        return self._device

    @property
    def compiled(self) -> bool:
        """Whether our compiled CPU kernels compute the labels."""
        return self.execution.kernels == "fast"

    def kernels(self) -> dict[str, int]:
        """Return the number of layers by the CPU kernel that computed them; empty for PyTorch's kernels."""
        return self._cpu_network.kernels() if self._cpu_network is not None else {}

    def logits(self, pixels: Pixels, precision: str) -> Tensor:
        """Run the network on images of one shape (h, w, 3).

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, on the device.
        """
        if not self._on_cuda and torch.get_num_threads() != self.execution.threads:
            # OpenMP keeps this number per thread: the calling thread may have another one.
            torch.set_num_threads(self.execution.threads)
        dtype = DTYPES.get(precision) if self._cpu_network is None else None
        with torch.autocast(self._device.type, dtype) if dtype else contextlib.nullcontext():
            return self._forward(self._to_device(pixels)).float()

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
        """Copy tensors from the device to NumPy arrays, and wait for the device once."""
        if not self._on_cuda:
            return [tensor.numpy() for tensor in tensors]
        pinned = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for target, source in zip(pinned, tensors, strict=True):
            target.copy_(source, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        # Pinned memory is scarce, and these arrays wait for their writer: return ordinary copies.
        return [target.numpy().copy() for target in pinned]

    def unless_out_of_memory(self, run: Callable[[], T]) -> T | None:
        """Return the result of a computation, or None when memory does not suffice for it."""
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if not device_errors.is_out_of_memory(error):
                raise
        # Outside the handler: inside it the exception keeps the failed pass's tensors alive.
        if self._on_cuda:
            torch.cuda.empty_cache()
        return None

    def _to_device(self, pixels: Pixels) -> Tensor:
        """Return float32, shape (images, 3, h, w), normalised as in torchvision's preset."""
        batch = torch.from_numpy(np.stack(pixels))
        if self._on_cuda:
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        # Stacked pixels are in channels-last order already, which suits the GPU's kernels and ours.
        batch = batch.permute(0, 3, 1, 2)
        if not self._on_cuda and self._cpu_network is None:
            batch = batch.contiguous()
        return batch.float().div_(255).sub_(self._mean).div_(self._std)


def _cpu_network(model: nn.Module, execution: ExecutionConfig) -> CpuNetwork | None:
    """Return the network in its CPU form, or None where PyTorch's modules compute it."""
    compiled = execution.kernels == "fast"
    if execution.device.type != "cpu" or not (compiled or execution.precision == "bf16"):
        return None
    from ..cpu.network import CpuNetwork

    if not compiled:
        from ..cpu.onednn_layers import OnednnLayers

        return CpuNetwork(model, OnednnLayers())
    if execution.precision == "bf16":
        from ..cpu.amx_layers import fastest_layers

        return CpuNetwork(model, fastest_layers(model))
    return CpuNetwork(model)


def _plain_forward(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return torchvision's forward pass without the auxiliary head and the upsampling."""
    backbone, classifier = model.get_submodule("backbone"), model.get_submodule("classifier")

    def forward(batch: Tensor) -> Tensor:
        logits: Tensor = classifier(backbone(batch)["out"])
        return logits

    return forward
