"""Build the two matrix product kernels; `matmul` explains how they work and checks their arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from .compiler import Kernel
from .ir_bf16 import dot_of_pairs, load_floats, store_floats
from .ir_builder import KernelBuilder, Variable
from .ir_values import E, Int, Pointer, Vector, clamp, fma, minimum
from .llvm import BF16, F32, Element
from .simd_targets import SimdTarget

DEPTH = 16
"""The depth of a product is a multiple of this: a cache line of float32."""

# Rows of a panel to prefetch ahead: panels come from memory, not from a cache.
_PREFETCH_ROWS = 64

# Blocked summation: the rounding error grows with the block's length, not the depth.
SUM_BLOCK = 256

_FACTORS = ("left", "panels", "result", "depth", "columns", "rows", "rows_per_item")
_POINTWISE = (*_FACTORS, "bias", "low", "high", "packed", "packed_floats")
_BATCHED = (*_FACTORS, "items_per_matrix", "left_floats", "panels_floats", "result_floats")


def pointwise(target: SimdTarget, *, add: bool, whole: bool, deep: bool, bf16: bool = False) -> Kernel:
    """Build the kernel of `matmul.pointwise`.

    Parameters
    ----------
    target
        The vectors and registers to compile for.
    add
        Whether to add to the result.
    whole
        Whether the result's columns fill whole panels.
    deep
        Whether to use blocked summation.
    bf16
        Whether the factors are pairs of bfloat16, each in the place of a float32, and the result is bfloat16.
    """

    def build(kernel: KernelBuilder) -> None:
        _Product(kernel, target, deep=deep, bf16=bf16).build_pointwise(add=add, whole=whole)

    return Kernel("pointwise", _POINTWISE, build, target)


def batched_product(target: SimdTarget, *, deep: bool) -> Kernel:
    """Build the kernel of `matmul.batched_product`; `deep`: whether to use blocked summation."""

    def build(kernel: KernelBuilder) -> None:
        _Product(kernel, target, deep=deep, bf16=False).build_batched()

    return Kernel("batched_product", _BATCHED, build, target)


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
            first, rows = self._item_rows(item)
            self._pack(self._left + first * self._depth, packed, rows)
            result = self._result + first * self._columns
            with self._parts(packed, self._panels, rows) as part:
                destinations = self._destinations(result, part, rows, discarded, whole=whole)
                for destination in destinations:
                    destination.prefetch(write=True)
                biases = self._register_block.load_row(bias + part.column) * target.rows
                sums = self._register_block.product(part.block, part.panel)
                for destination, total, shift in zip(destinations, sums, biases, strict=True):
                    before = total + load_floats(destination) if add else total
                    store_floats(clamp(before + shift, low, high), destination)

    def build_batched(self) -> None:
        kernel, target = self._kernel, self._target
        with kernel.parallel_for() as item:
            matrix, share = divmod(item, kernel["items_per_matrix"])
            first, rows = self._item_rows(share)
            left = self._left + matrix * kernel["left_floats"] + first * self._depth
            panels = self._panels + matrix * kernel["panels_floats"]
            result = self._result + matrix * kernel["result_floats"] + first * self._columns
            with self._parts(left, panels, rows) as part:
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

    def _item_rows(self, item: Int) -> tuple[Int, Int]:
        """Return the first row of an item and its number of rows."""
        first = item * self._kernel["rows_per_item"]
        return first, minimum(self._kernel["rows"] - first, self._kernel["rows_per_item"])

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
    def _parts(self, left: Pointer[F32], panels: Pointer[F32], rows: Int) -> Iterator[_Part]:
        """Loop over the parts of the result that fit into the registers."""
        kernel, target = self._kernel, self._target
        with kernel.loop(self._columns, target.columns) as column:
            panel = panels + column * self._depth
            with kernel.loop(self._block_count(rows)) as block:
                row = block * target.rows
                yield _Part(left + row * self._depth, panel, row, column)

    def _block_count(self, rows: Int) -> Int:
        return (rows + (self._target.rows - 1)) // self._target.rows
