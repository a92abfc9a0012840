"""No kernel reads or writes beyond its tensors: each one ends where memory that may not be touched begins.

An access beyond it ends the process, so that the kernels run in a process of their own.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fcn_cli.cpu.kernels import amx, matmul, simd_targets, tile_transforms
from fcn_cli.cpu.kernels.argmax import argmax
from fcn_cli.cpu.kernels.simd_targets import SIMD_TARGETS
from fcn_cli.cpu.kernels.tile_transforms import TileGrid, TileRange
from fcn_cli.cpu.toom_cook import Transforms
from fcn_cli.cpu.workspace import Workspace

_PROTECT_NONE = 0


def at_the_edge(tensor: Tensor) -> Tensor:
    """Return a copy whose last element is the last one before a page that cannot be read or written."""
    if tensor.dtype == torch.bfloat16:
        return at_the_edge(tensor.view(torch.int16)).view(torch.bfloat16)
    array = tensor.numpy()
    whole = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
    page = np.frombuffer(memory, np.uint8).ctypes.data + whole
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, _PROTECT_NONE) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, whole - array.nbytes).reshape(array.shape)
    copy[...] = array
    return torch.from_numpy(copy)


class EdgeWorkspace(Workspace):
    """A workspace whose buffers end there, too."""

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return at_the_edge(torch.zeros(shape, dtype=dtype))


def edges(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return at_the_edge(torch.rand(shape).to(dtype))


def pointwise(dtype: torch.dtype = torch.float32) -> None:
    in_panels = matmul.in_bf16_panels if dtype == torch.bfloat16 else matmul.in_panels
    target = simd_targets.simd_target()
    for rows in (1, target.rows - 1, target.rows + 1):
        for columns in (target.lanes, target.columns, target.columns + target.lanes):
            panels = at_the_edge(in_panels(torch.rand(288, columns)))
            bias, result = edges(matmul.padded(columns)), edges(rows, columns, dtype=dtype)
            for add in (False, True):
                pixels = edges(rows, 288, dtype=dtype)
                matmul.pointwise(pixels, panels, bias, result, (0.0, None), EdgeWorkspace(), add=add)


def batched_product() -> None:
    target = simd_targets.simd_target()
    left, panels = edges(4, 3, 2, target.rows, 16), at_the_edge(matmul.in_panels(torch.rand(4, 32, 48)))
    matmul.batched_product(left, panels, edges(4, 3 * target.rows, matmul.padded(48)))


def transform(kernel: Callable[[TileRange], None]) -> None:
    for tile in (4, 6):
        for grid in (TileGrid(1, 1, 1, tile), TileGrid(9, 14, 2, tile), TileGrid(13, 25, 4, tile)):
            kernel(TileRange(grid, 0, grid.tiles))
            kernel(TileRange(grid, grid.tiles - 1, 1))


def transform_input(tiles: TileRange, dtype: torch.dtype = torch.float32) -> None:
    grid, target = tiles.grid, simd_targets.simd_target()
    blocks = -(-tiles.count // target.rows)
    tile_transforms.transform_input(
        edges(grid.height, grid.width, 32, dtype=dtype),
        tiles,
        Transforms.of(grid.tile).input,
        edges((grid.tile + 2) ** 2, blocks, 2, target.rows, 16),
    )


def transform_output(tiles: TileRange, dtype: torch.dtype = torch.float32) -> None:
    grid, channels = tiles.grid, 3 * simd_targets.simd_target().lanes
    tile_transforms.transform_output(
        edges((grid.tile + 2) ** 2, tiles.count, channels),
        tiles,
        Transforms.of(grid.tile).output,
        edges(channels),
        (0.0, 6.0),
        edges(grid.height, grid.width, channels, dtype=dtype),
    )


def amx_convolution() -> None:
    """Small images, where every tap reaches the borders; their memory ends where the last tap may read."""
    if not amx.available():
        return
    space = EdgeWorkspace()
    for height, width, channels, columns in ((1, 1, 32, 32), (3, 9, 64, 96), (7, 5, 1024, 32)):
        image = amx.take_features(space, "image", height, width, channels)
        result = amx.take_features(space, "result", height, width, columns)
        for taps, dilation in ((1, 1), (3, 1), (3, amx.BORDER)):
            panels = at_the_edge(amx.in_panels(torch.rand(columns, channels, taps, taps)))
            convolve = amx.Convolution(amx.Filters(panels, edges(columns)), (0.0, None), dilation)
            for add in (False, True):
                convolve(image, result, space, add=add)
        logits = amx.take_features(space, "logits", height, width, columns, torch.float32)
        panels = at_the_edge(amx.in_three_panels(torch.rand(columns, channels, 1, 1)))
        amx.Convolution(amx.Filters(panels, edges(columns)), (None, None))(image, logits, space)


def labels() -> None:
    for width in (16, 256, 272):
        argmax(
            edges(3, 5, width),
            at_the_edge(torch.tensor([0, 4, 9])),
            at_the_edge(torch.tensor([[0, 1], [1, 2]])),
            edges(9),
            at_the_edge(torch.zeros((9, width), dtype=torch.uint8)),
        )


def read_beyond() -> None:
    ctypes.string_at(edges(16).data_ptr() + 16 * 4, 1)


KERNELS: dict[str, Callable[[], None]] = {
    "pointwise": pointwise,
    "batched_product": batched_product,
    "transform_input": lambda: transform(transform_input),
    "transform_output": lambda: transform(transform_output),
    "labels": labels,
}

BF16_KERNELS: dict[str, Callable[[], None]] = {
    "pointwise": lambda: pointwise(torch.bfloat16),
    "amx_convolution": amx_convolution,
    "transform_input": lambda: transform(lambda tiles: transform_input(tiles, torch.bfloat16)),
    "transform_output": lambda: transform(lambda tiles: transform_output(tiles, torch.bfloat16)),
}
# AVX512_BF16 differs from AVX512 in bfloat16 only.
CASES = [
    *((target, KERNELS) for target in SIMD_TARGETS if not target.multiplies_bf16),
    *((target, BF16_KERNELS) for target in SIMD_TARGETS if target.runs_here() or not target.multiplies_bf16),
]


def run_all() -> None:
    """Run every kernel for every target, and say which one comes next; then read beyond a tensor."""
    for target, kernels in CASES:
        simd_targets.simd_target = lambda target=target: target  # type: ignore[misc]
        for name, run in kernels.items():
            print(name, target.name, flush=True)
            run()
    print("beyond", flush=True)
    read_beyond()
    print("not guarded", flush=True)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect by its Linux name and numbers")
def test_no_kernel_leaves_its_tensors() -> None:
    code = "from tests.cpu.test_bounds import run_all; run_all()"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[-1] == "beyond"
    assert len(lines) == sum(len(kernels) for _, kernels in CASES) + 1
    assert done.returncode == -signal.SIGSEGV
