"""Build the convolution by tiles of AMX; `amx` explains how it works and checks its arguments."""

from __future__ import annotations

from . import ir_amx
from .amx_blocks import BLOCK, TILE, Results, Tiles
from .compiler import Kernel
from .ir_amx import DEPTH, ROWS
from .ir_builder import KernelBuilder, Variable
from .ir_values import Int, Pointer, minimum
from .llvm import BF16, F32, U8
from .simd_targets import SimdTarget

STEPS = 16
"""A group of channels has as many products of 32 channels at most: its panel stays in the L1 cache."""

TAPS, PARTS = 9, 3
"""The taps of a 3x3 filter, and the bfloat16 that a float32 weight is the sum of."""

ALL_STEPS = (1, PARTS, TAPS)
"""How many products of 32 channels a position can have."""

GROUPS = 3
"""A kernel with as many groups of channels can have more."""

# After as many of the nine taps, rows of the block before are written.
_WRITING_TAPS = 8
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
        The products of 32 channels of a position: 1, `TAPS` of a 3x3 filter, or `PARTS` of float32 weights,
        whose results are float32 too.
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
        self._tiles = Tiles(self._image.function)
        self._results = Results(kernel, F32 if steps == PARTS else BF16, add=add)
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
                weights = right.value + index * 2 * TILE
                self._tiles.add_products(left.value + tap, weights, once=steps == 1)
                if steps == TAPS and index % 3 == 2:
                    self._prefetch_pixels(left.value + tap)
                for line in (0, 1):
                    (following.value + (2 * index + line) * DEPTH).prefetch()
                if written is not None and index < (_WRITING_TAPS if steps == TAPS else 1):
                    self._write_some(written, position, row)
            left.value += kernel["image_plane"]
            right.value += steps * 2 * TILE
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
