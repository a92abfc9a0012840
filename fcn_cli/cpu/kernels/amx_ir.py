"""Build the convolution by tiles of AMX; `amx` explains how it works and checks its arguments."""

from __future__ import annotations

from . import ir_amx
from .compiler import Kernel
from .ir_amx import DEPTH, ROWS, Tile
from .ir_bf16 import load_floats, store_floats
from .ir_builder import KernelBuilder, Variable
from .ir_values import Int, Pointer, clamp, minimum
from .llvm import BF16, F32, U8
from .simd_targets import SimdTarget
import os

BLOCK = 2 * ROWS
"""The positions, and the columns, of a part of the result: 2 x 2 tiles of sums."""

POSITIONS = 512
"""The most positions of an item."""

_TILE_PAIRS = ROWS * DEPTH
_FIELDS = (
    "image", "panels", "result", "bias", "low", "high", "configuration", "height", "width", "row_positions",
    "dilation", "positions", "positions_per_item", "channels", "columns", "chunk", "sums", "sums_floats",
)  # fmt: skip
PF=os.environ.get("AMX_PF","")


def convolution(target: SimdTarget, *, taps: int, add: bool, chunked: bool) -> Kernel:
    """Build the kernel of `amx.convolution`.

    Parameters
    ----------
    target
        The vectors to compile for.
    taps
        The taps of the filter in each direction: 1 or 3.
    add
        Whether to add to the result.
    chunked
        Whether sums are kept in memory between chunks of channels.
    """

    def build(kernel: KernelBuilder) -> None:
        _Convolution(kernel, taps, add=add, chunked=chunked).build()

    return Kernel("amx_convolution", _FIELDS, build, target)


class _Convolution:
    """Builds the kernel."""

    def __init__(self, kernel: KernelBuilder, taps: int, *, add: bool, chunked: bool) -> None:
        self._kernel = kernel
        self._add, self._chunked = add, chunked
        self._columns, self._channels = kernel["columns"], kernel["channels"]
        self._image, self._panels = kernel.pointer("image", BF16), kernel.pointer("panels", BF16)
        self._result, self._bias = kernel.pointer("result", BF16), kernel.pointer("bias", F32)
        self._low, self._high = kernel.broadcast("low"), kernel.broadcast("high")
        step = kernel["dilation"] * self._channels
        self._taps = [
            kernel["row_positions"] * step * row + step * column
            for row in range(taps)
            for column in range(taps)
        ]
        self._step_pairs = len(self._taps) * 2 * _TILE_PAIRS
        self._last_start = kernel["positions"] - BLOCK
        self._configuration = kernel.pointer("configuration", U8)
        # Values of positions that are no pixels are written here.
        self._discarded = kernel.alloca(BF16, self._columns)
        self._destinations = kernel.alloca_pointers(POSITIONS, self._result)
        function = self._result.function
        self._sums = [Tile(function, number) for number in range(4)]
        self._left, self._right = (Tile(function, 4), Tile(function, 5)), (Tile(function, 6), Tile(function, 7))

    def build(self) -> None:
        kernel = self._kernel
        if self._chunked:
            sums = kernel.pointer("sums", F32) + kernel.thread() * kernel["sums_floats"]
        else:
            sums = kernel.alloca(F32, BLOCK * BLOCK)
        with kernel.parallel_for() as item:
            first = item * kernel["positions_per_item"]
            count = minimum(kernel["positions"] - first, kernel["positions_per_item"])
            self._find_destinations(first, count)
            ir_amx.configure(self._configuration)
            if self._chunked:
                self._chunks(first, count, sums)
            else:
                with kernel.loop(self._columns, BLOCK) as column, kernel.loop(count, BLOCK) as position:
                    for tile in self._sums:
                        tile.zero()
                    if "d" in PF:
                        self._prefetch_destinations(position, column)
                    self._add_products(first + position, column, sums)
                    self._finish(position, column, sums)
            ir_amx.release(self._result.function)

    def _chunks(self, first: Int, count: Int, sums: Pointer[F32]) -> None:
        """Take a chunk of channels after another, with the sums of all parts in memory."""
        kernel, lanes = self._kernel, sums.lanes
        blocks = (count + (BLOCK - 1)) // BLOCK
        zero = kernel.splat(0.0)
        with kernel.loop(blocks * BLOCK * self._columns, lanes) as index:
            (sums + index).store(zero)
        chunk = kernel["chunk"]
        with kernel.loop(self._channels // chunk) as index:
            with kernel.loop(self._columns, BLOCK) as column, kernel.loop(count, BLOCK) as position:
                part = sums + (column * blocks + position) * BLOCK
                for tile, start in self._tiles_of(part):
                    tile.load(start, ROWS)
                self._add_products(first + position, column, part, index * chunk)
        with kernel.loop(self._columns, BLOCK) as column, kernel.loop(count, BLOCK) as position:
            self._finish(position, column, sums + (column * blocks + position) * BLOCK)

    def _add_products(self, position: Int, column: Int, sums: Pointer[F32], channel: Int | int = 0) -> None:
        """Add the products of a chunk, and store the sums."""
        kernel, channels = self._kernel, self._channels
        start = minimum(position, self._last_start)
        image = Variable(self._image + (start * channels + channel))
        panel = Variable(self._panels + (column * channels * len(self._taps) + channel * len(self._taps) * BLOCK))
        with kernel.loop(kernel["chunk"] // DEPTH, carried=[image, panel]):
            for index, tap in enumerate(self._taps):
                pixels = image.value + tap
                self._left[0].load(pixels, channels)
                right = panel.value + index * 2 * _TILE_PAIRS
                for half, tile in enumerate(self._right):
                    tile.load(right + half * _TILE_PAIRS, DEPTH)
                    self._sums[half].add_product(self._left[0], tile)
                self._left[1].load(pixels + channels * ROWS, channels)
                for half, tile in enumerate(self._right):
                    self._sums[2 + half].add_product(self._left[1], tile)
                if "b" in PF:
                    for line in range(0, 2 * _TILE_PAIRS, 32):
                        (right + (2 * _TILE_PAIRS * int(os.environ.get("AMX_PFB","2")) + line)).prefetch()
                if "a" in PF and index % 3 == len(self._taps)//9:
                    for r in range(32):
                        (pixels + channels * r + 32 * int(os.environ.get("AMX_PFA","1"))).prefetch()
            image.value += DEPTH
            panel.value += self._step_pairs
        for tile, target in self._tiles_of(sums):
            tile.store(target, ROWS)

    def _tiles_of(self, sums: Pointer[F32]) -> list[tuple[Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: the left 16 columns of all rows come first."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))

    def _find_destinations(self, first: Int, count: Int) -> None:
        """Note where the results of each position of an item go."""
        kernel = self._kernel
        with kernel.loop(count, BLOCK) as block:
            start = minimum(first + block, self._last_start)
            with kernel.loop(BLOCK) as index:
                position = start + index
                row, column = divmod(position, kernel["row_positions"])
                inside = column.is_index_below(kernel["width"]) & row.is_index_below(kernel["height"])
                # The last block may begin within the one before.
                inside = inside & (first + block - 1 < position)
                pixel = self._result + (row * kernel["width"] + column) * self._columns
                self._destinations[block + index] = inside.select(pixel, self._discarded)

    def _prefetch_destinations(self, position: Int, column: Int) -> None:
        with self._kernel.loop(BLOCK) as row:
            (self._destinations[position + row] + column).prefetch(write=True)

    def _finish(self, position: Int, column: Int, sums: Pointer[F32]) -> None:
        """Add bias and result, clamp and write."""
        biases = [(self._bias + (column + half * ROWS)).load() for half in (0, 1)]
        with self._kernel.loop(BLOCK) as row:
            destination = self._destinations[position + row] + column
            for half, shift in enumerate(biases):
                target, total = destination + half * ROWS, (sums + (row + half * BLOCK) * ROWS).load()
                if self._add:
                    total += load_floats(target)
                store_floats(clamp(total + shift, self._low, self._high), target)
