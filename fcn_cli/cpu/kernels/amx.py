"""Convolutions in bfloat16 by the tiles of AMX, summed in float32.

A convolution is a sum of matrix products, one for each tap of its filter: (positions x channels) times
(channels x columns). Tiles of the left factor are loaded from the image as it is (`amx_layout`). What is
computed for positions that are no pixels is thrown away. `docs/kernels.md` has the loops.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..workspace import Workspace
from . import amx_ir, arguments, ir_amx, llvm, simd_targets
from .amx_blocks import BLOCK, POSITIONS
from .amx_ir import GROUPS, PARTS, STEPS, TAPS
from .amx_layout import BORDER, are_features
from .arguments import Clamp
from .ir_amx import DEPTH, ROWS

_kernel = functools.lru_cache(amx_ir.convolution)

# Bytes of the image that a thread multiplies by each panel: they stay in its L2 cache.
_IMAGE_BYTES = 1024 << 10
# Channels of a 3x3 filter that are summed before others: more would not leave an item enough positions.
_CHUNK = 512

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


class Filters(NamedTuple):
    """A layer's weights, as `in_panels` returns them, and its bias."""

    panels: Tensor
    bias: Tensor


def available() -> bool:
    """Return whether kernels are compiled for a processor with AMX, and this process may use it."""
    return simd_targets.simd_target() is simd_targets.AVX512_BF16 and _permitted()


@functools.lru_cache(maxsize=1)
def _permitted() -> bool:
    """Ask Linux for the tiles' registers, which no process has unasked; then all threads have them."""
    features = llvm.host_features()
    if not (sys.platform == "linux" and features.get("amx-tile") and features.get("amx-bf16")):
        return False
    system_call = ctypes.CDLL(None).syscall
    return bool(system_call(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


class Convolution:
    """A 1x1 or 3x3 convolution that keeps the size: clamp(image * filters + bias [+ result]).

    Parameters
    ----------
    filters
        The weights as `in_panels` or `in_three_panels` returns them, and the bias: float32, shape (columns,).
    clamp
        The range of the result.
    dilation
        The distance of a 3x3 filter's taps, at most `BORDER`.
    """

    def __init__(self, filters: Filters, clamp: Clamp, dilation: int = 1) -> None:
        self._filters, self._clamp, self._dilation = filters, clamp, dilation
        self._places: tuple[object, ...] = ()
        self._sums_shape = (0, 0)
        self._run: Callable[[], None] = _unprepared

    def __call__(self, image: Tensor, result: Tensor, space: Workspace, *, add: bool = False) -> None:
        """Compute the result.

        Parameters
        ----------
        image
            Features of `take_features`, of C channels.
        result
            Features of the same height and width and of as many channels as there are columns; other memory
            than the image. They are float32 if the weights are in three parts, else bfloat16.
        space
            Holds the sums of an item.
        add
            Whether to add to the result.

        Raises
        ------
        ValueError
            A tensor has another shape, type or layout.
        RuntimeError
            There is no AMX here, or the process may not use it.
        """
        # From image to image tensors mostly stay where they are: what was found out holds for the next one.
        places = (_place(image), _place(result), torch.get_num_threads(), add)
        sums = space.take("sums", *self._sums_shape)
        if self._places != (*places, sums.data_ptr()):
            sums = self._prepare(image, result, space, add=add)
            self._places = (*places, sums.data_ptr())
        self._run()

    def _prepare(self, image: Tensor, result: Tensor, space: Workspace, *, add: bool) -> Tensor:
        if not _permitted():
            raise RuntimeError("this process has no AMX")
        panels, bias = self._filters
        steps = _require(image, self._filters, result, self._dilation)
        layout = _layout(image, result, steps, self._dilation)
        items, blocking = _blocking(len(image) * DEPTH, steps, layout)
        chunked = blocking["chunk"] < blocking["channels"]
        item, stored = blocking["positions_per_item"], bias.numel() if chunked else BLOCK
        self._sums_shape = torch.get_num_threads(), item * stored
        sums = space.take("sums", *self._sums_shape)
        groups = min(blocking["chunk"] // blocking["group"], GROUPS)
        kernel = _kernel(simd_targets.AVX512_BF16, steps=steps, add=add, groups=groups, chunked=chunked)
        self._run = kernel.task(
            items,
            **layout,
            **blocking,
            panels=arguments.contiguous_pointer(panels, torch.bfloat16),
            bias=arguments.contiguous_pointer(bias),
            columns=bias.numel(),
            **arguments.clamp_fields(self._clamp),
            configuration=arguments.contiguous_pointer(_configuration(), torch.uint8),
            sums=arguments.contiguous_pointer(sums),
            sums_floats=sums.shape[1],
        )
        return sums


def _unprepared() -> None:
    raise AssertionError


def _place(x: Tensor) -> tuple[object, ...]:
    """Return all of a tensor that a prepared task depends on."""
    return x.data_ptr(), x.shape, x.stride(), x.dtype, x.untyped_storage().nbytes()


def _layout(image: Tensor, result: Tensor, steps: int, dilation: int) -> dict[str, int]:
    """Return the fields that say where pixels are; the image begins with the first tap of the first pixel."""
    height, width = image.shape[1:3]
    row = width + BORDER
    first_tap = image.itemsize * DEPTH * dilation * (row + 1) if steps == TAPS else 0
    return {
        "image": arguments.data_pointer(image, torch.bfloat16) - first_tap,
        "image_plane": image.stride(0),
        "result": arguments.data_pointer(result, _result_type(steps)),
        "result_plane": result.stride(0),
        "height": height,
        "width": width,
        "row_positions": row,
        "dilation": dilation,
    }


def _blocking(channels: int, steps: int, layout: dict[str, int]) -> tuple[int, dict[str, int]]:
    """Return the items, and the fields that say what is multiplied at a time: what stays in a cache."""
    chunk = DEPTH * _divisor(channels // DEPTH, (_CHUNK if steps == TAPS else channels) // DEPTH)
    most = max(1, STEPS // steps)
    # A power of two, so that each time as many rows of a block are written.
    group = DEPTH * math.gcd(chunk // DEPTH, 1 << most.bit_length() - 1)
    positions = layout["height"] * layout["row_positions"]
    items = _items(positions, chunk)
    return items, {
        "channels": channels,
        "chunk": chunk,
        "group": group,
        "rows": amx_ir.rows_at_a_time(steps, group),
        "positions": positions,
        "positions_per_item": math.ceil(positions / (items * BLOCK)) * BLOCK,
    }


def _result_type(steps: int) -> torch.dtype:
    return torch.float32 if steps == PARTS else torch.bfloat16


def _require(image: Tensor, filters: Filters, result: Tensor, dilation: int) -> int:
    """Check the arguments, and return the number of taps."""
    for name, features in (("image", image), ("result", result)):
        if not are_features(features) or not features.numel():
            raise ValueError(f"{name} of shape {tuple(features.shape)} is not in the layout of take_features")
    arguments.require_shape("result", result, len(result), *image.shape[1:])
    if image.untyped_storage().data_ptr() == result.untyped_storage().data_ptr():
        raise ValueError("image and result are the same memory")
    panels, bias = filters
    steps = panels.shape[2] if panels.ndim == 7 else 0
    if steps not in amx_ir.ALL_STEPS or not 1 <= dilation <= BORDER:
        raise ValueError(f"panels of shape {tuple(panels.shape)} with dilation {dilation}: not supported")
    arguments.require_shape("panels", panels, len(result), len(image), steps, 2, ROWS, ROWS, 2)
    arguments.require_shape("bias", bias, len(result) * DEPTH)
    return steps


def _divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number up to a limit."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _items(positions: int, channels: int) -> int:
    """Return into how many items positions are divided, so that the image's part of each stays in a cache."""
    fitting = _IMAGE_BYTES // (torch.bfloat16.itemsize * channels)
    most = max(1, min(POSITIONS, fitting) // BLOCK) * BLOCK
    # Every item reads all panels: no more items than needed, as many for each thread.
    threads = torch.get_num_threads()
    return min(threads * math.ceil(positions / (threads * most)), math.ceil(positions / BLOCK))


@functools.lru_cache(maxsize=1)
def _configuration() -> Tensor:
    return torch.tensor(list(ir_amx.configuration()), dtype=torch.uint8)
