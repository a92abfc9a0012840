"""Matrix products in float32: a kernel for the 1x1 convolutions, and one for those of Winograd's tiles.

The scheme is the usual one (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"): the
right factor, a layer's weights, lies in panels of as many columns as the registers hold; the left one in
blocks of as many rows. For each pair a small part of the result is summed up in registers, over all of the
depth, then gets what is added to it and is written, once. So it does not depend on how rows are shared out.

Blocks lie as (depth / 16, rows of a block, 16): a cache line of every row in turn. The 1x1 convolutions'
kernel copies them there; the transform of tiles writes them so.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from . import jit
from .emit import FLOAT_BYTES, Emitter, Value
from .jit import Kernel, Limits, Processor
from .workspace import Workspace

DEPTH = 16
"""A product's depth is a multiple of this: a cache line of float32."""

# Bytes of the left factor that a thread goes through for each panel of the right one: both stay in its L2.
_BLOCKS_BYTES = 384 << 10

# Rows of a panel that are fetched before they are needed: panels come from memory, not from a cache.
_AHEAD = 64

# A longer sum is one of sums of this many products: its rounding errors grow with their lengths, not its own.
_SUMMED = 256

_FACTORS = ("left", "panels", "result", "depth", "columns", "rows", "rows_per_item")
_POINTWISE = (*_FACTORS, "bias", "low", "high", "packed", "packed_floats")
_TILES = (*_FACTORS, "items_per_matrix", "left_floats", "panels_floats", "result_floats")


def fits(depth: int, columns: int) -> bool:
    """Say whether a right factor of this shape can be multiplied with."""
    return depth % DEPTH == 0 and columns % max(each.lanes for each in jit.PROCESSORS) == 0


def padded(columns: int) -> int:
    """Return how many columns whole panels have."""
    width = jit.processor().columns
    return -(-columns // width) * width


def filled(columns: Tensor) -> Tensor:
    """Return (..., columns) filled up with zeros to whole panels."""
    count = columns.shape[-1]
    return F.pad(columns, (0, padded(count) - count))


def in_panels(weights: Tensor) -> Tensor:
    """Return (..., depth, columns) as float32 panels (..., panels, depth, width), filled up with zeros."""
    width = jit.processor().columns
    panels = filled(weights.float()).unflatten(-1, (-1, width))  # type: ignore[no-untyped-call]
    result: Tensor = panels.transpose(-3, -2).contiguous()
    return result


def pointwise(
    pixels: Tensor,
    panels: Tensor,
    bias: Tensor,
    result: Tensor,
    limits: Limits,
    space: Workspace,
    *,
    add: bool,
) -> None:
    """Write the product of pixels and weights, with bias and clamped, or add it to what is there before that.

    Parameters
    ----------
    pixels
        float32, shape (pixels, channels in), contiguous.
    panels
        The weights, (channels in, channels out), as `in_panels` has them.
    bias
        float32, shape (channels out,) filled up to whole panels.
    result
        float32, shape (pixels, channels out), contiguous.
    limits
        The least and the largest value of the result, if any.
    space
        For the pixels in blocks.
    add
        Whether the result is added to.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides are not as said above.
    """
    here = jit.processor()
    _need_factors("pixels", pixels, result)
    rows, depth = pixels.shape
    jit.need_shape("result", result, rows, result.shape[1])
    jit.need_shape("panels", panels, padded(result.shape[1]) // here.columns, depth, here.columns)
    jit.need_shape("bias", bias, padded(result.shape[1]))
    threads = torch.get_num_threads()
    # Some items a thread, so that none waits long for the last one.
    fair = math.ceil(rows / (8 * threads * here.rows))
    rows_per_item = min(_most_blocks(depth, here), fair) * here.rows
    packed = space.take("packed", threads, rows_per_item * depth)
    whole = result.shape[1] % here.columns == 0
    _pointwise(here, add=add, whole=whole, deep=depth > _SUMMED)(
        math.ceil(rows / rows_per_item),
        left=jit.address(pixels),
        panels=jit.address(panels),
        result=jit.address(result),
        depth=depth,
        columns=result.shape[1],
        rows=rows,
        rows_per_item=rows_per_item,
        bias=jit.address(bias),
        **jit.bounds(limits),
        packed=jit.address(packed),
        packed_floats=packed.shape[1],
    )


def tiles(left: Tensor, panels: Tensor, result: Tensor) -> None:
    """Multiply matrices pair by pair.

    Parameters
    ----------
    left
        float32, shape (matrices, blocks, depth / 16, rows of a block, 16), all but the first dimension
        contiguous.
    panels
        float32, shape (matrices, panels, depth, columns of a panel), contiguous.
    result
        float32, shape (matrices, blocks * rows of a block, columns of all panels), each matrix contiguous.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides are not as said above.
    """
    here = jit.processor()
    if left.ndim != 5 or not left.numel():
        raise ValueError(f"left has shape {tuple(left.shape)}, five dimensions are needed")
    matrices, blocks, depths = left.shape[:3]
    depth = depths * DEPTH
    jit.need_shape("left", left, matrices, blocks, depths, here.rows, DEPTH)
    count = panels.shape[1] if panels.ndim == 4 else 1
    jit.need_shape("panels", panels, matrices, max(1, count), depth, here.columns)
    jit.need_shape("result", result, matrices, blocks * here.rows, count * here.columns)
    jit.need_matrices("left", left)
    jit.need_matrices("result", result)
    blocks_per_item = min(_most_blocks(depth, here), blocks)
    items = math.ceil(blocks / blocks_per_item)
    _tiles(here, deep=depth > _SUMMED)(
        matrices * items,
        left=jit.start(left),
        panels=jit.address(panels),
        result=jit.start(result),
        depth=depth,
        columns=result.shape[2],
        rows=result.shape[1],
        rows_per_item=blocks_per_item * here.rows,
        items_per_matrix=items,
        left_floats=left.stride(0),
        panels_floats=panels.stride(0),
        result_floats=result.stride(0),
    )


def _need_factors(name: str, left: Tensor, result: Tensor) -> None:
    """Check what makes the other shapes of a product computable: the left factor's, and the columns."""
    if left.ndim != 2 or not left.numel() or left.shape[1] % DEPTH:
        raise ValueError(f"{name} has shape {tuple(left.shape)}, (rows, a multiple of {DEPTH}) is needed")
    lanes = jit.processor().lanes
    if result.ndim != 2 or not result.numel() or result.shape[1] % lanes:
        raise ValueError(f"result has shape {tuple(result.shape)}, (rows, a multiple of {lanes}) is needed")


def _most_blocks(depth: int, on: Processor) -> int:
    return max(1, _BLOCKS_BYTES // (FLOAT_BYTES * depth * on.rows))


@functools.lru_cache
def _pointwise(on: Processor, *, add: bool, whole: bool, deep: bool) -> Kernel:
    def write(emitter: Emitter) -> None:
        _Product(emitter, on, deep=deep).pointwise(add=add, whole=whole)

    return Kernel("pointwise", _POINTWISE, write, on.lanes)


@functools.lru_cache
def _tiles(on: Processor, *, deep: bool) -> Kernel:
    return Kernel("tiles", _TILES, lambda emitter: _Product(emitter, on, deep=deep).tiles(), on.lanes)


class _Product:
    """Writes the two kernels."""

    def __init__(self, emitter: Emitter, on: Processor, *, deep: bool) -> None:
        self._to = emitter
        self._on = on
        self._deep = deep

    def pointwise(self, *, add: bool, whole: bool) -> None:
        to = self._to
        low, high = to.from_bits("low"), to.from_bits("high")
        packed = to.after(to["packed"], to.thread(), to["packed_floats"])
        nowhere = to.room(self._on.columns)
        with to.items() as item:
            first, rows = self._rows(item)
            self._pack(to.after(to["left"], first, to["depth"]), packed, rows)
            result = to.after(to["result"], first, to["columns"])
            with self._parts(packed, to["panels"], rows) as (block, panel, row, column):
                targets = []
                for index in range(self._on.rows):
                    here = to.add(row, index)
                    start = to.after(to.after(result, here, to["columns"]), column)
                    # Rows of the last block beyond the result, and vectors of the last panel.
                    start = to.choose(to.below(here, rows), start, nowhere)
                    for vector in range(self._on.vectors):
                        target = to.after(start, vector * to.lanes)
                        if not whole:
                            inside = to.below(to.add(column, vector * to.lanes), to["columns"])
                            target = to.choose(inside, target, nowhere)
                        targets.append(target)
                for target in targets:
                    to.will_write(target)
                biases = self._vectors(to.after(to["bias"], column)) * self._on.rows
                for target, total, bias in zip(targets, self._sums(block, panel), biases, strict=True):
                    if add:
                        total = to.plus(total, to.load(target))
                    to.store(to.clamped(to.plus(total, bias), low, high), target)

    def tiles(self) -> None:
        to = self._to
        with to.items() as item:
            matrix, part = to.divide(item, to["items_per_matrix"])
            first, rows = self._rows(part)
            left = to.after(to.after(to["left"], matrix, to["left_floats"]), first, to["depth"])
            panels = to.after(to["panels"], matrix, to["panels_floats"])
            result = to.after(to.after(to["result"], matrix, to["result_floats"]), first, to["columns"])
            with self._parts(left, panels, rows) as (block, panel, row, column):
                sums = iter(self._sums(block, panel))
                for index in range(self._on.rows):
                    start = to.after(to.after(result, to.add(row, index), to["columns"]), column)
                    for vector in range(self._on.vectors):
                        to.store(next(sums), to.after(start, vector * to.lanes))

    def _rows(self, item: Value) -> tuple[Value, Value]:
        """Return the first row of an item, and how many it has."""
        to = self._to
        first = to.mul(item, to["rows_per_item"])
        return first, to.least(to.sub(to["rows"], first), to["rows_per_item"])

    def _pack(self, left: Value, packed: Value, rows: Value) -> None:
        """Copy rows into blocks; the last row stands for those that a block has too many."""
        to = self._to
        blocks, depths = self._count(rows), self._depths()
        with to.loop(blocks) as block:
            row = to.mul(block.index, self._on.rows)
            sources = [
                to.after(left, to.least(to.add(row, index), to.sub(rows, 1)), to["depth"])
                for index in range(self._on.rows)
            ]
            target = to.after(packed, row, to["depth"])
            with to.loop(depths) as depth:
                for index, source in enumerate(sources):
                    line = to.after(target, to.add(to.mul(depth.index, self._on.rows), index), DEPTH)
                    for lane in range(0, DEPTH, to.lanes):
                        value = to.load(to.after(to.after(source, depth.index, DEPTH), lane))
                        to.store(value, to.after(line, lane))

    @contextlib.contextmanager
    def _parts(self, left: Value, panels: Value, rows: Value) -> Iterator[tuple[Value, Value, Value, Value]]:
        """For each part of the result: its block's and panel's addresses, its first row and column."""
        to = self._to
        with to.loop(to["columns"], self._on.columns) as columns:
            panel = to.after(panels, columns.index, to["depth"])
            with to.loop(self._count(rows)) as blocks:
                row = to.mul(blocks.index, self._on.rows)
                yield to.after(left, row, to["depth"]), panel, row, columns.index

    def _sums(self, block: Value, panel: Value) -> list[Value]:
        """Return the products of a block and a panel, summed over the depth: rows x vectors."""
        to, on = self._to, self._on
        depths = self._depths()
        zeros = [to.constant(0.0)] * (on.rows * on.vectors)
        if not self._deep:
            return self._partial_sums(block, panel, depths)[2:]
        with to.loop(depths, _SUMMED // DEPTH, carried=[block, panel, *zeros]) as parts:
            left, right, *totals = parts.carried
            count = to.least(to.sub(depths, parts.index), to.integer(_SUMMED // DEPTH))
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
                    to.will_read(to.after(right, _AHEAD * on.columns + vector * to.lanes))
                left = to.after(line, columns.index)
                for row in range(on.rows):
                    factor = to.load_float(to.after(left, row * DEPTH))
                    for index, vector in enumerate(vectors):
                        place = row * on.vectors + index
                        sums[place] = to.times_plus(factor, vector, sums[place])
                columns.carried = [to.after(right, on.columns), *sums]
            lines.carried = [to.after(line, on.rows * DEPTH), *columns.carried]
        return lines.carried

    def _vectors(self, address: Value) -> list[Value]:
        to = self._to
        return [to.load(to.after(address, vector * to.lanes)) for vector in range(self._on.vectors)]

    def _count(self, rows: Value) -> Value:
        return self._to.divide(self._to.add(rows, self._on.rows - 1), self._on.rows)[0]

    def _depths(self) -> Value:
        return self._to.divide(self._to["depth"], DEPTH)[0]
