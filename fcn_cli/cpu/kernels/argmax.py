"""The class of the largest interpolated logit for every pixel: a CPU kernel.

Logits are first widened to the label map's width; the kernel interpolates between two rows of them. It loops
over the classes with the best one so far in registers, and writes nothing of the label map's size but the
result.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import compiler
from .compiler import Kernel, SimdTarget
from .ir_arithmetic import Value
from .ir_builder import KernelBuilder

# Columns that a thread processes together: their logits of two rows and all classes stay in its L1 cache.
_COLUMNS = 256

_MAX_CLASSES = 255
"""Label maps are uint8 and 255 is void."""

_FIELDS = ("wide", "classes", "width", "ends", "rows", "weights", "chunks", "labels")


def argmax(wide: Tensor, ends: Tensor, rows: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Interpolate between rows of logits and write the label map.

    Parameters
    ----------
    wide
        float32, shape (rows of logits, at most 255 classes, width), contiguous; the width is a multiple of
        the vector length.
    ends
        int64, shape (strips + 1,): a strip consists of the label map's rows from one of these to the next;
        all of them lie between the same two rows of logits.
    rows
        int64, shape (strips, 2): the indices of these two rows.
    weights
        float32, shape (rows of the label map,): the weight of the second one, from 0 to 1.
    labels
        uint8, shape (rows of the label map, width), contiguous; is overwritten. Among equal logits the lowest
        class index wins.

    Raises
    ------
    ValueError
        A tensor has another shape, type or strides, or `ends` or `rows` are out of range.
    """
    _check(wide, ends, rows, weights, labels)
    chunks = -(-wide.shape[2] // _COLUMNS)
    _kernel(compiler.simd_target())(
        len(rows) * chunks,
        wide=compiler.contiguous_pointer(wide),
        classes=wide.shape[1],
        width=wide.shape[2],
        ends=compiler.contiguous_pointer(ends, torch.int64),
        rows=compiler.contiguous_pointer(rows, torch.int64),
        weights=compiler.contiguous_pointer(weights),
        chunks=chunks,
        labels=compiler.contiguous_pointer(labels, torch.uint8),
    )


def _check(wide: Tensor, ends: Tensor, rows: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Refuse arguments with which the kernel would read or write out of bounds."""
    lanes = compiler.simd_target().lanes
    if wide.ndim != 3 or not wide.numel() or wide.shape[1] > _MAX_CLASSES or wide.shape[2] % lanes:
        raise ValueError(
            f"wide has shape {tuple(wide.shape)}, "
            f"expected (rows, at most {_MAX_CLASSES} classes, a multiple of {lanes})"
        )
    if labels.ndim != 2 or rows.ndim != 2 or not labels.numel() or not rows.numel():
        raise ValueError(
            f"labels has shape {tuple(labels.shape)} and rows {tuple(rows.shape)}, "
            "expected (rows, width) and (strips, 2)"
        )
    compiler.require_shape("labels", labels, len(labels), wide.shape[2])
    compiler.require_shape("weights", weights, len(labels))
    compiler.require_shape("rows", rows, len(rows), 2)
    compiler.require_shape("ends", ends, len(rows) + 1)
    # Their values become addresses. Checking all is cheap: there is one strip for every row of logits.
    low, high = (int(extreme) for extreme in rows.aminmax())
    if low < 0 or high >= len(wide):
        raise ValueError(f"rows hold {low} to {high}, there are {len(wide)} rows of logits")
    if int(ends[0]) < 0 or int(ends[-1]) > len(labels) or bool((ends.diff() < 0).any()):
        raise ValueError(f"strips end at {ends.tolist()}, the label map has {len(labels)} rows")


@functools.lru_cache
def _kernel(target: SimdTarget) -> Kernel:
    return Kernel("argmax", _FIELDS, _build, target.lanes)


def _build(builder: KernelBuilder) -> None:
    with builder.parallel_for() as item:
        strip, chunk = builder.divide(item, builder["chunks"])
        first, last = (builder.load_int(builder["ends"], builder.add(strip, n)) for n in (0, 1))
        above, below = (
            builder.load_int(builder["rows"], builder.add(builder.mul(2, strip), n)) for n in (0, 1)
        )
        upper, lower = (
            builder.element_pointer(builder["wide"], row, builder["classes"], builder["width"])
            for row in (above, below)
        )
        begin = builder.mul(chunk, _COLUMNS)
        count = builder.minimum(builder.sub(builder["width"], begin), builder.integer(_COLUMNS))
        with builder.loop(builder.sub(last, first)) as rows:
            row = builder.add(first, rows.index)
            weight = builder.load_float(builder.element_pointer(builder["weights"], row))
            with builder.loop(count, builder.lanes) as columns:
                column = builder.add(begin, columns.index)
                best = _best(
                    builder,
                    builder.element_pointer(upper, column),
                    builder.element_pointer(lower, column),
                    weight,
                )
                builder.store_bytes(
                    best, builder.add(builder["labels"], builder.mul(row, builder["width"]), column)
                )


def _best(builder: KernelBuilder, upper: Value, lower: Value, weight: Value) -> Value:
    """Return the index of the class with the largest interpolated logit, as float32."""
    one, zero = builder.constant(1.0), builder.constant(0.0)
    carried = [upper, lower, builder.constant(-float("inf")), zero, zero]
    with builder.loop(builder["classes"], carried=carried) as classes:
        above, below, best, label, index = classes.carried
        a, b = builder.load(above), builder.load(below)
        value = builder.fma(weight, builder.minus(b, a), a)
        larger = builder.greater(value, best)
        classes.carried = [
            builder.element_pointer(above, builder["width"]),
            builder.element_pointer(below, builder["width"]),
            builder.select(larger, value, best),
            builder.select(larger, index, label),
            builder.plus(index, one),
        ]
    return classes.carried[3]
