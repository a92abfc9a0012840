"""Build the convolution by tiles of AMX; `amx` explains how it works and checks its arguments."""

from __future__ import annotations

from . import ir_amx
from .compiler import Kernel
from .ir_amx import DEPTH, ROWS, Tile
from .ir_bf16 import load_floats, store_floats
from .ir_builder import KernelBuilder, Variable
from .ir_values import Int, Pointer, clamp, minimum
from .llvm import BF16, F32, I64, U8
from .simd_targets import SimdTarget
import os

BLOCK = 2 * ROWS
"""The positions, and the columns, of a part of the result: 2 x 2 tiles of sums."""

POSITIONS = 512
"""The most positions of an item."""

_TILE_PAIRS = ROWS * DEPTH
_FIELDS = (
    "image", "image_plane", "panels", "result", "result_plane", "bias", "low", "high", "configuration",
    "height", "width", "row_positions", "dilation", "positions", "positions_per_item", "channels", "columns",
    "chunk", "group", "sums", "sums_floats",
)  # fmt: skip
PF=os.environ.get("AMX_PF","")


def convolution(target: SimdTarget, *, taps: int, add: bool, deep: bool, chunked: bool) -> Kernel:
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
        _Convolution(kernel, taps, add=add, deep=deep, chunked=chunked).build()

    return Kernel("amx_convolution", _FIELDS, build, target)


class _Convolution:
    """Builds the kernel."""

    def __init__(self, kernel: KernelBuilder, taps: int, *, add: bool, deep: bool, chunked: bool) -> None:
        self._kernel = kernel
        self._add, self._deep, self._chunked = add, deep, chunked
        self._columns, self._channels = kernel["columns"], kernel["channels"]
        self._image, self._panels = kernel.pointer("image", BF16), kernel.pointer("panels", BF16)
        self._result, self._bias = kernel.pointer("result", BF16), kernel.pointer("bias", F32)
        self._low, self._high = kernel.broadcast("low"), kernel.broadcast("high")
        step = kernel["dilation"] * DEPTH
        self._taps = [
            kernel["row_positions"] * step * row + step * column
            for row in range(taps)
            for column in range(taps)
        ]
        self._step_pairs = len(self._taps) * 2 * _TILE_PAIRS
        self._configuration = kernel.pointer("configuration", U8)
        # What is computed for positions that are no pixels is written here.
        self._discarded = kernel.alloca(BF16, DEPTH)
        self._are_pixels = kernel.alloca(I64, POSITIONS)
        function = self._result.function
        self._sums = [Tile(function, number) for number in range(4)]
        self._left, self._right = (Tile(function, 4), Tile(function, 5)), (Tile(function, 6), Tile(function, 7))

    def build(self) -> None:
        kernel = self._kernel
        sums = kernel.pointer("sums", F32) + kernel.thread() * kernel["sums_floats"]
        with kernel.parallel_for() as item:
            first = item * kernel["positions_per_item"]
            count = minimum(kernel["positions"] - first, kernel["positions_per_item"])
            self._find_pixels(first, count)
            ir_amx.configure(self._configuration)
            if self._chunked:
                self._chunks(first, count, sums)
            else:
                with kernel.loop(self._columns, BLOCK) as column:
                    self._add_chunk(first, count, column, sums, None)
                    with kernel.loop(count, BLOCK) as position:
                        self._finish(first, position, column, sums + position * BLOCK)
            ir_amx.release(self._result.function)

    def _chunks(self, first: Int, count: Int, sums: Pointer[F32]) -> None:
        """Take a chunk of channels after another, with the sums of all parts in memory."""
        kernel = self._kernel
        size = kernel["positions_per_item"]
        zero = kernel.splat(0.0)
        with kernel.loop(size * self._columns, sums.lanes) as index:
            (sums + index).store(zero)
        with kernel.loop(self._channels, kernel["chunk"]) as channel:
            with kernel.loop(self._columns, BLOCK) as column:
                self._add_chunk(first, count, column, sums + column * size, channel)
        with kernel.loop(self._columns, BLOCK) as column, kernel.loop(count, BLOCK) as position:
            self._finish(first, position, column, sums + column * size + position * BLOCK)

    def _add_chunk(self, first: Int, count: Int, column: Int, sums: Pointer[F32], channel: Int | None) -> None:
        """Add the products of a chunk with a panel: group by group of channels, whose panel stays in L1."""
        kernel, taps = self._kernel, len(self._taps)
        panel = self._panels + column * self._channels * taps
        image = self._image
        if channel is not None:
            panel += channel * (taps * BLOCK)
            image += channel // DEPTH * kernel["image_plane"]
        group = kernel["group"]
        if channel is None:
            with kernel.loop(count, BLOCK) as position:
                for tile in self._sums:
                    tile.zero()
                self._add_products(image, panel, first + position, sums + position * BLOCK, position)
            if not self._deep:
                return
            panel += group * (taps * BLOCK)
            image += group // DEPTH * kernel["image_plane"]
            groups = kernel["chunk"] // group - 1
        else:
            groups = kernel["chunk"] // group
        images, panels = Variable(image), Variable(panel)
        with kernel.loop(groups, carried=[images, panels]):
            with kernel.loop(count, BLOCK) as position:
                part = sums + position * BLOCK
                for tile, start in self._tiles_of(part):
                    tile.zero() if 'z' in PF else tile.load(start, ROWS)
                self._add_products(images.value, panels.value, first + position, part, position)
            images.value += group // DEPTH * kernel["image_plane"]
            panels.value += group * (taps * BLOCK)

    def _add_products(
        self, image: Pointer[BF16], panel: Pointer[BF16], position: Int, sums: Pointer[F32], offset: Int
    ) -> None:
        """Add the products of a group of channels, and store the sums."""
        kernel, group = self._kernel, self._kernel["group"]
        left, right = Variable(image + position * DEPTH), Variable(panel)
        taps = len(self._taps)
        ahead = Variable(panel + group * (taps * BLOCK) + offset * (group * (taps * 64 // DEPTH // BLOCK)))
        with kernel.loop(group // DEPTH, carried=[left, right, ahead]):
            for index, tap in enumerate(self._taps):
                pixels = left.value + tap
                self._left[0].load(pixels, DEPTH)
                tiles = right.value + index * 2 * _TILE_PAIRS
                for half, tile in enumerate(self._right):
                    tile.load(tiles + half * _TILE_PAIRS, DEPTH)
                    self._sums[half].add_product(self._left[0], tile)
                self._left[1].load(pixels + DEPTH * ROWS, DEPTH)
                for half, tile in enumerate(self._right):
                    self._sums[2 + half].add_product(self._left[1], tile)
                if "b" in PF:
                    (ahead.value + index * 64).prefetch()
                    (ahead.value + index * 64 + 32).prefetch()
            left.value += kernel["image_plane"]
            right.value += self._step_pairs
            ahead.value += taps * 64
        if "s" in PF: return
        for tile, target in self._tiles_of(sums):
            tile.store(target, ROWS)

    def _tiles_of(self, sums: Pointer[F32]) -> list[tuple[Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: the left 16 columns of all rows come first."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))

    def _find_pixels(self, first: Int, count: Int) -> None:
        """Note which positions of an item are pixels."""
        kernel = self._kernel
        with kernel.loop((count + (BLOCK - 1)) // BLOCK * BLOCK) as index:
            row, column = divmod(first + index, kernel["row_positions"])
            inside = column.is_index_below(kernel["width"]) & row.is_index_below(kernel["height"])
            self._are_pixels[index] = inside.select(count * 0 + 1, count * 0)

    def _finish(self, first: Int, position: Int, column: Int, sums: Pointer[F32]) -> None:
        """Add bias and result, clamp and write."""
        biases = [(self._bias + (column + half * ROWS)).load() for half in (0, 1)]
        result = self._result + (column // BLOCK * self._kernel["result_plane"] + (first + position) * BLOCK)
        with self._kernel.loop(BLOCK) as row:
            is_pixel = self._are_pixels[position + row]
            destination = (is_pixel < 1).select(self._discarded, result + row * BLOCK)
            for half, shift in enumerate(biases):
                target, total = destination + half * ROWS, (sums + (row + half * BLOCK) * ROWS).load()
                if self._add:
                    total += load_floats(target)
                store_floats(clamp(total + shift, self._low, self._high), target)
