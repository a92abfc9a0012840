"""A block of a convolution's result: its sums in tiles of AMX, and what vectors do with them."""

from __future__ import annotations

from .ir_amx import DEPTH, ROWS, Tile
from .ir_bf16 import load_floats, store_both
from .ir_builder import KernelBuilder, Variable
from .ir_values import Int, Pointer, clamp
from .llvm import BF16, F32, I64, Function

BLOCK = 2 * ROWS
"""The positions, and the columns, of a block: 2 x 2 tiles of sums."""

POSITIONS = 512
"""The most positions of an item."""

TILE = ROWS * DEPTH
"""The numbers of a tile of bfloat16."""


class Tiles:
    """The eight tiles: 2 x 2 of sums, and those of 32 positions and of 32 columns."""

    def __init__(self, function: Function) -> None:
        self._sums = [Tile(function, number) for number in range(4)]
        self._left = [Tile(function, number) for number in (4, 5)]
        self._right = [Tile(function, number) for number in (6, 7)]

    def zero(self) -> None:
        """Set the sums to zero."""
        for tile in self._sums:
            tile.zero()

    def load(self, sums: Pointer[F32]) -> None:
        """Load the sums."""
        for tile, place in self._places(sums):
            tile.load(place, ROWS, once=True)

    def store(self, sums: Pointer[F32]) -> None:
        """Store the sums."""
        for tile, place in self._places(sums):
            tile.store(place, ROWS)

    def add_products(self, pixels: Pointer[BF16], panel: Pointer[BF16], *, once: bool) -> None:
        """Add the products of 32 positions, channels and columns; `once` says how pixels are loaded."""
        upper, lower = self._left
        upper.load(pixels, DEPTH, once=once)
        for half, right in enumerate(self._right):
            right.load(panel + half * TILE, DEPTH)
            self._sums[half].add_product(upper, right)
        lower.load(pixels + TILE, DEPTH, once=once)
        for half, right in enumerate(self._right):
            self._sums[2 + half].add_product(lower, right)

    def _places(self, sums: Pointer[F32]) -> list[tuple[Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: first the left 16 columns of all positions."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))


class Results:
    """Turns sums into results: adds the bias, and the earlier result if asked to; clamps; writes pixels."""

    def __init__(self, kernel: KernelBuilder, element: type[BF16 | F32], *, add: bool) -> None:
        self._kernel, self._add = kernel, add
        self._result = kernel.pointer("result", element)
        self._low, self._high = kernel.broadcast("low"), kernel.broadcast("high")
        # What is computed for positions that are no pixels is written here.
        self._discarded = kernel.alloca(element, BLOCK)
        self._are_pixels = kernel.alloca(I64, BLOCK + POSITIONS)

    def begin(self, first: Int, count: Int) -> None:
        """Note which of the positions from `first` are pixels; no position before them is one."""
        kernel, zero = self._kernel, first * 0
        self._first = first
        with kernel.loop(BLOCK) as index:
            self._are_pixels[index] = zero
        row, column = map(Variable, divmod(first, kernel["row_positions"]))
        with kernel.loop((count + (BLOCK - 1)) // BLOCK * BLOCK, carried=[row, column]) as index:
            inside = column.value.is_index_below(kernel["width"]) & row.value.is_index_below(kernel["height"])
            self._are_pixels[index + BLOCK] = inside.select(zero + 1, zero)
            following = column.value + 1
            is_same_row = following < kernel["row_positions"]
            row.value = is_same_row.select(row.value, row.value + 1)
            column.value = is_same_row.select(following, zero)

    def write(self, column: Int, position: Int, sums: Pointer[F32]) -> None:
        """Write 32 positions, from `position`, and columns."""
        with self._kernel.loop(BLOCK) as row:
            self.write_row(column, position, sums, row)

    def write_row(self, column: Int, position: Int, sums: Pointer[F32], row: Int) -> None:
        """Write one of the 32 positions."""
        plane = column // BLOCK * self._kernel["result_plane"]
        pixel = self._result + (plane + (self._first + position + row) * BLOCK)
        is_pixel = self._are_pixels[position + row + BLOCK]
        target = (is_pixel < 1).select(self._discarded, pixel)
        halves = []
        for half in (0, 1):
            total = (sums + (half * BLOCK + row) * ROWS).load()
            if self._add:
                total += load_floats(target + half * ROWS)
            bias = (self._kernel.pointer("bias", F32) + (column + half * ROWS)).load()
            halves.append(clamp(total + bias, self._low, self._high))
        first, second = halves
        store_both(first, second, target)
