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


def padded(image: Tensor, dilation: int, space: Workspace) -> Tensor:
    """Return an image with as many zeros around it as a 3x3 filter reads, as `convolution` takes it.

    The zeros right of a row are those left of the next one.

    Parameters
    ----------
    image
        bfloat16, shape (h, w, channels), contiguous.
    dilation
        The distance of the filter's taps.
    space
        Holds the result.
    """
    height, width, channels = image.shape
    rows, row = height + 2 * dilation, width + dilation
    result = space.take("padded", positions_of(image, dilation), channels, dtype=torch.bfloat16)
    result[: dilation * row].zero_()
    result[(height + dilation) * row :].zero_()
    grid = result[: rows * row].view(rows, row, channels)[dilation : dilation + height]
    grid[:, :dilation].zero_()
    grid[:, dilation:].copy_(image)
    return blocked(result)


def blocked(x: Tensor) -> Tensor:
    return x.unflatten(1, (-1, DEPTH)).transpose(0, 1).contiguous()


def positions_of(image: Tensor, dilation: int) -> int:
    """Return the number of positions of a padded image, with those that blocks read beyond its end."""
    height, width, _ = image.shape
    row = width + dilation
    return max(height * row, BLOCK) + 2 * dilation * (row + 1)


def convolution(
    image: Tensor,
    panels: Tensor,
    bias: Tensor,
    result: Tensor,
    clamp: Clamp,
    space: Workspace,
    *,
    dilation: int = 0,
    add: bool = False,
) -> None:
    height, width, columns = result.shape
    planes, positions, _ = image.shape
    channels = planes * DEPTH
    taps = panels.shape[2]
    row = width + dilation
    item = _positions_per_item(height * row, min(_CHUNK, channels) if taps == 9 else channels, dilation * row)
    chunked = taps == 9 and channels > _CHUNK
    threads = torch.get_num_threads()
    sums = space.take("sums", threads, item * (columns if chunked else BLOCK))
    chunk = _CHUNK if chunked else channels
    group = min(channels, DEPTH * int(os.environ.get("G3","1")) if taps == 9 else DEPTH * int(os.environ.get("G1","8")))
    if chunk % group: group = math.gcd(chunk, group)
    count = max(height * row, BLOCK)
    _kernel(simd_targets.AVX512_BF16, taps=math.isqrt(taps), add=add, deep=chunk > group, chunked=chunked)(
        math.ceil(count / item),
        image=arguments.contiguous_pointer(image, torch.bfloat16),
        panels=arguments.contiguous_pointer(panels, torch.bfloat16),
        result=arguments.contiguous_pointer(result, torch.bfloat16),
        bias=arguments.contiguous_pointer(bias),
        **arguments.clamp_fields(clamp),
        configuration=arguments.contiguous_pointer(_configuration(), torch.uint8),
        height=height,
        width=width,
        row_positions=row,
        dilation=dilation,
        plane=positions * DEPTH,
        positions=count,
        positions_per_item=item,
        channels=channels,
        columns=columns,
        chunk=chunk, group=group,
        sums=arguments.contiguous_pointer(sums),
        sums_floats=sums.shape[1],
    )


def _positions_per_item(positions: int, channels: int, border: int) -> int:
    fitting = _IMAGE_BYTES // (2 * channels) - 2 * border
    fitting = max(fitting, _IMAGE_BYTES // (2 * channels) // 3)
    share = math.ceil(positions / (4 * torch.get_num_threads()))
    return max(1, min(POSITIONS, fitting, share) // BLOCK) * BLOCK


@functools.lru_cache(maxsize=1)
def _configuration() -> Tensor:
    return torch.frombuffer(bytearray(ir_amx.configuration()), dtype=torch.uint8)
