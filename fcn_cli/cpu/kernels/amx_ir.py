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

POSITIONS = 1024
"""The most positions of an item."""

_TILE_PAIRS = ROWS * DEPTH
_FIELDS = (
    "image", "image_plane", "panels", "result", "result_plane", "bias", "low", "high", "configuration",
    "height", "width", "row_positions", "dilation", "positions", "positions_per_item", "channels", "columns",
    "chunk", "group", "sums", "sums_floats",
)  # fmt: skip
PF=os.environ.get("AMX_PF","")


def convolution(target: SimdTarget, *, taps: int, add: bool, groups: int, chunked: bool) -> Kernel:
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
        _Convolution(kernel, taps, add=add, groups=groups, chunked=chunked).build()

    return Kernel("amx_convolution", _FIELDS, build, target)


class _Convolution:
    """Builds the kernel."""

    def __init__(self, kernel: KernelBuilder, taps: int, *, add: bool, groups: int, chunked: bool) -> None:
        self._kernel = kernel
        self._add, self._groups, self._chunked = add, groups, chunked
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
            self._first = item * kernel["positions_per_item"]
            self._count = minimum(kernel["positions"] - self._first, kernel["positions_per_item"])
            self._find_pixels()
            ir_amx.configure(self._configuration)
            if self._chunked:
                self._chunks(sums)
            else:
                with kernel.loop(self._columns, BLOCK) as column:
                    panel = self._panels + column * self._channels * len(self._taps)
                    self._panel(column, panel, sums)
            ir_amx.release(self._result.function)

    def _chunks(self, sums: Pointer[F32]) -> None:
        """Take a chunk of channels after another, with the sums of all parts in memory."""
        kernel = self._kernel
        size = kernel["positions_per_item"]
        zero = kernel.splat(0.0)
        with kernel.loop(size * self._columns, sums.lanes) as index:
            (sums + index).store(zero)
        with kernel.loop(self._channels, kernel["chunk"]) as channel:
            image = self._image + channel // DEPTH * kernel["image_plane"]
            with kernel.loop(self._columns, BLOCK) as column:
                panel = self._panels + (column * self._channels + channel * BLOCK) * len(self._taps)
                self._later_groups(image, panel, sums + column * size, kernel["chunk"] // kernel["group"])
        with kernel.loop(self._columns, BLOCK) as column, kernel.loop(self._count, BLOCK) as position:
            self._finish(position, column, sums + (column * size + position * BLOCK))

    def _panel(self, column: Int, panel: Pointer[BF16], sums: Pointer[F32]) -> None:
        """Compute a panel of columns: group by group of channels, whose panel stays in L1."""
        kernel, image, group = self._kernel, self._image, self._kernel["group"]
        one_group = self._groups == 1
        with kernel.loop(self._count, BLOCK) as position:
            for tile in self._sums:
                tile.zero()
            part = sums if one_group else sums + position * BLOCK
            if one_group:
                self._prefetch_result(column, position)
            self._add_products(image, panel, position, part, ahead=not one_group)
            if one_group:
                self._finish(position, column, part)
        if one_group:
            return
        after, panel_after = group // DEPTH * kernel["image_plane"], group * (len(self._taps) * BLOCK)
        image, panel = image + after, panel + panel_after
        if self._groups > 2:
            image, panel = self._later_groups(image, panel, sums, self._channels // group - 2)
        with kernel.loop(self._count, BLOCK) as position:
            part = sums + position * BLOCK
            self._prefetch_result(column, position)
            for tile, start in self._tiles_of(part):
                tile.load(start, ROWS)
            self._add_products(image, panel, position, part, ahead=True)
            self._finish(position, column, part)

    def _later_groups(
        self, image: Pointer[BF16], panel: Pointer[BF16], sums: Pointer[F32], groups: Int
    ) -> tuple[Pointer[BF16], Pointer[BF16]]:
        """Add the products of some groups to sums in memory; return where the next group begins."""
        kernel, group = self._kernel, self._kernel["group"]
        images, panels = Variable(image), Variable(panel)
        with kernel.loop(groups, carried=[images, panels]):
            with kernel.loop(self._count, BLOCK) as position:
                part = sums + position * BLOCK
                for tile, start in self._tiles_of(part):
                    tile.load(start, ROWS)
                self._add_products(images.value, panels.value, position, part, ahead=True)
            images.value += group // DEPTH * kernel["image_plane"]
            panels.value += group * (len(self._taps) * BLOCK)
        return images.value, panels.value

    def _prefetch_result(self, column: Int, position: Int) -> None:
        if "r" in PF:
            target = self._result_at(column, position)
            for row in range(BLOCK): (target + row * BLOCK).prefetch(write=True)

    def _add_products(
        self, image: Pointer[BF16], panel: Pointer[BF16], position: Int, sums: Pointer[F32], *, ahead: bool
    ) -> None:
        """Add the products of a group of channels, and store the sums."""
        kernel = self._kernel
        left, right = Variable(image + (self._first + position) * DEPTH), Variable(panel)
        size = kernel["group"] * (len(self._taps) * BLOCK)
        following = Variable(panel + size + position * size // (ROWS * BLOCK))
        with kernel.loop(kernel["group"] // DEPTH, carried=[left, right, following]):
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
                    for line in range(2):
                        (following.value + (index * 2 + line) * DEPTH).prefetch()
            left.value += kernel["image_plane"]
            right.value += self._step_pairs
            following.value += 2 * DEPTH * len(self._taps)
        for tile, target in self._tiles_of(sums):
            tile.store(target, ROWS)

    def _tiles_of(self, sums: Pointer[F32]) -> list[tuple[Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: the left 16 columns of all rows come first."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))

    def _find_pixels(self) -> None:
        """Note which positions of an item are pixels."""
        kernel, zero = self._kernel, self._first * 0
        with kernel.loop((self._count + (BLOCK - 1)) // BLOCK * BLOCK) as index:
            row, column = divmod(self._first + index, kernel["row_positions"])
            inside = column.is_index_below(kernel["width"]) & row.is_index_below(kernel["height"])
            self._are_pixels[index] = inside.select(zero + 1, zero)

    def _result_at(self, column: Int, position: Int) -> Pointer[BF16]:
        plane = column // BLOCK * self._kernel["result_plane"]
        return self._result + (plane + (self._first + position) * BLOCK)

    def _finish(self, position: Int, column: Int, sums: Pointer[F32]) -> None:
        """Add bias and result, clamp and write."""
        biases = [(self._bias + (column + half * ROWS)).load() for half in (0, 1)]
        result = self._result_at(column, position)
        with self._kernel.loop(BLOCK) as row:
            is_pixel = self._are_pixels[position + row]
            destination = (is_pixel < 1).select(self._discarded, result + row * BLOCK)
            for half, shift in enumerate(biases):
                target, total = destination + half * ROWS, (sums + (row + half * BLOCK) * ROWS).load()
                if self._add:
                    total += load_floats(target)
                store_floats(clamp(total + shift, self._low, self._high), target)
