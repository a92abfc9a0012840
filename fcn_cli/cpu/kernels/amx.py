"""Convolutions in bfloat16 by the tiles of AMX, summed in float32.

AMX has eight registers, *tiles* of 16 rows of 64 bytes, which only its own instructions know. A tile of sums
holds 16 x 16 float32. A left factor is 16 rows of 32 bfloat16; a right one is 16 rows of 16 *pairs*, so that
row k holds the rows 2k and 2k + 1 of the matrix, column by column.

A convolution is a sum of matrix products, one for each tap of its filter: (positions x channels) times
(channels x columns). Features lie in planes of 32 channels, so that 16 neighbouring pixels are a tile,
wherever they begin: tiles of the left factor are loaded from the image as it is. There are zeros around an
image, and they are positions like pixels; what is computed for them is thrown away. Weights lie in panels of
32 columns. The loops, and where what they read stays:

    for item, on any thread:                its part of the image stays in L2
        for chunk of channels:              of a 3x3 filter
            for panel:                      32 columns
                for group of channels:      its part of the panel stays in L1
                    for block:              32 positions
                        sums = 0, or from memory
                        for 32 channels, for tap: 4 products
                        sums to memory

After the last group, a block's sums wait in memory until the next block is multiplied: meanwhile vectors add
bias and shortcut to them, clamp and write them. What is read once leaves L1 to the panel.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..workspace import Workspace, prefer_huge_pages
from . import arguments, simd_targets
from .arguments import Clamp
from .compiler import Kernel
from .notation import (
    BF16,
    F32,
    I64,
    U8,
    E,
    Int,
    KernelBuilder,
    Pointer,
    Variable,
    clamped,
    load_floats,
    minimum,
    store_both,
)
from .simd_targets import SimdTarget

ROWS = 16
"""The rows of a tile, and the columns of a tile of float32."""

ROW_BYTES = 64
DEPTH = 32
"""The rows of the right factor that one instruction multiplies."""

BLOCK = 2 * ROWS
"""The positions, and the columns, of a block: 2 x 2 tiles of sums."""

POSITIONS = 512
"""The most positions of an item."""

TILE = ROWS * DEPTH
"""The numbers of a tile of bfloat16."""

BORDER = 4
"""The zeros right of a row, which are those left of the next one, and the rows of zeros above and below."""

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

# Bytes of the image that a thread multiplies by each panel: they stay in its L2 cache.
_IMAGE_BYTES = 1024 << 10
# Channels of a 3x3 filter that are summed before others: more would not leave an item enough positions.
_CHUNK = 512

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


# ---- how features and weights lie in memory


def fits(channels: int, columns: int) -> bool:
    """Return whether the kernel supports a filter of so many channels in and out."""
    return channels % DEPTH == 0 and columns % BLOCK == 0


def in_panels(weights: Tensor) -> Tensor:
    """Return filters (columns, channels, taps, taps) in the order in which the kernel reads them.

    That is bfloat16, shape (columns / 32, channels / 32, taps * taps, 2, 16, 16, 2): for each tap two tiles
    side by side, whose rows are pairs of channels.
    """
    return _in_panels(weights.flatten(2))


def in_three_panels(weights: Tensor) -> Tensor:
    """Return a 1x1 filter of float32 weights, as `in_panels` does, but with three parts for the taps.

    A weight is their sum, to 24 bits: each part is the bfloat16 nearest to what the parts before left.
    """
    parts, rest = [], weights.flatten(2).float()
    for _ in range(PARTS):
        parts.append(rest.bfloat16().float())
        rest = rest - parts[-1]
    return _in_panels(torch.cat(parts, dim=2))


def _in_panels(weights: Tensor) -> Tensor:
    columns, channels = weights.shape[:2]
    tiles = weights.reshape(columns // BLOCK, 2, ROWS, channels // DEPTH, ROWS, 2, -1)
    ordered = tiles.permute(0, 3, 6, 1, 4, 2, 5)
    return prefer_huge_pages(torch.empty(ordered.shape, dtype=torch.bfloat16)).copy_(ordered)


def take_features(
    space: Workspace, name: str, height: int, width: int, channels: int, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Return memory for features in the layout of `Convolution`.

    It is a view of shape (channels / 32, h, w, 32) of memory with zeros around each plane, to which nothing
    may write. The pixels are uninitialised.
    """
    row, plane = width + BORDER, _plane_positions(height, width)
    memory = space.take_zeroed(f"{name} of {channels}", channels // DEPTH, plane, DEPTH, dtype=dtype)
    strides = (plane * DEPTH, row * DEPTH, DEPTH, 1)
    return memory.as_strided((len(memory), height, width, DEPTH), strides, BORDER * (row + 1) * DEPTH)


def are_features(x: Tensor) -> bool:
    """Return whether a tensor has the layout of `take_features`."""
    if x.dtype not in (torch.bfloat16, torch.float32) or x.ndim != 4 or x.shape[3] != DEPTH:
        return False
    planes, height, width, _ = x.shape
    row, plane = width + BORDER, _plane_positions(height, width)
    strides = (plane * DEPTH, row * DEPTH, DEPTH, 1)
    whole = x.untyped_storage().nbytes() // x.itemsize >= planes * plane * DEPTH
    return bool(x.stride() == strides and x.storage_offset() == BORDER * (row + 1) * DEPTH and whole)


def _plane_positions(height: int, width: int) -> int:
    # The last block may begin at the last pixel, and reads as much further as the last tap is away.
    return (height + 2 * BORDER) * (width + BORDER) + BORDER + BLOCK


# ---- convolutions


class Filters(NamedTuple):
    """A layer's weights, as `in_panels` returns them, and its bias."""

    panels: Tensor
    bias: Tensor


def available() -> bool:
    """Return whether kernels are compiled for a processor with AMX, and this process may use it."""
    return simd_targets.simd_target() is simd_targets.AVX512_BF16 and _permitted()


@functools.lru_cache(maxsize=1)
def _permitted() -> bool:
    """Ask Linux for the tiles' registers, which no process has unasked; then all threads have them."""
    features = simd_targets.host_features()
    if not (sys.platform == "linux" and features.get("amx-tile") and features.get("amx-bf16")):
        return False
    system_call = ctypes.CDLL(None).syscall
    return bool(system_call(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


class Convolution:
    """A 1x1 or 3x3 convolution that keeps the size: clamp(image * filters + bias [+ result]).

    The distance of a 3x3 filter's taps, `dilation`, is at most `BORDER`.
    """

    def __init__(self, filters: Filters, clamp: Clamp, dilation: int = 1) -> None:
        self._filters, self._clamp, self._dilation = filters, clamp, dilation
        self._places: tuple[object, ...] = ()
        self._sums_shape = (0, 0)
        self._run: Callable[[], None] = _unprepared

    def __call__(self, image: Tensor, result: Tensor, space: Workspace, *, add: bool = False) -> None:
        """Compute the result, or with `add` add to it.

        Image and result are of `take_features`, of one height and width, in different memory. The result has
        as many channels as there are columns, in float32 if the weights are in three parts, else bfloat16.
        `space` holds the sums of an item. Raises ValueError where a tensor has another shape, type or layout,
        and RuntimeError where there is no AMX, or the process may not use it.
        """
        # From image to image tensors mostly stay where they are: what was found out holds for the next one.
        places = (_place(image), _place(result), torch.get_num_threads(), add)
        sums = space.take("sums", *self._sums_shape)
        if self._places != (*places, sums.data_ptr()):
            sums = self._prepare(image, result, space, add=add)
            self._places = (*places, sums.data_ptr())
        self._run()

    def _prepare(self, image: Tensor, result: Tensor, space: Workspace, *, add: bool) -> Tensor:
        if not _permitted():
            raise RuntimeError("this process has no AMX")
        panels, bias = self._filters
        steps = _require(image, self._filters, result, self._dilation)
        layout = _layout(image, result, steps, self._dilation)
        items, blocking = _blocking(len(image) * DEPTH, steps, layout)
        chunked = blocking["chunk"] < blocking["channels"]
        item, stored = blocking["positions_per_item"], bias.numel() if chunked else BLOCK
        self._sums_shape = torch.get_num_threads(), item * stored
        sums = space.take("sums", *self._sums_shape)
        groups = min(blocking["chunk"] // blocking["group"], GROUPS)
        kernel = convolution_kernel(
            simd_targets.AVX512_BF16, steps=steps, add=add, groups=groups, chunked=chunked
        )
        self._run = kernel.task(
            items,
            **layout,
            **blocking,
            panels=arguments.contiguous_pointer(panels, torch.bfloat16),
            bias=arguments.contiguous_pointer(bias),
            columns=bias.numel(),
            **arguments.clamp_fields(self._clamp),
            configuration=arguments.contiguous_pointer(configuration(), torch.uint8),
            sums=arguments.contiguous_pointer(sums),
            sums_floats=sums.shape[1],
        )
        return sums


def _unprepared() -> None:
    raise AssertionError


def _place(x: Tensor) -> tuple[object, ...]:
    """Return all of a tensor that a prepared task depends on."""
    return x.data_ptr(), x.shape, x.stride(), x.dtype, x.untyped_storage().nbytes()


def _layout(image: Tensor, result: Tensor, steps: int, dilation: int) -> dict[str, int]:
    """Return the fields that say where pixels are; the image begins with the first tap of the first pixel."""
    height, width = image.shape[1:3]
    row = width + BORDER
    first_tap = image.itemsize * DEPTH * dilation * (row + 1) if steps == TAPS else 0
    return {
        "image": arguments.data_pointer(image, torch.bfloat16) - first_tap,
        "image_plane": image.stride(0),
        "result": arguments.data_pointer(result, _result_type(steps)),
        "result_plane": result.stride(0),
        "height": height,
        "width": width,
        "row_positions": row,
        "dilation": dilation,
    }


def _blocking(channels: int, steps: int, layout: dict[str, int]) -> tuple[int, dict[str, int]]:
    """Return the items, and the fields that say what is multiplied at a time: what stays in a cache."""
    chunk = DEPTH * _divisor(channels // DEPTH, (_CHUNK if steps == TAPS else channels) // DEPTH)
    most = max(1, STEPS // steps)
    # A power of two, so that each time as many rows of a block are written.
    group = DEPTH * math.gcd(chunk // DEPTH, 1 << most.bit_length() - 1)
    positions = layout["height"] * layout["row_positions"]
    items = _items(positions, chunk)
    return items, {
        "channels": channels,
        "chunk": chunk,
        "group": group,
        "rows": rows_at_a_time(steps, group),
        "positions": positions,
        "positions_per_item": math.ceil(positions / (items * BLOCK)) * BLOCK,
    }


def _result_type(steps: int) -> torch.dtype:
    return torch.float32 if steps == PARTS else torch.bfloat16


def _require(image: Tensor, filters: Filters, result: Tensor, dilation: int) -> int:
    """Check the arguments, and return the number of taps."""
    for name, features in (("image", image), ("result", result)):
        if not are_features(features) or not features.numel():
            raise ValueError(f"{name} of shape {tuple(features.shape)} is not in the layout of take_features")
    arguments.require_shape("result", result, len(result), *image.shape[1:])
    if image.untyped_storage().data_ptr() == result.untyped_storage().data_ptr():
        raise ValueError("image and result are the same memory")
    panels, bias = filters
    steps = panels.shape[2] if panels.ndim == 7 else 0
    if steps not in ALL_STEPS or not 1 <= dilation <= BORDER:
        raise ValueError(f"panels of shape {tuple(panels.shape)} with dilation {dilation}: not supported")
    arguments.require_shape("panels", panels, len(result), len(image), steps, 2, ROWS, ROWS, 2)
    arguments.require_shape("bias", bias, len(result) * DEPTH)
    return steps


def _divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number up to a limit."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _items(positions: int, channels: int) -> int:
    """Return into how many items positions are divided, so that the image's part of each stays in a cache."""
    fitting = _IMAGE_BYTES // (torch.bfloat16.itemsize * channels)
    most = max(1, min(POSITIONS, fitting) // BLOCK) * BLOCK
    # Every item reads all panels: no more items than needed, as many for each thread.
    threads = torch.get_num_threads()
    return min(threads * math.ceil(positions / (threads * most)), math.ceil(positions / BLOCK))


@functools.lru_cache(maxsize=1)
def configuration() -> Tensor:
    """Return what sets the shapes of tiles: palette 1, and eight whole tiles."""
    row_bytes = ROW_BYTES.to_bytes(2, "little") * 8 + bytes(16)
    whole = bytes([1]) + bytes(15) + row_bytes + bytes([ROWS] * 8) + bytes(8)
    return torch.tensor(list(whole), dtype=torch.uint8)


# ---- the code


@functools.lru_cache
def convolution_kernel(target: SimdTarget, *, steps: int, add: bool, groups: int, chunked: bool) -> Kernel:
    """Build the kernel of `Convolution`.

    `steps` are the products of 32 channels of a position: 1, `TAPS` of a 3x3 filter, or `PARTS` of float32
    weights, whose results are float32 too. `groups` are those of channels in a chunk: 1, 2, or `GROUPS` for
    as many and more; with `chunked` there are several chunks.
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
        self._tiles = _Tiles(kernel)
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
            kernel.tile_instruction("ldtilecfg", (), configuration)
            if self._chunked:
                self._all_chunks(sums)
            else:
                with kernel.loop(kernel["columns"], BLOCK) as column:
                    self._one_panel(column, sums)
            kernel.tile_instruction("tilerelease", ())

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


class _Tiles:
    """The eight tiles: 2 x 2 of sums, and those of 32 positions and of 32 columns."""

    def __init__(self, kernel: KernelBuilder) -> None:
        self._sums = [_Tile(kernel, number) for number in range(4)]
        self._left = [_Tile(kernel, number) for number in (4, 5)]
        self._right = [_Tile(kernel, number) for number in (6, 7)]

    def zero(self) -> None:
        """Set the sums to zero."""
        for tile in self._sums:
            tile.zero()

    def load(self, sums: Pointer[F32]) -> None:
        """Load the sums."""
        for tile, place in self._places(sums):
            tile.load(place, once=True)

    def store(self, sums: Pointer[F32]) -> None:
        """Store the sums."""
        for tile, place in self._places(sums):
            tile.store(place)

    def add_products(self, pixels: Pointer[BF16], panel: Pointer[BF16], *, once: bool) -> None:
        """Add the products of 32 positions, channels and columns; `once` says how pixels are loaded."""
        upper, lower = self._left
        upper.load(pixels, once=once)
        for half, right in enumerate(self._right):
            right.load(panel + half * TILE)
            self._sums[half].add_product(upper, right)
        lower.load(pixels + TILE, once=once)
        for half, right in enumerate(self._right):
            self._sums[2 + half].add_product(lower, right)

    def _places(self, sums: Pointer[F32]) -> list[tuple[_Tile, Pointer[F32]]]:
        """Return each tile of sums with its place in memory: first the left 16 columns of all positions."""
        places = [sums + (half * BLOCK + first) * ROWS for first in (0, ROWS) for half in (0, 1)]
        return list(zip(self._sums, places, strict=True))


class _Results:
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
            halves.append(clamped(total + bias, self._low, self._high))
        first, second = halves
        store_both(first, second, target)


class _Tile:
    """One of the tiles, by its number: LLVM does not choose them.

    The registers hold something only between a thread's ``ldtilecfg``, which sets them to zero, and its
    ``tilerelease``: other code may configure them otherwise.
    """

    def __init__(self, kernel: KernelBuilder, number: int) -> None:
        self._kernel = kernel
        self._number = number

    def zero(self) -> None:
        """Fill the tile with zeros."""
        self._kernel.tile_instruction("tilezero", (self._number,))

    def load(self, source: Pointer[E], *, once: bool = False) -> None:
        """Load 16 rows that lie one after the other.

        What is loaded only `once` leaves the L1 cache to other data.
        """
        self._move("tileloaddt164" if once else "tileloadd64", source)

    def store(self, target: Pointer[E]) -> None:
        """Store the rows one after the other."""
        self._move("tilestored64", target)

    def add_product(self, left: _Tile, right: _Tile) -> None:
        """Add the product of two tiles of bfloat16. Subnormal numbers count as zeros."""
        self._kernel.tile_instruction("tdpbf16ps", (self._number, left._number, right._number))

    def _move(self, name: str, memory: Pointer[E]) -> None:
        self._kernel.tile_instruction(name, (self._number,), memory, self._kernel.integer(ROW_BYTES))
