"""Convolutions in bfloat16 by the tiles of AMX, summed in float32.

A convolution is a matrix product for each tap of its filter: positions of the image x channels, times channels
x columns. Tiles are loaded from the channels-last image itself. A *position* is a pixel of the padded image, in
the order of memory; those of the padding are computed, too, and thrown away.
"""

from __future__ import annotations

import ctypes
import functools
import math, os
import sys

import torch
from torch import Tensor

from ..workspace import Workspace
from . import amx_ir, arguments, ir_amx, llvm, simd_targets
from .amx_ir import BLOCK, POSITIONS
from .arguments import Clamp
from .ir_amx import DEPTH, ROWS

_kernel = functools.lru_cache(amx_ir.convolution)

BORDER = 4
"""The zeros right of a row, which are those left of the next one, and the rows of zeros above and below."""

# Bytes of the image that a thread multiplies by each panel: with the panel they stay in its L2 cache.
_IMAGE_BYTES = int(os.environ.get('IB','1280')) << 10
# Channels of a 3x3 filter that are summed at a time: a panel of them has 288 KiB.
_CHUNK = 512

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@functools.lru_cache(maxsize=1)
def available() -> bool:
    """Return whether this processor has AMX, and the operating system lets this process use it.

    Linux gives the tiles' registers to processes that ask for them; all threads have the permission then.
    """
    features = llvm.host_features()
    if not (sys.platform == "linux" and features.get("amx-bf16") and simd_targets.AVX512_BF16.runs_here()):
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
        bfloat16, shape (columns / 32, channels / 32, taps * taps, 2, 16, 16, 2): for each tap two tiles side by
        side, whose rows are pairs of channels.
    """
    columns, channels = weights.shape[:2]
    tiles = weights.flatten(2).reshape(columns // BLOCK, 2, ROWS, channels // DEPTH, ROWS, 2, -1)
    return tiles.permute(0, 3, 6, 1, 4, 2, 5).to(torch.bfloat16).contiguous()


def take_features(space: Workspace, name: str, height: int, width: int, channels: int) -> Tensor:
    """Return features in the layout of the kernel: a view (channels / 32, h, w, 32), with zeros around it.

    The pixels are uninitialised; nothing else may write to the zeros.
    """
    row = width + BORDER
    plane = _plane_positions(height, width)
    memory = space.take_zeroed(f"{name} of {channels}", channels // DEPTH, plane, DEPTH, dtype=torch.bfloat16)
    start = BORDER * row + BORDER
    grid = memory[:, start : start + height * row].unflatten(1, (height, row))
    return grid[:, :, :width]


def are_features(x: Tensor) -> bool:
    """Return whether a tensor has the layout of `take_features`."""
    if x.dtype != torch.bfloat16 or x.ndim != 4 or x.shape[3] != DEPTH:
        return False
    _, height, width, _ = x.shape
    strides = (_plane_positions(height, width) * DEPTH, (width + BORDER) * DEPTH, DEPTH, 1)
    return x.stride() == strides and x.storage_offset() == BORDER * (width + BORDER + 1) * DEPTH


def _plane_positions(height: int, width: int) -> int:
    # A block may begin at the last pixel and read as much further as the last tap is away.
    return (height + 2 * BORDER) * (width + BORDER) + BORDER + BLOCK


def convolution(
    image: Tensor,
    panels: Tensor,
    bias: Tensor,
    result: Tensor,
    clamp: Clamp,
    space: Workspace,
    *,
    dilation: int = 1,
    add: bool = False,
) -> None:
    planes, height, width, _ = result.shape
    columns, channels = planes * DEPTH, len(image) * DEPTH
    taps = panels.shape[2]
    row = width + BORDER
    positions = height * row
    border = dilation * row if taps == 9 else 0
    _CHUNK = int(os.environ.get('CH','512'))
    chunked = taps == 9 and channels > 512
    chunk = _CHUNK if chunked else channels
    item = _positions_per_item(positions, chunk, border)
    threads = torch.get_num_threads()
    sums = space.take("sums", threads, item * (columns if chunked else BLOCK))
    group = min(channels, DEPTH * int(os.environ.get("G3","1")) if taps == 9 else DEPTH * int(os.environ.get("G1","8")))
    if chunk % group: group = math.gcd(chunk, group)
    back = dilation * (row + 1) * DEPTH * 2 if taps == 9 else 0
    _kernel(simd_targets.AVX512_BF16, taps=math.isqrt(taps), add=add, groups=min(chunk // group, 3), chunked=chunked)(
        math.ceil(positions / item),
        image=arguments.data_pointer(image, torch.bfloat16) - back,
        image_plane=image.stride(0),
        panels=arguments.contiguous_pointer(panels, torch.bfloat16),
        result=arguments.data_pointer(result, torch.bfloat16),
        result_plane=result.stride(0),
        bias=arguments.contiguous_pointer(bias),
        **arguments.clamp_fields(clamp),
        configuration=arguments.contiguous_pointer(_configuration(), torch.uint8),
        height=height,
        width=width,
        row_positions=row,
        dilation=dilation,
        positions=positions,
        positions_per_item=item,
        channels=channels,
        columns=columns,
        chunk=chunk,
        group=group,
        sums=arguments.contiguous_pointer(sums),
        sums_floats=sums.shape[1],
    )


def _positions_per_item(positions: int, channels: int, border: int) -> int:
    _IMAGE_BYTES = int(os.environ.get('IB','1280')) << 10
    fitting = _IMAGE_BYTES // (2 * channels) - 2 * border
    fitting = max(fitting, _IMAGE_BYTES // (2 * channels) // 3)
    share = math.ceil(positions / (4 * torch.get_num_threads()))
    return max(1, min(int(os.environ.get('PO','512')), fitting, share) // BLOCK) * BLOCK


@functools.lru_cache(maxsize=1)
def _configuration() -> Tensor:
    return torch.frombuffer(bytearray(ir_amx.configuration()), dtype=torch.uint8)
