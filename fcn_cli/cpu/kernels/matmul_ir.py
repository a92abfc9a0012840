"""Writes the two kernels of the matrix products; `matmul` says how they work, and checks what they get."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from .compiler import Kernel, SimdTarget
from .ir_builder import Emitter, Value

DEPTH = 16
"""A product's depth is a multiple of this: a cache line of float32."""

# Rows of a panel that are fetched before they are needed: panels come from memory, not from a cache.
_AHEAD = 64

# A longer sum is one of sums of this many products: its rounding errors grow with their lengths, not its own.
SUMMED = 256

_FACTORS = ("left", "panels", "result", "depth", "columns", "rows", "rows_per_item")
_POINTWISE = (*_FACTORS, "bias", "low", "high", "packed", "packed_floats")
_TILES = (*_FACTORS, "items_per_matrix", "left_floats", "panels_floats", "result_floats")


@functools.lru_cache
def pointwise(target: SimdTarget, *, add: bool, whole: bool, deep: bool) -> Kernel:
    """Return the kernel of `matmul.pointwise`: adding or not, for whole panels only, for long sums."""

    def write(builder: Emitter) -> None:
        _Product(builder, target, deep=deep).pointwise(add=add, whole=whole)

    return Kernel("pointwise", _POINTWISE, write, target.lanes)


@functools.lru_cache
def tiles(target: SimdTarget, *, deep: bool) -> Kernel:
    """Return the kernel of `matmul.tiles`, for long sums or not."""
    return Kernel("tiles", _TILES, lambda emitter: _Product(emitter, target, deep=deep).tiles(), target.lanes)


class _Product:
    """Writes the two kernels."""

    def __init__(self, builder: Emitter, target: SimdTarget, *, deep: bool) -> None:
        self._to = builder
        self._on = target
        self._deep = deep

    def pointwise(self, *, add: bool, whole: bool) -> None:
        to = self._to
        low, high = to.from_bits("low"), to.from_bits("high")
        packed = to.element_pointer(to["packed"], to.thread(), to["packed_floats"])
        nowhere = to.alloca(self._on.columns)
        with to.parallel_for() as item:
            first, rows = self._rows(item)
            self._pack(to.element_pointer(to["left"], first, to["depth"]), packed, rows)
            result = to.element_pointer(to["result"], first, to["columns"])
            with self._parts(packed, to["panels"], rows) as (block, panel, row, column):
                targets = []
                for index in range(self._on.rows):
                    here = to.add(row, index)
                    start = to.element_pointer(to.element_pointer(result, here, to["columns"]), column)
                    # Rows of the last block beyond the result, and vectors of the last panel.
                    start = to.select(to.in_range(here, rows), start, nowhere)
                    for vector in range(self._on.vectors):
                        target = to.element_pointer(start, vector * to.lanes)
                        if not whole:
                            inside = to.in_range(to.add(column, vector * to.lanes), to["columns"])
                            target = to.select(inside, target, nowhere)
                        targets.append(target)
                for target in targets:
                    to.will_write(target)
                biases = self._vectors(to.element_pointer(to["bias"], column)) * self._on.rows
                for target, total, bias in zip(targets, self._sums(block, panel), biases, strict=True):
                    if add:
                        total = to.plus(total, to.load(target))
                    to.store(to.clamped(to.plus(total, bias), low, high), target)

    def tiles(self) -> None:
        to = self._to
        with to.parallel_for() as item:
            matrix, part = to.divide(item, to["items_per_matrix"])
            first, rows = self._rows(part)
            left = to.element_pointer(
                to.element_pointer(to["left"], matrix, to["left_floats"]), first, to["depth"]
            )
            panels = to.element_pointer(to["panels"], matrix, to["panels_floats"])
            result = to.element_pointer(
                to.element_pointer(to["result"], matrix, to["result_floats"]), first, to["columns"]
            )
            with self._parts(left, panels, rows) as (block, panel, row, column):
                sums = iter(self._sums(block, panel))
                for index in range(self._on.rows):
                    start = to.element_pointer(
                        to.element_pointer(result, to.add(row, index), to["columns"]), column
                    )
                    for vector in range(self._on.vectors):
                        to.store(next(sums), to.element_pointer(start, vector * to.lanes))

    def _rows(self, item: Value) -> tuple[Value, Value]:
        """Return the first row of an item, and how many it has."""
        to = self._to
        first = to.mul(item, to["rows_per_item"])
        return first, to.minimum(to.sub(to["rows"], first), to["rows_per_item"])

    def _pack(self, left: Value, packed: Value, rows: Value) -> None:
        """Copy rows into blocks; the last row stands for those that a block has too many."""
        to = self._to
        blocks, depths = self._count(rows), self._depths()
        with to.loop(blocks) as block:
            row = to.mul(block.index, self._on.rows)
            sources = [
                to.element_pointer(left, to.minimum(to.add(row, index), to.sub(rows, 1)), to["depth"])
                for index in range(self._on.rows)
            ]
            target = to.element_pointer(packed, row, to["depth"])
            with to.loop(depths) as depth:
                for index, source in enumerate(sources):
                    line = to.element_pointer(
                        target, to.add(to.mul(depth.index, self._on.rows), index), DEPTH
                    )
                    for lane in range(0, DEPTH, to.lanes):
                        value = to.load(
                            to.element_pointer(to.element_pointer(source, depth.index, DEPTH), lane)
                        )
                        to.store(value, to.element_pointer(line, lane))

    @contextlib.contextmanager
    def _parts(self, left: Value, panels: Value, rows: Value) -> Iterator[tuple[Value, Value, Value, Value]]:
        """For each part of the result: its block's and panel's addresses, its first row and column."""
        to = self._to
        with to.loop(to["columns"], self._on.columns) as columns:
            panel = to.element_pointer(panels, columns.index, to["depth"])
            with to.loop(self._count(rows)) as blocks:
                row = to.mul(blocks.index, self._on.rows)
                yield to.element_pointer(left, row, to["depth"]), panel, row, columns.index

    def _sums(self, block: Value, panel: Value) -> list[Value]:
        """Return the products of a block and a panel, summed over the depth: rows x vectors."""
        to, on = self._to, self._on
        depths = self._depths()
        zeros = [to.constant(0.0)] * (on.rows * on.vectors)
        if not self._deep:
            return self._partial_sums(block, panel, depths)[2:]
        with to.loop(depths, SUMMED // DEPTH, carried=[block, panel, *zeros]) as parts:
            left, right, *totals = parts.carried
            count = to.minimum(to.sub(depths, parts.index), to.integer(SUMMED // DEPTH))
            left, right, *sums = self._partial_sums(left, right, count)
            parts.carried = [left, right, *(to.plus(a, b) for a, b in zip(totals, sums, strict=True))]
        return parts.carried[2:]

    def _partial_sums(self, block: Value, panel: Value, depths: Value) -> list[Value]:
        """Return where the block and the panel go on after so many cache lines, and the sums up to there."""
        to, on = self._to, self._on
        zeros = [to.constant(0.0)] * (on.rows * on.vectors)
        with to.loop(depths, carried=[block, panel, *zeros]) as lines:
            line, right, *sums = lines.carried
            # Not unrolled: LLVM would fetch the factors of several rounds first, into registers it lacks.
            with to.loop(DEPTH, carried=[right, *sums]) as columns:
                right, *sums = columns.carried
                vectors = self._vectors(right)
                for vector in range(on.vectors):
                    to.prefetch(to.element_pointer(right, _AHEAD * on.columns + vector * to.lanes))
                left = to.element_pointer(line, columns.index)
                for row in range(on.rows):
                    factor = to.load_float(to.element_pointer(left, row * DEPTH))
                    for index, vector in enumerate(vectors):
                        place = row * on.vectors + index
                        sums[place] = to.fma(factor, vector, sums[place])
                columns.carried = [to.element_pointer(right, on.columns), *sums]
            lines.carried = [to.element_pointer(line, on.rows * DEPTH), *columns.carried]
        return lines.carried

    def _vectors(self, address: Value) -> list[Value]:
        to = self._to
        return [to.load(to.element_pointer(address, vector * to.lanes)) for vector in range(self._on.vectors)]

    def _count(self, rows: Value) -> Value:
        return self._to.divide(self._to.add(rows, self._on.rows - 1), self._on.rows)[0]

    def _depths(self) -> Value:
        return self._to.divide(self._to["depth"], DEPTH)[0]
