"""Convolutions in bfloat16 by the tiles of AMX, summed in float32.

A convolution is a sum of matrix products, one for each tap of its filter: (positions x channels) times
(channels x columns). Tiles of the left factor are loaded from the image as it is: its channels lie in planes
of 32, so that 16 neighbouring pixels are a tile, wherever they begin. There are zeros around an image, and
they are positions like pixels; what is computed for them is thrown away. `docs/kernels.md` has the loops.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from ..workspace import Workspace, prefer_huge_pages
from . import amx_ir, arguments, ir_amx, llvm, simd_targets
from .amx_ir import BLOCK, GROUPS, POSITIONS, STEPS
from .arguments import Clamp
from .ir_amx import DEPTH, ROWS

_kernel = functools.lru_cache(amx_ir.convolution)

BORDER = 4
"""The zeros right of a row, which are those left of the next one, and the rows of zeros above and below."""

# Bytes of the image that a thread multiplies by each panel: they stay in its L2 cache.
_IMAGE_BYTES = 1024 << 10
_FEWEST = 256
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


def fits(channels: int, columns: int) -> bool:
    """Return whether the kernel supports a filter of so many channels in and out."""
    return channels % DEPTH == 0 and columns % BLOCK == 0


def in_panels(weights: Tensor) -> Tensor:
    """Return filters in the order in which the kernel reads them.

    Parameters
    ----------
    weights
        Shape (columns, channels, taps, taps).

    Returns
    -------
    Tensor
        bfloat16, shape (columns / 32, channels / 32, taps * taps, 2, 16, 16, 2): for each tap two tiles side
        by side, whose rows are pairs of channels.
    """
    columns, channels = weights.shape[:2]
    tiles = weights.flatten(2).reshape(columns // BLOCK, 2, ROWS, channels // DEPTH, ROWS, 2, -1)
    ordered = tiles.permute(0, 3, 6, 1, 4, 2, 5)
    return prefer_huge_pages(torch.empty(ordered.shape, dtype=torch.bfloat16)).copy_(ordered)


def take_features(space: Workspace, name: str, height: int, width: int, channels: int) -> Tensor:
    """Return memory for features in the layout of `convolution`.

    It is a view of shape (channels / 32, h, w, 32) of memory with zeros around each plane, to which nothing
    may write. The pixels are uninitialised.
    """
    row, plane = width + BORDER, _plane_positions(height, width)
    memory = space.take_zeroed(f"{name} of {channels}", channels // DEPTH, plane, DEPTH, dtype=torch.bfloat16)
    strides = (plane * DEPTH, row * DEPTH, DEPTH, 1)
    return memory.as_strided((len(memory), height, width, DEPTH), strides, BORDER * (row + 1) * DEPTH)


def are_features(x: Tensor) -> bool:
    """Return whether a tensor has the layout of `take_features`."""
    if x.dtype != torch.bfloat16 or x.ndim != 4 or x.shape[3] != DEPTH:
        return False
    _, height, width, _ = x.shape
    row, plane = width + BORDER, _plane_positions(height, width)
    strides = (plane * DEPTH, row * DEPTH, DEPTH, 1)
    whole = x.untyped_storage().nbytes() // x.itemsize >= len(x) * plane * DEPTH
    return bool(x.stride() == strides and x.storage_offset() == BORDER * (row + 1) * DEPTH and whole)


def _plane_positions(height: int, width: int) -> int:
    # The last block may begin at the last pixel, and reads as much further as the last tap is away.
    return (height + 2 * BORDER) * (width + BORDER) + BORDER + BLOCK


def convolution(
    image: Tensor,
    filters: Filters,
    result: Tensor,
    clamp: Clamp,
    space: Workspace,
    *,
    dilation: int = 1,
    add: bool = False,
) -> None:
    """Compute a 1x1 or 3x3 convolution that keeps the size: clamp(image * filters + bias [+ result]).

    Parameters
    ----------
    image
        Features of `take_features`, of C channels.
    filters
        The weights as `in_panels` returns them, and the bias: float32, shape (columns,).
    result
        Features of the same height and width and of as many channels as there are columns; other memory than
        the image.
    clamp
        The range of the result.
    space
        Holds the sums of an item.
    dilation
        The distance of a 3x3 filter's taps, at most `BORDER`.
    add
        Whether to add to the result.

    Raises
    ------
    ValueError
        A tensor has another shape, type or layout.
    RuntimeError
        There is no AMX here, or the process may not use it.
    """
    if not _permitted():
        raise RuntimeError("this process has no AMX")
    panels, bias = filters
    steps = _require(image, filters, result, dilation)
    layout = _layout(image, result, steps, dilation)
    blocking = _blocking(len(image) * DEPTH, steps, layout)
    chunked = blocking["chunk"] < blocking["channels"]
    item, stored = blocking["positions_per_item"], bias.numel() if chunked else BLOCK
    sums = space.take("sums", torch.get_num_threads(), item * stored)
    groups = min(blocking["chunk"] // blocking["group"], GROUPS)
    target = simd_targets.AVX512_BF16
    _kernel(target, taps=math.isqrt(steps), add=add, groups=groups, chunked=chunked)(
        math.ceil(blocking["positions"] / item),
        **layout,
        **blocking,
        panels=arguments.contiguous_pointer(panels, torch.bfloat16),
        bias=arguments.contiguous_pointer(bias),
        columns=bias.numel(),
        **arguments.clamp_fields(clamp),
        configuration=arguments.contiguous_pointer(_configuration(), torch.uint8),
        sums=arguments.contiguous_pointer(sums),
        sums_floats=sums.shape[1],
    )


def _layout(image: Tensor, result: Tensor, steps: int, dilation: int) -> dict[str, int]:
    """Return the fields that say where pixels are; the image begins with the first tap of the first pixel."""
    height, width = image.shape[1:3]
    row = width + BORDER
    first_tap = image.itemsize * DEPTH * dilation * (row + 1) if steps > 1 else 0
    return {
        "image": arguments.data_pointer(image, torch.bfloat16) - first_tap,
        "image_plane": image.stride(0),
        "result": arguments.data_pointer(result, torch.bfloat16),
        "result_plane": result.stride(0),
        "height": height,
        "width": width,
        "row_positions": row,
        "dilation": dilation,
    }


def _blocking(channels: int, steps: int, layout: dict[str, int]) -> dict[str, int]:
    """Return the fields that say what is multiplied at a time: parts of a size that stays in a cache."""
    chunk = DEPTH * _divisor(channels // DEPTH, (_CHUNK if steps > 1 else channels) // DEPTH)
    group = DEPTH * math.gcd(chunk // DEPTH, STEPS if steps == 1 else 1)
    positions = layout["height"] * layout["row_positions"]
    item = _positions_per_item(positions, chunk)
    return {
        "channels": channels,
        "chunk": chunk,
        "group": group,
        "rows": BLOCK * DEPTH // group if steps == 1 else BLOCK // STEPS,
        "positions": positions,
        "positions_per_item": item,
    }


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
    if steps not in (1, 9) or not 1 <= dilation <= BORDER:
        raise ValueError(f"panels of shape {tuple(panels.shape)} with dilation {dilation}: not supported")
    arguments.require_shape("panels", panels, len(result), len(image), steps, 2, ROWS, ROWS, 2)
    arguments.require_shape("bias", bias, len(result) * DEPTH)
    return steps


def _divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number up to a limit."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _positions_per_item(positions: int, channels: int) -> int:
    """Return a multiple of a block: so many that the image's part stays in a cache."""
    fitting = _IMAGE_BYTES // (torch.bfloat16.itemsize * channels)
    most = min(POSITIONS, max(fitting, _FEWEST)) // BLOCK * BLOCK
    # Every item reads all panels: no more items than needed, as many for each thread.
    threads = torch.get_num_threads()
    items = threads * math.ceil(positions / (threads * most))
    return math.ceil(positions / (items * BLOCK)) * BLOCK


@functools.lru_cache(maxsize=1)
def _configuration() -> Tensor:
    return torch.tensor(list(ir_amx.configuration()), dtype=torch.uint8)
