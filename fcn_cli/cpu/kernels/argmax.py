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
from .compiler import Kernel, Processor
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
def _kernel(on: Processor) -> Kernel:
    return Kernel("argmax", _FIELDS, _write, on.lanes)


def _write(to: Emitter) -> None:
    with to.items() as item:
        strip, chunk = to.divide(item, to["chunks"])
        first, last = (to.load_int(to["ends"], to.add(strip, n)) for n in (0, 1))
        above, below = (to.load_int(to["rows"], to.add(to.mul(2, strip), n)) for n in (0, 1))
        upper, lower = (to.after(to["wide"], row, to["classes"], to["width"]) for row in (above, below))
        begin = to.mul(chunk, _COLUMNS)
        count = to.least(to.sub(to["width"], begin), to.integer(_COLUMNS))
        with to.loop(to.sub(last, first)) as rows:
            row = to.add(first, rows.index)
            weight = to.load_float(to.after(to["weights"], row))
            with to.loop(count, to.lanes) as columns:
                column = to.add(begin, columns.index)
                best = _best(to, to.after(upper, column), to.after(lower, column), weight)
                to.store_bytes(best, to.add(to["labels"], to.mul(row, to["width"]), column))


def _best(to: Emitter, upper: Value, lower: Value, weight: Value) -> Value:
    """Return the index of the largest one between two rows of logits, as float32."""
    one, nothing = to.constant(1.0), to.constant(0.0)
    carried = [upper, lower, to.constant(-float("inf")), nothing, nothing]
    with to.loop(to["classes"], carried=carried) as classes:
        above, below, best, label, index = classes.carried
        a, b = to.load(above), to.load(below)
        value = to.times_plus(weight, to.minus(b, a), a)
        larger = to.greater(value, best)
        classes.carried = [
            to.after(above, to["width"]),
            to.after(below, to["width"]),
            to.choose(larger, value, best),
            to.choose(larger, index, label),
            to.plus(index, one),
        ]
    return classes.carried[3]
