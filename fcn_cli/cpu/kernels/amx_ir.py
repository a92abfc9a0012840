"""Build the convolution by tiles of AMX; `amx` explains how it works and checks its arguments."""

from __future__ import annotations

from . import ir_amx
from .compiler import Kernel
from .ir_amx import DEPTH, ROWS, Tile
from .ir_bf16 import load_floats, store_floats
from .ir_builder import KernelBuilder, Variable
from .ir_values import Int, Pointer, clamp, minimum
from .llvm import BF16, F32, I64, U8, Function
from .simd_targets import SimdTarget

BLOCK = 2 * ROWS
"""The positions, and the columns, of a part of the result: 2 x 2 tiles of sums."""

POSITIONS = 512
"""The most positions of an item."""

GROUPS = 3
"""A kernel with as many groups of channels can have more."""

_TILE = ROWS * DEPTH
_CONVOLUTION = (
    "image", "image_plane", "panels", "result", "result_plane", "bias", "low", "high", "configuration",
    "height", "width", "row_positions", "dilation", "positions", "positions_per_item", "channels", "columns",
    "chunk", "group", "sums", "sums_floats",
)  # fmt: skip


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
    groups
        The groups of channels in a chunk: 1, 2, or `GROUPS` for as many and more.
    chunked
        Whether there are several chunks of channels.
    """

    def build(kernel: KernelBuilder) -> None:
        _Convolution(kernel, taps, add=add, groups=groups, chunked=chunked).build()

    return Kernel("amx_convolution", _CONVOLUTION, build, target)


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
            tile.load(place, ROWS)

    def store(self, sums: Pointer[F32]) -> None:
        """Store the sums."""
        for tile, place in self._places(sums):
            tile.store(place, ROWS)

    def add_products(self, pixels: Pointer[BF16], panel: Pointer[BF16]) -> None:
        """Add the products of 32 positions, channels and columns to the sums."""
        upper, lower = self._left
        upper.load(pixels, DEPTH)
        for half, right in enumerate(self._right):
            right.load(panel + half * _TILE, DEPTH)
            self._sums[half].add_product(upper, right)
        lower.load(pixels + _TILE, DEPTH)
        for half, right in enumerate(self._right):
            self._sums[2 + half].add_product(lower, right)

    def _places(self, sums: Pointer[F32]) -> list[tuple[Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: first the left 16 columns of all positions."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))


class _Convolution:
    """Builds the kernel."""

    def __init__(self, kernel: KernelBuilder, taps: int, *, add: bool, groups: int, chunked: bool) -> None:
        self._kernel = kernel
        self._add, self._groups, self._chunked = add, groups, chunked
        self._image, self._panels = kernel.pointer("image", BF16), kernel.pointer("panels", BF16)
        self._low, self._high = kernel.broadcast("low"), kernel.broadcast("high")
        right = kernel["dilation"] * DEPTH
        down = right * kernel["row_positions"]
        self._taps = [down * row + right * column for row in range(taps) for column in range(taps)]
        self._group_plane = kernel["group"] // DEPTH * kernel["image_plane"]
        self._group_panel = kernel["group"] * (len(self._taps) * BLOCK)
        # What is computed for positions that are no pixels is written here.
        self._discarded = kernel.alloca(BF16, BLOCK)
        self._are_pixels = kernel.alloca(I64, POSITIONS)
        self._tiles = _Tiles(self._image.function)

    def build(self) -> None:
        kernel = self._kernel
        sums = kernel.pointer("sums", F32) + kernel.thread() * kernel["sums_floats"]
        configuration = kernel.pointer("configuration", U8)
        with kernel.parallel_for() as item:
            self._first = item * kernel["positions_per_item"]
            self._count = minimum(kernel["positions"] - self._first, kernel["positions_per_item"])
            self._find_pixels()
            ir_amx.configure(configuration)
            if self._chunked:
                self._all_chunks(sums)
            else:
                with kernel.loop(kernel["columns"], BLOCK) as column:
                    self._one_panel(column, sums)
            ir_amx.release(self._image.function)

    def _find_pixels(self) -> None:
        """Note which positions of an item are pixels."""
        kernel, zero = self._kernel, self._first * 0
        with kernel.loop((self._count + (BLOCK - 1)) // BLOCK * BLOCK) as index:
            row, column = divmod(self._first + index, kernel["row_positions"])
            inside = column.is_index_below(kernel["width"]) & row.is_index_below(kernel["height"])
            self._are_pixels[index] = inside.select(zero + 1, zero)

    def _one_panel(self, column: Int, sums: Pointer[F32]) -> None:
        """Compute 32 columns of an item; between groups of channels, the sums are in memory."""
        kernel, image = self._kernel, self._image
        panel = self._panels + column * kernel["channels"] * len(self._taps)
        last = self._groups == 1
        with kernel.loop(self._count, BLOCK) as position:
            part = sums if last else sums + position * BLOCK
            self._tiles.zero()
            self._multiply(image, panel, position, part, finish=column if last else None)
        if last:
            return
        image, panel = image + self._group_plane, panel + self._group_panel
        if self._groups > 2:
            between = kernel["channels"] // kernel["group"] - 2
            image, panel = self._add_groups(image, panel, sums, between)
        with kernel.loop(self._count, BLOCK) as position:
            part = sums + position * BLOCK
            self._tiles.load(part)
            self._multiply(image, panel, position, part, finish=column)

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
            self._finish(column, position, sums + (column * item + position * BLOCK))

    def _add_groups(
        self, image: Pointer[BF16], panel: Pointer[BF16], sums: Pointer[F32], count: Int
    ) -> tuple[Pointer[BF16], Pointer[BF16]]:
        """Add the products of some groups to the sums of a panel; return where the next group begins."""
        images, panels = Variable(image), Variable(panel)
        with self._kernel.loop(count, carried=[images, panels]):
            with self._kernel.loop(self._count, BLOCK) as position:
                part = sums + position * BLOCK
                self._tiles.load(part)
                self._multiply(images.value, panels.value, position, part)
            images.value += self._group_plane
            panels.value += self._group_panel
        return images.value, panels.value

    def _multiply(
        self,
        image: Pointer[BF16],
        panel: Pointer[BF16],
        position: Int,
        sums: Pointer[F32],
        *,
        finish: Int | None = None,
    ) -> None:
        """Add the products of a group to the sums in tiles, and store these; finish the given column."""
        kernel, steps = self._kernel, len(self._taps)
        if finish is not None and self._add:
            for row in range(BLOCK):
                (self._result(finish, position) + row * BLOCK).prefetch(write=True)
        left, right = Variable(image + (self._first + position) * DEPTH), Variable(panel)
        # Sixteen blocks prefetch the next group of the panel, each as many lines.
        lines = self._group_panel // (ROWS * BLOCK) * position
        following = Variable(panel + self._group_panel + lines)
        with kernel.loop(kernel["group"] // DEPTH, carried=[left, right, following]):
            for index, tap in enumerate(self._taps):
                self._tiles.add_products(left.value + tap, right.value + index * 2 * _TILE)
                if index % 3 == 2:
                    self._prefetch_pixels(left.value + tap)
                for line in (0, 1):
                    (following.value + (2 * index + line) * DEPTH).prefetch()
            left.value += kernel["image_plane"]
            right.value += steps * 2 * _TILE
            following.value += steps * 2 * DEPTH
        self._tiles.store(sums)
        if finish is not None:
            self._finish(finish, position, sums)

    def _prefetch_pixels(self, pixels: Pointer[BF16]) -> None:
        """Prefetch what the right-most tap of the next block reads: the taps left of it read the same."""
        for position in range(BLOCK, 2 * BLOCK):
            (pixels + position * DEPTH).prefetch()

    def _result(self, column: Int, position: Int) -> Pointer[BF16]:
        plane = column // BLOCK * self._kernel["result_plane"]
        return self._kernel.pointer("result", BF16) + (plane + (self._first + position) * BLOCK)

    def _finish(self, column: Int, position: Int, sums: Pointer[F32]) -> None:
        """Add bias and result, clamp and write."""
        bias = self._kernel.pointer("bias", F32) + column
        biases = [(bias + half * ROWS).load() for half in (0, 1)]
        result = self._result(column, position)
        with self._kernel.loop(BLOCK) as row:
            is_pixel = self._are_pixels[position + row]
            pixel = (is_pixel < 1).select(self._discarded, result + row * BLOCK)
            for half, shift in enumerate(biases):
                target, total = pixel + half * ROWS, (sums + (half * BLOCK + row) * ROWS).load()
                if self._add:
                    total += load_floats(target)
                store_floats(clamp(total + shift, self._low, self._high), target)
