"""Build the convolution by tiles of AMX; `amx` explains how it works and checks its arguments."""

from __future__ import annotations

from . import ir_amx
from .compiler import Kernel
from .ir_amx import DEPTH, ROWS, Tile
from .ir_bf16 import load_floats, store_both
from .ir_builder import KernelBuilder, Variable
from .ir_values import Int, Pointer, clamp, minimum
from .llvm import BF16, F32, I64, U8, Function
from .simd_targets import SimdTarget

BLOCK = 2 * ROWS
"""The positions, and the columns, of a part of the result: 2 x 2 tiles of sums."""

POSITIONS = 512
"""The most positions of an item."""

STEPS = 16
"""A group of channels has as many products of 32 channels at most: its panel stays in the L1 cache."""

TAPS, PARTS = 9, 3
"""The taps of a 3x3 filter, and the bfloat16 that a float32 weight is the sum of."""

GROUPS = 3
"""A kernel with as many groups of channels can have more."""

# After as many of the nine taps, rows of the block before are written.
_WRITING_TAPS = 8
_TILE = ROWS * DEPTH
_CONVOLUTION = (
    "image", "image_plane", "panels", "result", "result_plane", "bias", "low", "high", "configuration",
    "height", "width", "row_positions", "dilation", "positions", "positions_per_item", "channels", "columns",
    "chunk", "group", "rows", "sums", "sums_floats",
)  # fmt: skip


def convolution(target: SimdTarget, *, steps: int, add: bool, groups: int, chunked: bool) -> Kernel:
    """Build the kernel of `amx.convolution`.

    Parameters
    ----------
    target
        The vectors to compile for.
    steps
        The products of 32 channels of a position: 1, `TAPS` of a 3x3 filter, or `PARTS` of weights in float32;
        of these the result is float32 too.
    add
        Whether to add to the result.
    groups
        The groups of channels in a chunk: 1, 2, or `GROUPS` for as many and more.
    chunked
        Whether there are several chunks of channels.
    """

    def build(kernel: KernelBuilder) -> None:
        _Convolution(kernel, steps, add=add, groups=groups, chunked=chunked).build()

    return Kernel("amx_convolution", _CONVOLUTION, build, target)


def rows_at_a_time(steps: int, group: int) -> int:
    """Return how many rows of a block are written each time that some are: between all taps, or channels."""
    return BLOCK // _WRITING_TAPS if steps == TAPS else BLOCK * DEPTH // group


class _Tiles:
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
        """Add the products of 32 positions, channels and columns to the sums; `once` is that of the pixels."""
        upper, lower = self._left
        upper.load(pixels, DEPTH, once=once)
        for half, right in enumerate(self._right):
            right.load(panel + half * _TILE, DEPTH)
            self._sums[half].add_product(upper, right)
        lower.load(pixels + _TILE, DEPTH, once=once)
        for half, right in enumerate(self._right):
            self._sums[2 + half].add_product(lower, right)

    def _places(self, sums: Pointer[F32]) -> list[tuple[Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: first the left 16 columns of all positions."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))


class _Results:
    """Turns sums into results: adds the bias, and the earlier result if asked to, clamps, and writes pixels."""

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
        target, halves = (is_pixel < 1).select(self._discarded, pixel), []
        for half in (0, 1):
            total = (sums + (half * BLOCK + row) * ROWS).load()
            if self._add:
                total += load_floats(target + half * ROWS)
            bias = (self._kernel.pointer("bias", F32) + (column + half * ROWS)).load()
            halves.append(clamp(total + bias, self._low, self._high))
        store_both(*halves, target)


class _Convolution:
    """Builds the kernel."""

    def __init__(self, kernel: KernelBuilder, steps: int, *, add: bool, groups: int, chunked: bool) -> None:
        self._kernel = kernel
        self._groups, self._chunked = groups, chunked
        self._image, self._panels = kernel.pointer("image", BF16), kernel.pointer("panels", BF16)
        right = kernel["dilation"] * DEPTH
        down = right * kernel["row_positions"]
        self._taps = [right * 0] * steps
        if steps == TAPS:
            self._taps = [down * row + right * column for row in range(3) for column in range(3)]
        self._group_plane = kernel["group"] // DEPTH * kernel["image_plane"]
        self._group_panel = kernel["group"] * (len(self._taps) * BLOCK)
        self._tiles = _Tiles(self._image.function)
        self._results = _Results(kernel, F32 if steps == PARTS else BF16, add=add)
        # The sums of two blocks.
        self._last = kernel.alloca(F32, 2 * BLOCK * BLOCK)

    def build(self) -> None:
        kernel = self._kernel
        sums = kernel.pointer("sums", F32) + kernel.thread() * kernel["sums_floats"]
        configuration = kernel.pointer("configuration", U8)
        with kernel.parallel_for() as item:
            # No thread gets more than one block more than another.
            blocks = (kernel["positions"] + (BLOCK - 1)) // BLOCK
            self._first = item * blocks // kernel["items"] * BLOCK
            end = (item + 1) * blocks // kernel["items"] * BLOCK
            self._count = minimum(end, kernel["positions"]) - self._first
            self._results.begin(self._first, self._count)
            ir_amx.configure(configuration)
            if self._chunked:
                self._all_chunks(sums)
            else:
                with kernel.loop(kernel["columns"], BLOCK) as column:
                    self._one_panel(column, sums)
            ir_amx.release(self._image.function)

    def _one_panel(self, column: Int, sums: Pointer[F32]) -> None:
        """Compute 32 columns of an item; between groups of channels, the sums are in memory."""
        kernel, image = self._kernel, self._image
        panel = self._panels + column * kernel["channels"] * len(self._taps)
        if self._groups == 1:
            self._last_group(image, panel, column)
            return
        with kernel.loop(self._count, BLOCK) as position:
            self._tiles.zero()
            self._multiply(image, panel, position)
            self._tiles.store(sums + position * BLOCK)
        image, panel = image + self._group_plane, panel + self._group_panel
        if self._groups > 2:
            between = kernel["channels"] // kernel["group"] - 2
            image, panel = self._add_groups(image, panel, sums, between)
        self._last_group(image, panel, column, sums)

    def _all_chunks(self, sums: Pointer[F32]) -> None:
        """Compute an item; the sums of all columns are in memory."""
        kernel, item, zero = self._kernel, self._kernel["positions_per_item"], self._kernel.splat(0.0)
        with kernel.loop(item * kernel["columns"], sums.lanes) as index:
            (sums + index).store(zero)
        groups = kernel["chunk"] // kernel["group"]
        with kernel.loop(kernel["channels"] // kernel["chunk"]) as index:
            channel = index * kernel["chunk"]
            image = self._image + channel // DEPTH * kernel["image_plane"]
            with kernel.loop(kernel["columns"], BLOCK) as column:
                panel = self._panels + (column * kernel["channels"] + channel * BLOCK) * len(self._taps)
                self._add_groups(image, panel, sums + column * item, groups)
        with kernel.loop(kernel["columns"], BLOCK) as column, kernel.loop(self._count, BLOCK) as position:
            self._results.write(column, position, sums + (column * item + position * BLOCK))

    def _add_groups(
        self, image: Pointer[BF16], panel: Pointer[BF16], sums: Pointer[F32], count: Int
    ) -> tuple[Pointer[BF16], Pointer[BF16]]:
        """Add the products of some groups to the sums of a panel; return where the next group begins."""
        images, panels = Variable(image), Variable(panel)
        with self._kernel.loop(count, carried=[images, panels]):
            with self._kernel.loop(self._count, BLOCK) as position:
                part = sums + position * BLOCK
                self._tiles.load(part)
                self._multiply(images.value, panels.value, position)
                self._tiles.store(part)
            images.value += self._group_plane
            panels.value += self._group_panel
        return images.value, panels.value

    def _last_group(
        self, image: Pointer[BF16], panel: Pointer[BF16], column: Int, sums: Pointer[F32] | None = None
    ) -> None:
        """Add the products of a panel's last group to the sums, if there are any, and write the results.

        The vectors write a block while the tiles multiply the next one.
        """
        with self._kernel.loop(self._count, BLOCK) as position:
            if sums is None:
                self._tiles.zero()
            else:
                self._tiles.load(sums + position * BLOCK)
            self._multiply(image, panel, position, written=column)
            self._tiles.store(self._last_sums(position))
        last = (self._count - 1) // BLOCK * BLOCK
        self._results.write(column, last, self._last_sums(last))

    def _last_sums(self, position: Int) -> Pointer[F32]:
        """Return memory for a block's sums, other than for the blocks beside it."""
        return self._last + position % (2 * BLOCK) * BLOCK

    def _multiply(
        self, image: Pointer[BF16], panel: Pointer[BF16], position: Int, *, written: Int | None = None
    ) -> None:
        """Add the products of a group to the tiles; meanwhile, write the block before, of a column."""
        kernel, steps = self._kernel, len(self._taps)
        left, right = Variable(image + (self._first + position) * DEPTH), Variable(panel)
        # Sixteen blocks prefetch the next group of the panel, each as many lines.
        lines = self._group_panel // (ROWS * BLOCK) * position
        following = Variable(panel + self._group_panel + lines)
        row = Variable(position * 0)
        with kernel.loop(kernel["group"] // DEPTH, carried=[left, right, following, row]):
            for index, tap in enumerate(self._taps):
                weights = right.value + index * 2 * _TILE
                self._tiles.add_products(left.value + tap, weights, once=steps == 1)
                if steps == TAPS and index % 3 == 2:
                    self._prefetch_pixels(left.value + tap)
                for line in (0, 1):
                    (following.value + (2 * index + line) * DEPTH).prefetch()
                if written is not None and index < (_WRITING_TAPS if steps == TAPS else 1):
                    self._write_some(written, position, row)
            left.value += kernel["image_plane"]
            right.value += steps * 2 * _TILE
            following.value += steps * 2 * DEPTH

    def _write_some(self, column: Int, position: Int, row: Variable[Int]) -> None:
        """Write the next rows of the block before a position."""
        sums = self._last_sums(position + BLOCK)
        rows = self._kernel["rows"]
        with self._kernel.loop(rows) as index:
            self._results.write_row(column, position - BLOCK, sums, row.value + index)
        row.value += rows

    def _prefetch_pixels(self, pixels: Pointer[BF16]) -> None:
        """Prefetch what the right-most tap of the next block reads: the taps left of it read the same."""
        for position in range(BLOCK, 2 * BLOCK):
            (pixels + position * DEPTH).prefetch()
