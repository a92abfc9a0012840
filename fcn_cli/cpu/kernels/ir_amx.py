"""The tiles of AMX in kernels: eight registers of 16 rows of 64 bytes, which only tile instructions know.

A tile of sums holds 16 x 16 float32. A left factor is 16 rows of 32 bfloat16; a right one is 16 rows of 16
*pairs*, so that row k holds the rows 2k and 2k + 1 of the matrix, column by column. Tiles have fixed numbers:
LLVM does not choose them. Their registers hold something only between `configure` and `release`.
"""

from __future__ import annotations

from .ir_values import E, Int, Pointer
from .llvm import U8, Function

ROWS = 16
"""The rows of a tile, and the columns of a tile of float32."""

ROW_BYTES = 64
DEPTH = 32
"""The rows of the right factor that one instruction multiplies."""


def configuration() -> bytes:
    """Return what `configure` reads: palette 1, and eight whole tiles."""
    row_bytes = ROW_BYTES.to_bytes(2, "little") * 8 + bytes(16)
    return bytes([1]) + bytes(15) + row_bytes + bytes([ROWS] * 8) + bytes(8)


def configure(configuration: Pointer[U8]) -> None:
    """Set the shapes of the tiles of this thread, which become zeros."""
    configuration.function.tile_instruction("ldtilecfg", (), configuration.raw)


class Tile:
    """One of the tiles, by its number."""

    def __init__(self, function: Function, number: int) -> None:
        self._function = function
        self._number = number

    def zero(self) -> None:
        """Fill the tile with zeros."""
        self._function.tile_instruction("tilezero", (self._number,))

    def load(self, source: Pointer[E], stride: Int | int, *, once: bool = False) -> None:
        """Load 64 bytes of each row; `stride` is the distance of rows in elements.

        What is loaded only `once` leaves the L1 cache to other data.
        """
        self._move("tileloaddt164" if once else "tileloadd64", source, stride)

    def store(self, target: Pointer[E], stride: Int | int) -> None:
        """Store 64 bytes of each row; `stride` is the distance of rows in elements."""
        self._move("tilestored64", target, stride)

    def add_product(self, left: Tile, right: Tile) -> None:
        """Add the product of two tiles of bfloat16. Subnormal numbers count as zeros."""
        numbers = (self._number, left._number, right._number)
        self._function.tile_instruction("tdpbf16ps", numbers)

    def _move(self, name: str, memory: Pointer[E], stride: Int | int) -> None:
        rows = stride if isinstance(stride, Int) else Int(self._function, self._function.integer(stride))
        distance = rows * memory.element.size
        self._function.tile_instruction(name, (self._number,), memory.raw, distance.raw)


def release(function: Function) -> None:
    """Give the tiles up: other code of this thread may configure them otherwise."""
    function.tile_instruction("tilerelease", ())
