"""A network on its device: transfers, normalisation and the forward pass."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import device_errors
from .cuda_network import CudaNetwork, ieee_float32
from .device import CudaDevice, open_device
from .execution import ONEDNN_PRIMITIVES, ExecutionConfig
from .label_kernel import LabelKernel, find_label_kernel

if TYPE_CHECKING:
    from ..cpu.network import CpuNetwork

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's statistics of RGB in [0, 1]; torchvision trained its weights with them."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that autocast computes in, by the name of the precision; float32 uses no autocast."""

_GFLOP_OF_ONE_THREAD = 0.3
"""One thread computes an image that takes less work: handing it out costs more than it saves."""

T = TypeVar("T")

Photo: TypeAlias = NDArray[np.uint8]
"""An RGB image of shape (h, w, 3)."""

Pixels: TypeAlias = Sequence[Photo]
"""RGB images of one shape."""


class DeviceNetwork:
    """A network on its device. It is not safe to share between threads.

    Creating one sets the process's number of torch threads and turns off cuDNN's benchmark mode. The first
    one also limits oneDNN's cache, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set. On CUDA, float32 is
    computed without TF32; the process's settings for that are as before after each forward pass.

    Parameters
    ----------
    model
        A network of `models.networks` in eval mode.
    execution
        The device, precision, kernels and number of threads.
    gflop_per_megapixel
        The network's work (see `Architecture`): of small images on a CPU one thread does it all.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    """

    def __init__(
        self, model: nn.Module, execution: ExecutionConfig, gflop_per_megapixel: float = math.inf
    ) -> None:
        torch.set_num_threads(execution.threads)
        self._gflop_per_pixel = gflop_per_megapixel / 1e6
        # oneDNN reads this at its first computation.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_PRIMITIVES))
        # Photos have many shapes: searching an algorithm for each shape costs more than it saves.
        torch.backends.cudnn.benchmark = False
        self.execution = execution
        self._device = execution.device
        self._model = model
        self._forwards: dict[str, Callable[[Tensor], Tensor]] = {}
        self.label_kernel: LabelKernel | None = None
        with device_errors.detect_load_failure(execution.device):
            self.access = open_device(execution.device)
            self._on_cuda = isinstance(self.access, CudaDevice)
            self._mean = torch.tensor(MEAN, device=execution.device).view(3, 1, 1)
            self._std = torch.tensor(STD, device=execution.device).view(3, 1, 1)
            if self._on_cuda:
                with self.access.active(), torch.inference_mode():
                    self._forwards[execution.precision] = self._cuda_forward(execution.precision)
                    self.label_kernel = find_label_kernel(execution.device)
            else:
                model = model.to(execution.device)
        self._cpu_network = _cpu_network(model, execution)
        if self._cpu_network is not None:
            self._forwards[execution.precision] = self._cpu_network

    @property
    def device(self) -> torch.device:
        """The device of the network and its logits."""
        return self._device

    @property
    def compiled(self) -> bool:
        """Whether our compiled CPU kernels compute the labels."""
        return self.execution.kernels == "fast"

    def kernels(self) -> dict[str, int]:
        """Return the number of layers by the kernel that computed them; empty for PyTorch's on a CPU."""
        if self._cpu_network is not None:
            return self._cpu_network.kernels()
        forward = self._forwards.get(self.execution.precision)
        return forward.kernels() if isinstance(forward, CudaNetwork) else {}

    def logits(self, pixels: Pixels, precision: str) -> Tensor:
        """Run the network on images of one shape (h, w, 3); see `forward`."""
        return self.forward(self.upload(pixels), precision)

    def upload(self, pixels: Pixels) -> Tensor:
        """Return images of one shape as a batch on the device; see `forward`."""
        return self.access.upload(torch.from_numpy(np.stack(pixels))).receive()

    def forward(self, batch: Tensor, precision: str) -> Tensor:
        """Run the network on a batch on the device.

        Parameters
        ----------
        batch
            RGB, uint8, shape (images, h, w, 3); it is not changed.
        precision
            ``fp32``, ``bf16`` or ``fp16``.

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, on the device.
        """
        if not self._on_cuda and torch.get_num_threads() != (threads := self._threads_for(batch)):
            # OpenMP keeps this number per thread: the calling thread may have another one.
            torch.set_num_threads(threads)
        with ieee_float32() if self._on_cuda else contextlib.nullcontext():
            if precision not in self._forwards:
                # A fallback is made when the first photo needs it.
                make = self._cuda_forward if self._on_cuda else self._plain_forward
                self._forwards[precision] = make(precision)
            return self._forwards[precision](self._normalised(batch)).float()

    def _threads_for(self, batch: Tensor) -> int:
        """Return how many threads compute a batch; it follows from the shape of one image alone."""
        height, width = batch.shape[1:3]
        is_small = height * width * self._gflop_per_pixel < _GFLOP_OF_ONE_THREAD
        return 1 if is_small else self.execution.threads

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
        """Copy uint8 and bool tensors from the device to NumPy arrays, and wait for the device once."""
        return self.access.download(tensors).arrays()

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

    def _normalised(self, batch: Tensor) -> Tensor:
        """Return float32, shape (images, 3, h, w), normalised as in torchvision's preset."""
        # Stacked pixels are in channels-last order already, which suits the GPU's kernels and ours.
        batch = batch.permute(0, 3, 1, 2)
        if not self._on_cuda and self._cpu_network is None:
            batch = batch.contiguous()
        return batch.float().div_(255).sub_(self._mean).div_(self._std)

    def _cuda_forward(self, precision: str) -> Callable[[Tensor], Tensor]:
        """Return the network in its form for GPUs, or plain layers if it has some that are unknown there."""
        try:
            return CudaNetwork(self._model, self._device, DTYPES.get(precision, torch.float32))
        except TypeError:
            self._model = self._model.to(self._device).to(memory_format=torch.channels_last)
            return self._plain_forward(precision)

    def _plain_forward(self, precision: str) -> Callable[[Tensor], Tensor]:
        """Return the forward pass of PyTorch's modules."""
        dtype = DTYPES.get(precision)

        def forward(batch: Tensor) -> Tensor:
            with torch.autocast(self._device.type, dtype) if dtype else contextlib.nullcontext():
                logits: Tensor = self._model(batch)
                return logits

        return forward


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
