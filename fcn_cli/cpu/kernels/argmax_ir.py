"""Build the kernel of `argmax`, which checks its arguments."""

from __future__ import annotations

from .compiler import Kernel
from .ir_builder import KernelBuilder, Variable
from .ir_values import Pointer, Vector, fma, minimum
from .llvm import F32, I64, U8
from .simd_targets import SimdTarget

COLUMNS = 256
"""Columns that a thread processes together: their logits of two rows and all classes stay in its L1 cache."""

_FIELDS = ("wide", "classes", "width", "ends", "rows", "weights", "chunks", "labels")


def argmax(target: SimdTarget) -> Kernel:
    """Build the kernel of `argmax.argmax`."""
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
