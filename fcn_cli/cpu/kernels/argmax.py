"""The class of the largest interpolated logit for every pixel: a CPU kernel.

Logits are first widened to the label map's width; the kernel interpolates between two rows of them. It loops
over the classes with the best one so far in registers, and writes nothing of the label map's size but the
result.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import arguments, simd_targets
from .compiler import Kernel
from .notation import F32, I64, U8, KernelBuilder, Pointer, Variable, Vector, fma, minimum
from .simd_targets import SimdTarget

COLUMNS = 256
"""Columns that a thread processes together: their logits of two rows and all classes stay in its L1 cache."""

_FIELDS = ("wide", "classes", "width", "ends", "rows", "weights", "chunks", "labels")

_MAX_CLASSES = 255
"""Label maps are uint8 and 255 is void."""


def argmax(wide: Tensor, ends: Tensor, rows: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Interpolate between rows of logits and write the label map.

    Parameters
    ----------
    wide
        float32, shape (rows of logits, at most 255 classes, width), contiguous; the width is a multiple of
        the vector length.
    ends
        int64, shape (strips + 1,): a strip consists of the label map's rows from one of these to the next,
        at least one; all of them lie between the same two rows of logits.
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
    chunks = -(-wide.shape[2] // COLUMNS)
    argmax_kernel(simd_targets.simd_target())(
        len(rows) * chunks,
        wide=arguments.contiguous_pointer(wide),
        classes=wide.shape[1],
        width=wide.shape[2],
        ends=arguments.contiguous_pointer(ends, torch.int64),
        rows=arguments.contiguous_pointer(rows, torch.int64),
        weights=arguments.contiguous_pointer(weights),
        chunks=chunks,
        labels=arguments.contiguous_pointer(labels, torch.uint8),
    )


def _check(wide: Tensor, ends: Tensor, rows: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Refuse arguments with which the kernel would read or write out of bounds."""
    lanes = simd_targets.simd_target().lanes
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
    arguments.require_shape("labels", labels, len(labels), wide.shape[2])
    arguments.require_shape("weights", weights, len(labels))
    arguments.require_shape("rows", rows, len(rows), 2)
    arguments.require_shape("ends", ends, len(rows) + 1)
    # Their values become addresses. Checking all is cheap: there is one strip for every row of logits.
    low, high = (int(extreme) for extreme in rows.aminmax())
    if low < 0 or high >= len(wide):
        raise ValueError(f"rows hold {low} to {high}, there are {len(wide)} rows of logits")
    if int(ends[0]) < 0 or int(ends[-1]) > len(labels) or bool((ends.diff() <= 0).any()):
        raise ValueError(f"strips end at {ends.tolist()}, the label map has {len(labels)} rows")


@functools.lru_cache
def argmax_kernel(target: SimdTarget) -> Kernel:
    """Build the kernel of `argmax`."""
    return Kernel("argmax", _FIELDS, _build, target)


def _build(kernel: KernelBuilder) -> None:
    wide, weights = kernel.pointer("wide", F32), kernel.pointer("weights", F32)
    ends, rows = kernel.pointer("ends", I64), kernel.pointer("rows", I64)
    labels, width = kernel.pointer("labels", U8), kernel["width"]
    with kernel.parallel_for() as item:
        strip, chunk = divmod(item, kernel["chunks"])
        first, last = ends[strip], ends[strip + 1]
        upper = wide + rows[2 * strip] * kernel["classes"] * width
        lower = wide + rows[2 * strip + 1] * kernel["classes"] * width
        begin = chunk * COLUMNS
        count = minimum(width - begin, COLUMNS)
        with kernel.loop(last - first) as index:
            row = first + index
            weight = (weights + row).broadcast()
            with kernel.loop(count, kernel.lanes(F32)) as offset:
                column = begin + offset
                best = _best(kernel, upper + column, lower + column, weight)
                (labels + row * width + column).store(best.to_uint8())


def _best(
    kernel: KernelBuilder, upper: Pointer[F32], lower: Pointer[F32], weight: Vector[F32]
) -> Vector[F32]:
    """Return the index of the class with the largest interpolated logit, as float32."""
    above, below = Variable(upper), Variable(lower)
    best = Variable(kernel.splat(-float("inf")))
    label, index = Variable(kernel.splat(0.0)), Variable(kernel.splat(0.0))
    with kernel.loop(kernel["classes"], carried=[above, below, best, label, index]):
        a, b = above.value.load(), below.value.load()
        value = fma(weight, b - a, a)
        larger = value > best.value
        best.value = larger.select(value, best.value)
        label.value = larger.select(index.value, label.value)
        index.value += 1.0
        above.value += kernel["width"]
        below.value += kernel["width"]
    return label.value
