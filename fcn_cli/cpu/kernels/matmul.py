"""Matrix products: one kernel for 1x1 convolutions, in float32 or bfloat16, one for Winograd's tiles.

The scheme is Goto and van de Geijn's ("Anatomy of High-Performance Matrix Multiplication"). The right factor,
a layer's weights, is stored in panels of as many columns as the registers hold; the left one in blocks of as
many rows. For every block and panel, a small part of the result is summed over the whole depth in registers,
finished (bias, clamp) and written once. So the result does not depend on how threads share the rows.

Blocks have the layout (depth / 16, rows of a block, 16): a cache line of every row in turn. The kernel of the
1x1 convolutions copies its input into this layout; `tile_transforms` writes it directly.

In bfloat16, a pair of neighbouring numbers stands in the place of a float32, and the depth counts pairs. Sums
are float32.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..workspace import Workspace
from . import arguments, simd_targets
from .arguments import Clamp
from .compiler import Kernel
from .notation import (
    BF16,
    F32,
    E,
    Element,
    Int,
    KernelBuilder,
    Pointer,
    Variable,
    Vector,
    clamped,
    dot_of_pairs,
    fma,
    load_floats,
    minimum,
    store_floats,
)
from .simd_targets import SimdTarget

DEPTH = 16
"""The depth of a product is a multiple of this: a cache line of float32."""

# Rows of a panel to prefetch ahead: panels come from memory, not from a cache.
_PREFETCH_ROWS = 64

# Blocked summation: the rounding error grows with the block's length, not the depth.
SUM_BLOCK = 256

_FACTORS = (
    "left", "panels", "result", "depth", "columns", "rows", "rows_per_item", "row_items", "columns_per_item",
)  # fmt: skip
_POINTWISE = (*_FACTORS, "bias", "low", "high", "packed", "packed_floats")
_BATCHED = (*_FACTORS, "items_per_matrix", "left_floats", "panels_floats", "result_floats")

# Bytes of the left factor that a thread multiplies by each panel of the right one: both stay in its L2 cache.
_BLOCKS_BYTES = 384 << 10
# An item has as many blocks, if there are: panels are read from memory for each one.
_FEWEST_BLOCKS = 4
# Several items for each thread, so that none waits long for the last one.
_ROUNDS = 8
# Where less of the threads' time is filled, a product's columns are divided, too.
BUSY = 0.9


def fits(depth: int, columns: int, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether the kernels support a right factor of this shape and type."""
    return (
        depth % (DEPTH * _per_float(dtype)) == 0
        and columns % max(target.lanes for target in simd_targets.SIMD_TARGETS) == 0
    )


def padded(columns: int) -> int:
    """Round a number of columns up to whole panels."""
    width = simd_targets.simd_target().columns
    return -(-columns // width) * width


def filled(columns: Tensor) -> Tensor:
    """Pad (..., columns) with zeros to whole panels."""
    count = columns.shape[-1]
    return F.pad(columns, (0, padded(count) - count))


def in_panels(weights: Tensor) -> Tensor:
    """Return (..., depth, columns) as float32 panels (..., panels, depth, width), padded with zeros."""
    width = simd_targets.simd_target().columns
    panels = filled(weights.float()).unflatten(-1, (-1, width))  # type: ignore[no-untyped-call]
    result: Tensor = panels.transpose(-3, -2).contiguous()
    return result


def in_bf16_panels(weights: Tensor) -> Tensor:
    """Return (depth, columns) as bfloat16 panels (panels, depth / 2, width, 2), padded with zeros."""
    pairs = in_panels(weights).unflatten(1, (-1, 2))  # type: ignore[no-untyped-call]
    result: Tensor = pairs.transpose(2, 3).to(torch.bfloat16).contiguous()
    return result


def pointwise(
    pixels: Tensor,
    panels: Tensor,
    bias: Tensor,
    result: Tensor,
    clamp: Clamp,
    space: Workspace,
    *,
    add: bool,
) -> None:
    """Compute a 1x1 convolution: clamp(pixels x weights + bias), or with `add` clamp(... + result).

    `pixels` (pixels, channels in) and `result` (pixels, channels out) are float32 or bfloat16, contiguous.
    `panels` are the weights (channels in, channels out) as `in_panels` or `in_bf16_panels` returns them, and
    `bias` is float32, `filled`. `space` holds the pixels in blocks. Raises ValueError where a tensor has
    another shape, type or strides.
    """
    target, bf16 = simd_targets.simd_target(), pixels.dtype == torch.bfloat16
    dtype = torch.bfloat16 if bf16 else torch.float32
    _require_factors("pixels", pixels, result)
    rows, depth = pixels.shape[0], pixels.shape[1] // _per_float(dtype)
    arguments.require_shape("result", result, rows, result.shape[1])
    panel_count, pair = padded(result.shape[1]) // target.columns, (2,) if bf16 else ()
    arguments.require_shape("panels", panels, panel_count, depth, target.columns, *pair)
    arguments.require_shape("bias", bias, padded(result.shape[1]))
    items = Items.of(math.ceil(rows / target.rows), panel_count, depth)
    packed = space.take("packed", torch.get_num_threads(), items.blocks * target.rows * depth)
    whole = result.shape[1] % target.columns == 0
    pointwise_kernel(target, add=add, whole=whole, deep=depth > SUM_BLOCK, bf16=bf16)(
        items.count,
        left=arguments.contiguous_pointer(pixels, dtype),
        panels=arguments.contiguous_pointer(panels, dtype),
        result=arguments.contiguous_pointer(result, dtype),
        depth=depth,
        columns=result.shape[1],
        rows=rows,
        **items.fields(),
        bias=arguments.contiguous_pointer(bias),
        **arguments.clamp_fields(clamp),
        packed=arguments.contiguous_pointer(packed),
        packed_floats=packed.shape[1],
    )


def batched_product(left: Tensor, panels: Tensor, result: Tensor) -> None:
    """Multiply matrices pair by pair, for the tiles of Winograd's method.

    All are float32. `left` has the shape (matrices, blocks, depth / 16, rows of a block, 16), `panels`
    (matrices, panels, depth, columns of a panel) and is contiguous, `result` (matrices, blocks * rows of a
    block, columns of all panels); of `left` and `result` each matrix is contiguous. Raises ValueError where a
    tensor has another shape, type or strides.
    """
    target = simd_targets.simd_target()
    if left.ndim != 5 or not left.numel():
        raise ValueError(f"left has shape {tuple(left.shape)}, expected five dimensions")
    matrices, blocks, depths = left.shape[:3]
    depth = depths * DEPTH
    arguments.require_shape("left", left, matrices, blocks, depths, target.rows, DEPTH)
    count = panels.shape[1] if panels.ndim == 4 else 1
    arguments.require_shape("panels", panels, matrices, max(1, count), depth, target.columns)
    arguments.require_shape("result", result, matrices, blocks * target.rows, count * target.columns)
    arguments.require_contiguous_matrices("left", left)
    arguments.require_contiguous_matrices("result", result)
    items = Items.of(blocks, count, depth, matrices)
    batched_kernel(target, deep=depth > SUM_BLOCK)(
        matrices * items.count,
        left=arguments.data_pointer(left),
        panels=arguments.contiguous_pointer(panels),
        result=arguments.data_pointer(result),
        depth=depth,
        columns=result.shape[2],
        rows=result.shape[1],
        **items.fields(),
        items_per_matrix=items.count,
        left_floats=left.stride(0),
        panels_floats=panels.stride(0),
        result_floats=result.stride(0),
    )


def _require_factors(name: str, left: Tensor, result: Tensor) -> None:
    """Check the left factor and the columns of the result, from which the other shapes follow."""
    multiple = DEPTH * _per_float(left.dtype)
    if left.ndim != 2 or not left.numel() or left.shape[1] % multiple:
        raise ValueError(f"{name} has shape {tuple(left.shape)}, expected (rows, a multiple of {multiple})")
    lanes = simd_targets.simd_target().lanes
    if result.ndim != 2 or not result.numel() or result.shape[1] % lanes:
        raise ValueError(f"result has shape {tuple(result.shape)}, expected (rows, a multiple of {lanes})")


def _per_float(dtype: torch.dtype) -> int:
    """Return how many numbers of a type stand in the place of a float32."""
    return 2 if dtype == torch.bfloat16 else 1


@dataclass(frozen=True)
class Items:
    """How a product is divided: an item has so many blocks and panels; there are so many items of each.

    One thread computes each number of the result from start to end, so that nothing depends on the division.
    """

    blocks: int
    panels: int
    row_items: int
    groups: int

    @property
    def count(self) -> int:
        """The number of items of a matrix."""
        return self.row_items * self.groups

    @classmethod
    def of(cls, blocks: int, panels: int, depth: int, matrices: int = 1) -> Items:
        """Divide each of some products among torch's threads, which take items in turn."""
        rows = simd_targets.simd_target().rows
        most = min(blocks, max(1, _BLOCKS_BYTES // (F32.size * depth * rows)))
        return _divided(blocks, panels, matrices, most, torch.get_num_threads())

    def fields(self) -> dict[str, int]:
        """Return the task fields that describe the division to a kernel."""
        target = simd_targets.simd_target()
        return {
            "rows_per_item": self.blocks * target.rows,
            "row_items": self.row_items,
            "columns_per_item": self.panels * target.columns,
        }


@functools.lru_cache
def pointwise_kernel(target: SimdTarget, *, add: bool, whole: bool, deep: bool, bf16: bool = False) -> Kernel:
    """Build the kernel of `pointwise`; `whole`: the result's columns fill panels, `deep`: sums are blocked.

    With `bf16` pairs of bfloat16 are in the places of float32, and the result is bfloat16.
    """

    def build(kernel: KernelBuilder) -> None:
        _Product(kernel, target, deep=deep, bf16=bf16).build_pointwise(add=add, whole=whole)

    return Kernel("pointwise", _POINTWISE, build, target)


@functools.lru_cache
def batched_kernel(target: SimdTarget, *, deep: bool) -> Kernel:
    """Build the kernel of `batched_product`; `deep`: whether to use blocked summation."""

    def build(kernel: KernelBuilder) -> None:
        _Product(kernel, target, deep=deep, bf16=False).build_batched()

    return Kernel("batched_product", _BATCHED, build, target)


@functools.lru_cache(maxsize=1024)
def _divided(blocks: int, panels: int, matrices: int, most: int, threads: int) -> Items:
    """Return the division into the fewest parts of columns, and the most rounds, that keeps threads busy."""
    found = []
    # Rows that are packed for a part of the columns are packed again for the others: whole rows come first.
    for width in sorted({math.ceil(panels / groups) for groups in range(1, panels + 1)}, reverse=True):
        groups = math.ceil(panels / width)
        for rounds in range(_ROUNDS, 0, -1):
            wanted = math.ceil(rounds * threads / (matrices * groups))
            height = max(min(_FEWEST_BLOCKS, most), min(most, math.ceil(blocks / wanted)))
            found.append(Items(height, width, math.ceil(blocks / height), groups))
    # The first one of the best.
    return max(found, key=lambda items: min(BUSY, filled_share(matrices * items.count, threads)))


def filled_share(items: int, threads: int) -> float:
    """Return for which share of the time threads have work that take items in turn."""
    return items / (threads * math.ceil(items / threads))


class _RegisterBlock:
    """Multiplies a block by a panel, with rows x vectors sums in registers."""

    def __init__(self, kernel: KernelBuilder, target: SimdTarget, *, deep: bool, bf16: bool) -> None:
        self._multiply_add = dot_of_pairs if bf16 else fma
        self._kernel = kernel
        self._target = target
        self._deep = deep

    def product(self, block: Pointer[F32], panel: Pointer[F32]) -> list[Vector[F32]]:
        """Return the product of a block and a panel: rows x vectors values."""
        kernel, lines = self._kernel, self._kernel["depth"] // DEPTH
        left, right = Variable(block), Variable(panel)
        if not self._deep:
            return self._partial_sums(left, right, lines)
        totals = self._zeros()
        with kernel.loop(lines, SUM_BLOCK // DEPTH, carried=[left, right, *totals]) as line:
            sums = self._partial_sums(left, right, minimum(lines - line, SUM_BLOCK // DEPTH))
            for total, part in zip(totals, sums, strict=True):
                total.value += part
        return [total.value for total in totals]

    def _partial_sums(
        self, line: Variable[Pointer[F32]], right: Variable[Pointer[F32]], count: Int
    ) -> list[Vector[F32]]:
        """Sum over `count` cache lines; move the pointers into block and panel behind them."""
        kernel, target = self._kernel, self._target
        sums = self._zeros()
        with kernel.loop(count, carried=[line, right, *sums]):
            # Not unrolled: LLVM would load the factors of several iterations first, into registers it lacks.
            with kernel.loop(DEPTH, carried=[right, *sums]) as column:
                vectors = self.load_row(right.value)
                for offset in range(0, target.columns, target.lanes):
                    (right.value + (_PREFETCH_ROWS * target.columns + offset)).prefetch()
                left = line.value + column
                for row in range(target.rows):
                    factor = (left + row * DEPTH).broadcast()
                    for index, vector in enumerate(vectors):
                        total = sums[row * target.vectors + index]
                        total.value = self._multiply_add(factor, vector, total.value)
                right.value += target.columns
            line.value += target.rows * DEPTH
        return [total.value for total in sums]

    def _zeros(self) -> list[Variable[Vector[F32]]]:
        zero = self._kernel.splat(0.0)
        return [Variable(zero) for _ in range(self._target.rows * self._target.vectors)]

    def load_row(self, row: Pointer[F32]) -> list[Vector[F32]]:
        """Return the vectors of a row of a panel."""
        return [(row + offset).load() for offset in range(0, self._target.columns, self._target.lanes)]


class _Part(NamedTuple):
    """A part of the result that fits into the registers: its factors, and its first row and column."""

    block: Pointer[F32]
    panel: Pointer[F32]
    row: Int
    column: Int


class _Product:
    """Builds either kernel."""

    def __init__(self, kernel: KernelBuilder, target: SimdTarget, *, deep: bool, bf16: bool) -> None:
        self._kernel = kernel
        self._target = target
        self._register_block = _RegisterBlock(kernel, target, deep=deep, bf16=bf16)
        self._left = kernel.pointer("left", F32)
        self._panels = kernel.pointer("panels", F32)
        self._result_element: type[Element] = BF16 if bf16 else F32
        self._result = kernel.pointer("result", self._result_element)
        self._depth, self._columns = kernel["depth"], kernel["columns"]

    def build_pointwise(self, *, add: bool, whole: bool) -> None:
        kernel, target = self._kernel, self._target
        low, high = kernel.broadcast("low"), kernel.broadcast("high")
        bias = kernel.pointer("bias", F32)
        packed = kernel.pointer("packed", F32) + kernel.thread() * kernel["packed_floats"]
        # Values outside the result are written here.
        discarded = kernel.alloca(self._result_element, target.columns)
        with kernel.parallel_for() as item:
            first, rows, column, columns = self._place(item)
            self._pack(self._left + first * self._depth, packed, rows)
            result = self._result + first * self._columns
            with self._parts(packed, self._panels, rows, column, columns) as part:
                destinations = self._destinations(result, part, rows, discarded, whole=whole)
                for destination in destinations:
                    destination.prefetch(write=True)
                biases = self._register_block.load_row(bias + part.column) * target.rows
                sums = self._register_block.product(part.block, part.panel)
                for destination, total, shift in zip(destinations, sums, biases, strict=True):
                    before = total + load_floats(destination) if add else total
                    store_floats(clamped(before + shift, low, high), destination)

    def build_batched(self) -> None:
        kernel, target = self._kernel, self._target
        with kernel.parallel_for() as item:
            matrix, share = divmod(item, kernel["items_per_matrix"])
            first, rows, column, columns = self._place(share)
            left = self._left + matrix * kernel["left_floats"] + first * self._depth
            panels = self._panels + matrix * kernel["panels_floats"]
            result = self._result + matrix * kernel["result_floats"] + first * self._columns
            with self._parts(left, panels, rows, column, columns) as part:
                sums = iter(self._register_block.product(part.block, part.panel))
                for row in range(target.rows):
                    start = result + (part.row + row) * self._columns + part.column
                    for offset in range(0, target.columns, target.lanes):
                        store_floats(next(sums), start + offset)

    def _destinations(
        self, result: Pointer[E], part: _Part, rows: Int, discarded: Pointer[E], *, whole: bool
    ) -> list[Pointer[E]]:
        """Return where each vector goes: the last block may have more rows, the last panel more columns."""
        destinations = []
        for row in range(self._target.rows):
            row_index = part.row + row
            start = result + row_index * self._columns + part.column
            start = row_index.is_index_below(rows).select(start, discarded)
            for offset in range(0, self._target.columns, self._target.lanes):
                destination = start + offset
                if not whole:
                    inside = (part.column + offset).is_index_below(self._columns)
                    destination = inside.select(destination, discarded)
                destinations.append(destination)
        return destinations

    def _place(self, item: Int) -> tuple[Int, Int, Int, Int]:
        """Return the first row of an item, its number of rows, its first column, and its number of columns.

        Items that follow each other have the same columns, so that their panels may still be in a cache.
        """
        kernel = self._kernel
        group, share = divmod(item, kernel["row_items"])
        first, column = share * kernel["rows_per_item"], group * kernel["columns_per_item"]
        rows = minimum(kernel["rows"] - first, kernel["rows_per_item"])
        return first, rows, column, minimum(self._columns - column, kernel["columns_per_item"])

    def _pack(self, left: Pointer[F32], packed: Pointer[F32], rows: Int) -> None:
        """Copy rows into blocks; the last row is repeated to fill the last block."""
        kernel, block_rows, lanes = self._kernel, self._target.rows, self._target.lanes
        with kernel.loop(self._block_count(rows)) as block:
            first, last = block * block_rows, rows - 1
            sources = [left + minimum(first + index, last) * self._depth for index in range(block_rows)]
            target = packed + first * self._depth
            with kernel.loop(self._depth // DEPTH) as depth:
                for index, source in enumerate(sources):
                    line = target + (depth * block_rows + index) * DEPTH
                    source_line = source + depth * DEPTH
                    for lane in range(0, DEPTH, lanes):
                        (line + lane).store((source_line + lane).load())

    @contextlib.contextmanager
    def _parts(
        self, left: Pointer[F32], panels: Pointer[F32], rows: Int, first_column: Int, columns: Int
    ) -> Iterator[_Part]:
        """Loop over the parts of the result that fit into the registers."""
        kernel, target = self._kernel, self._target
        with kernel.loop(columns, target.columns) as offset:
            column = first_column + offset
            panel = panels + column * self._depth
            with kernel.loop(self._block_count(rows)) as block:
                row = block * target.rows
                yield _Part(left + row * self._depth, panel, row, column)

    def _block_count(self, rows: Int) -> Int:
        return (rows + (self._target.rows - 1)) // self._target.rows
