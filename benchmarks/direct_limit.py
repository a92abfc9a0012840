"""The limit of direct convolution: a network's operations at the rate of a large matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fcn_cli.inference.engine import DTYPES
from fcn_cli.inference.execution import ExecutionConfig

# Rows and columns of the matrices, and the number of products per measurement.
_SIDE = 2048
_REPEATS = 3


def gflop(model: nn.Module, width: int, height: int) -> float:
    """Return the floating-point operations of one image by direct convolution, in 10^9."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, height, width))
    return float(counter.get_total_flops()) / 1e9


class MatrixProduct:
    """Times a large matrix product; `best_rate` is in 10^9 operations per second.

    Where our kernels compute, PyTorch's product and ours are both timed: the faster one counts.
    """

    def __init__(self, execution: ExecutionConfig) -> None:
        self._device = execution.device
        dtype = DTYPES.get(execution.precision, torch.float32)
        self._factor = torch.rand(_SIDE, _SIDE, device=execution.device).to(dtype)
        self._result = torch.empty_like(self._factor)
        self._products = [self._torch_product]
        if execution.kernels == "fast":
            self._products.append(_kernel_product(self._factor, self._result))
        self.best_rate = 0.0

    def measure(self) -> None:
        """Multiply a few times and keep the best rate."""
        for multiply in self._products * _REPEATS:
            started = time.perf_counter()
            multiply()
            seconds = time.perf_counter() - started
            self.best_rate = max(self.best_rate, 2 * _SIDE**3 / seconds / 1e9)

    def _torch_product(self) -> None:
        torch.mm(self._factor, self._factor, out=self._result)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _kernel_product(factor: Tensor, result: Tensor) -> Callable[[], None]:
    # Imported here: they load llvmlite, which neither a GPU nor PyTorch's own kernels need.
    from fcn_cli.cpu.kernels.matmul import in_bf16_panels, in_panels, pointwise
    from fcn_cli.cpu.workspace import Workspace

    panels = (in_bf16_panels if factor.dtype == torch.bfloat16 else in_panels)(factor)
    bias, space = torch.zeros(len(factor)), Workspace()
    return lambda: pointwise(factor, panels, bias, result, (None, None), space, add=False)
