"""The class of the largest of interpolated logits, for every pixel: a CPU kernel.

A pixel lies between two rows of logits, which were widened to the label map's width before. The kernel goes
over all classes with the best one so far in registers: nothing of the label map's size but the result is
written.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import compiler
from .compiler import Kernel, SimdTarget
from .ir_builder import Emitter, Value

# Columns that a thread does together: their logits of two rows and all classes stay in its L1.
_COLUMNS = 256

_MOST_CLASSES = 255
"""Label maps are uint8 and 255 is void."""

_FIELDS = ("wide", "classes", "width", "ends", "rows", "weights", "chunks", "labels")


def argmax(wide: Tensor, ends: Tensor, rows: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Write the label map between rows of logits.

    Parameters
    ----------
    wide
        float32, shape (rows of logits, classes, width), contiguous, the width a multiple of a vector's.
    ends
        int64, shape (strips + 1,): the label map's rows from one of these to the next are a strip, and lie
        between the same two rows of logits.
    rows
        int64, shape (strips, 2): these two.
    weights
        float32, shape (rows of the label map,): of the second one.
    labels
        uint8, shape (rows of the label map, width), contiguous; is overwritten. Of equal logits the lowest
        class index wins.

    Raises
    ------
    ValueError
        A tensor's shape, type or strides, or what `ends` and `rows` point to, are not as said above.
    """
    _check(wide, ends, rows, weights, labels)
    chunks = -(-wide.shape[2] // _COLUMNS)
    _kernel(compiler.processor())(
        len(rows) * chunks,
        wide=compiler.address(wide),
        classes=wide.shape[1],
        width=wide.shape[2],
        ends=compiler.address(ends, torch.int64),
        rows=compiler.address(rows, torch.int64),
        weights=compiler.address(weights),
        chunks=chunks,
        labels=compiler.address(labels, torch.uint8),
    )


def _check(wide: Tensor, ends: Tensor, rows: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Refuse what the kernel would read or write out of bounds."""
    lanes = compiler.processor().lanes
    if wide.ndim != 3 or not wide.numel() or wide.shape[1] > _MOST_CLASSES or wide.shape[2] % lanes:
        raise ValueError(
            f"wide has shape {tuple(wide.shape)}, "
            f"(rows, at most {_MOST_CLASSES} classes, a multiple of {lanes}) is needed"
        )
    if labels.ndim != 2 or rows.ndim != 2 or not labels.numel() or not rows.numel():
        raise ValueError(
            f"labels has shape {tuple(labels.shape)} and rows {tuple(rows.shape)}, "
            "(rows, width) and (strips, 2) are needed"
        )
    compiler.need_shape("labels", labels, len(labels), wide.shape[2])
    compiler.need_shape("weights", weights, len(labels))
    compiler.need_shape("rows", rows, len(rows), 2)
    compiler.need_shape("ends", ends, len(rows) + 1)
    # What these two hold become addresses; there is one strip for every row of logits.
    low, high = (int(one) for one in rows.aminmax())
    if low < 0 or high >= len(wide):
        raise ValueError(f"rows hold {low} to {high}, there are {len(wide)} rows of logits")
    if int(ends[0]) < 0 or int(ends[-1]) > len(labels) or bool((ends.diff() < 0).any()):
        raise ValueError(f"strips end at {ends.tolist()}, the label map has {len(labels)} rows")


@functools.lru_cache
def _kernel(target: SimdTarget) -> Kernel:
    return Kernel("argmax", _FIELDS, _write, target.lanes)


def _write(builder: Emitter) -> None:
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


def _best(builder: Emitter, upper: Value, lower: Value, weight: Value) -> Value:
    """Return the index of the largest one between two rows of logits, as float32."""
    one, nothing = builder.constant(1.0), builder.constant(0.0)
    carried = [upper, lower, builder.constant(-float("inf")), nothing, nothing]
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
