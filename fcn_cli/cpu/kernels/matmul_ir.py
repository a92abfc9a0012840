"""Build the two matrix product kernels; `matmul` explains how they work and checks their arguments."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from .compiler import Kernel, SimdTarget
from .ir_arithmetic import Value
from .ir_builder import KernelBuilder

DEPTH = 16
"""The depth of a product is a multiple of this: a cache line of float32."""

# Rows of a panel to prefetch ahead: panels come from memory, not from a cache.
_PREFETCH_ROWS = 64

# Blocked summation: the rounding error grows with the block's length, not the depth.
SUM_BLOCK = 256

_FACTORS = ("left", "panels", "result", "depth", "columns", "rows", "rows_per_item")
_POINTWISE = (*_FACTORS, "bias", "low", "high", "packed", "packed_floats")
_BATCHED = (*_FACTORS, "items_per_matrix", "left_floats", "panels_floats", "result_floats")


@functools.lru_cache
def pointwise(target: SimdTarget, *, add: bool, whole: bool, deep: bool) -> Kernel:
    """Return the kernel of `matmul.pointwise`.

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
    """

    def build(builder: KernelBuilder) -> None:
        _Product(builder, target, deep=deep).build_pointwise(add=add, whole=whole)

    return Kernel("pointwise", _POINTWISE, build, target.lanes)


@functools.lru_cache
def batched_product(target: SimdTarget, *, deep: bool) -> Kernel:
    """Return the kernel of `matmul.batched_product`; `deep`: whether to use blocked summation."""

    def build(builder: KernelBuilder) -> None:
        _Product(builder, target, deep=deep).build_batched()

    return Kernel("batched_product", _BATCHED, build, target.lanes)


class _RegisterBlock:
    """Multiplies a block by a panel, with rows x vectors sums in registers."""

    def __init__(self, builder: KernelBuilder, target: SimdTarget, *, deep: bool) -> None:
        self._builder = builder
        self._target = target
        self._deep = deep

    def product(self, block: Value, panel: Value) -> list[Value]:
        """Return the product of a block and a panel: rows x vectors values."""
        builder = self._builder
        depths = self.depths()
        if not self._deep:
            return self._partial_sums(block, panel, depths)[2:]
        with builder.loop(depths, SUM_BLOCK // DEPTH, carried=[block, panel, *self._zeros()]) as sum_blocks:
            left, right, *totals = sum_blocks.carried
            remaining = builder.sub(depths, sum_blocks.index)
            count = builder.minimum(remaining, builder.integer(SUM_BLOCK // DEPTH))
            left, right, *sums = self._partial_sums(left, right, count)
            totals = [builder.plus(total, part) for total, part in zip(totals, sums, strict=True)]
            sum_blocks.carried = [left, right, *totals]
        return sum_blocks.carried[2:]

    def _partial_sums(self, block: Value, panel: Value, depths: Value) -> list[Value]:
        """Sum over `depths` cache lines; return the next addresses of block and panel, and the sums."""
        builder, target = self._builder, self._target
        with builder.loop(depths, carried=[block, panel, *self._zeros()]) as lines:
            line, right, *sums = lines.carried
            # Not unrolled: LLVM would load the factors of several iterations first, into registers it lacks.
            with builder.loop(DEPTH, carried=[right, *sums]) as columns:
                right, *sums = columns.carried
                vectors = self.load_row(right)
                for vector in range(target.vectors):
                    ahead = _PREFETCH_ROWS * target.columns + vector * builder.lanes
                    builder.prefetch(builder.element_pointer(right, ahead))
                left = builder.element_pointer(line, columns.index)
                for row in range(target.rows):
                    factor = builder.load_float(builder.element_pointer(left, row * DEPTH))
                    for index, vector in enumerate(vectors):
                        place = row * target.vectors + index
                        sums[place] = builder.fma(factor, vector, sums[place])
                columns.carried = [builder.element_pointer(right, target.columns), *sums]
            lines.carried = [builder.element_pointer(line, target.rows * DEPTH), *columns.carried]
        return lines.carried

    def _zeros(self) -> list[Value]:
        return [self._builder.constant(0.0)] * (self._target.rows * self._target.vectors)

    def load_row(self, address: Value) -> list[Value]:
        """Return the vectors of a row of a panel."""
        builder = self._builder
        return [
            builder.load(builder.element_pointer(address, vector * builder.lanes))
            for vector in range(self._target.vectors)
        ]

    def depths(self) -> Value:
        """Return the depth in cache lines."""
        return self._builder.divide(self._builder["depth"], DEPTH)[0]


class _Product:
    """Builds either kernel."""

    def __init__(self, builder: KernelBuilder, target: SimdTarget, *, deep: bool) -> None:
        self._builder = builder
        self._target = target
        self._register_block = _RegisterBlock(builder, target, deep=deep)

    def build_pointwise(self, *, add: bool, whole: bool) -> None:
        builder = self._builder
        low, high = builder.from_bits("low"), builder.from_bits("high")
        packed = builder.element_pointer(builder["packed"], builder.thread(), builder["packed_floats"])
        # The address to which values outside the result are written.
        discarded = builder.alloca(self._target.columns)
        with builder.parallel_for() as item:
            first, rows = self._item_rows(item)
            self._pack(builder.element_pointer(builder["left"], first, builder["depth"]), packed, rows)
            result = builder.element_pointer(builder["result"], first, builder["columns"])
            with self._register_blocks(packed, builder["panels"], rows) as (block, panel, row, column):
                destinations = []
                for index in range(self._target.rows):
                    row_index = builder.add(row, index)
                    start = self._element(result, row_index, column)
                    # The last block may have more rows than the result, the last panel more columns.
                    start = builder.select(builder.in_range(row_index, rows), start, discarded)
                    for vector in range(self._target.vectors):
                        destination = builder.element_pointer(start, vector * builder.lanes)
                        if not whole:
                            vector_column = builder.add(column, vector * builder.lanes)
                            inside = builder.in_range(vector_column, builder["columns"])
                            destination = builder.select(inside, destination, discarded)
                        destinations.append(destination)
                for destination in destinations:
                    builder.prefetch_for_write(destination)
                biases = (
                    self._register_block.load_row(builder.element_pointer(builder["bias"], column))
                    * self._target.rows
                )
                sums = self._register_block.product(block, panel)
                for destination, total, bias in zip(destinations, sums, biases, strict=True):
                    if add:
                        total = builder.plus(total, builder.load(destination))
                    builder.store(builder.clamp(builder.plus(total, bias), low, high), destination)

    def build_batched(self) -> None:
        builder = self._builder
        with builder.parallel_for() as item:
            matrix, part = builder.divide(item, builder["items_per_matrix"])
            first, rows = self._item_rows(part)
            left = builder.element_pointer(builder["left"], matrix, builder["left_floats"])
            left = builder.element_pointer(left, first, builder["depth"])
            panels = builder.element_pointer(builder["panels"], matrix, builder["panels_floats"])
            result = builder.element_pointer(builder["result"], matrix, builder["result_floats"])
            result = builder.element_pointer(result, first, builder["columns"])
            with self._register_blocks(left, panels, rows) as (block, panel, row, column):
                sums = iter(self._register_block.product(block, panel))
                for index in range(self._target.rows):
                    start = self._element(result, builder.add(row, index), column)
                    for vector in range(self._target.vectors):
                        builder.store(next(sums), builder.element_pointer(start, vector * builder.lanes))

    def _element(self, result: Value, row: Value, column: Value) -> Value:
        """Return the address of an element of the result."""
        builder = self._builder
        return builder.element_pointer(builder.element_pointer(result, row, builder["columns"]), column)

    def _item_rows(self, item: Value) -> tuple[Value, Value]:
        """Return the first row of an item and its number of rows."""
        builder = self._builder
        first = builder.mul(item, builder["rows_per_item"])
        return first, builder.minimum(builder.sub(builder["rows"], first), builder["rows_per_item"])

    def _pack(self, left: Value, packed: Value, rows: Value) -> None:
        """Copy rows into blocks; the last row is repeated to fill the last block."""
        builder = self._builder
        blocks, depths = self._block_count(rows), self._register_block.depths()
        with builder.loop(blocks) as block:
            row = builder.mul(block.index, self._target.rows)
            last = builder.sub(rows, 1)
            sources = [
                builder.element_pointer(
                    left, builder.minimum(builder.add(row, index), last), builder["depth"]
                )
                for index in range(self._target.rows)
            ]
            destination = builder.element_pointer(packed, row, builder["depth"])
            with builder.loop(depths) as depth:
                for index, source in enumerate(sources):
                    line_index = builder.add(builder.mul(depth.index, self._target.rows), index)
                    line = builder.element_pointer(destination, line_index, DEPTH)
                    source_line = builder.element_pointer(source, depth.index, DEPTH)
                    for lane in range(0, DEPTH, builder.lanes):
                        value = builder.load(builder.element_pointer(source_line, lane))
                        builder.store(value, builder.element_pointer(line, lane))

    @contextlib.contextmanager
    def _register_blocks(
        self, left: Value, panels: Value, rows: Value
    ) -> Iterator[tuple[Value, Value, Value, Value]]:
        """Loop over the parts of the result that fit into the registers.

        Yields the addresses of the block and the panel, and the first row and column.
        """
        builder = self._builder
        with builder.loop(builder["columns"], self._target.columns) as columns:
            panel = builder.element_pointer(panels, columns.index, builder["depth"])
            with builder.loop(self._block_count(rows)) as blocks:
                row = builder.mul(blocks.index, self._target.rows)
                block = builder.element_pointer(left, row, builder["depth"])
                yield block, panel, row, columns.index

    def _block_count(self, rows: Value) -> Value:
        builder = self._builder
        return builder.divide(builder.add(rows, self._target.rows - 1), self._target.rows)[0]
