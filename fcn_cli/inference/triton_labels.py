"""Logits to labels on a GPU in one kernel: no logit at the image's size is ever written to memory.

Each program computes a part of one row of the label map: it interpolates class after class from the four
logits around each pixel, and keeps the best. Importing this module needs Triton, which comes with PyTorch for
CUDA on Linux; its first call compiles, which needs a C compiler. Where either is missing, `labels` works
chunk by chunk.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.label_map import VOID_INDEX
from .interpolation import Taps
from .labels import LABELS_ONLY, PredictionOptions, Upsampled

_BLOCK = 256
_VOID = tl.constexpr(VOID_INDEX)


def label_map_kernel(
    logits: Tensor, x: Taps, y: Taps, options: PredictionOptions = LABELS_ONLY, probabilities: bool = False
) -> Upsampled:
    """Return a label map, and its confidence if `options` want it; see `labels.Upsampler`.

    `logits` are float32, shape (classes, h, w), any strides; `probabilities` says that they are probabilities
    already. `x` and `y` are the taps of the columns and rows, on their device.
    """
    height, width = len(y.low), len(x.low)
    labels = torch.empty((height, width), dtype=torch.uint8, device=logits.device)
    confidence = torch.empty_like(labels) if options.confidence else None
    grid = (height, triton.cdiv(width, _BLOCK))
    _labels[grid](
        logits,
        *x,
        *y,
        labels,
        labels if confidence is None else confidence,
        len(logits),
        width,
        *logits.stride(),
        options.minimums(len(logits), logits.device) if options.has_minimum else logits,
        has_confidence=options.confidence,
        has_minimum=options.has_minimum,
        are_probabilities=probabilities,
        block=_BLOCK,
    )
    return Upsampled(labels, confidence)


# Triton takes the annotations of its kernels for expressions: they have only those that it knows.
@triton.jit
def _between(low, high, weight):
    # As torch.lerp does it: exact at both ends.
    return tl.where(weight < 0.5, low + weight * (high - low), high - (high - low) * (1 - weight))


@triton.jit
def _interpolated(upper, lower, left, right, x_weight, y_weight, inside):
    """Return one class's logits at a part of a row; `upper` and `lower` point to its two rows of logits."""
    above = _between(tl.load(upper + left, inside, 0.0), tl.load(upper + right, inside, 0.0), x_weight)
    below = _between(tl.load(lower + left, inside, 0.0), tl.load(lower + right, inside, 0.0), x_weight)
    return _between(above, below, y_weight)


# Its integers do not make other kernels: images of a new size would wait for the compiler.
@triton.jit(
    do_not_specialize=["classes", "width", "class_stride", "row_stride", "column_stride"],
    do_not_specialize_on_alignment=["logits"],
)
def _labels(
    logits,
    x_low,
    x_high,
    x_weight,
    y_low,
    y_high,
    y_weight,
    labels,
    confidence,
    classes,
    width,
    class_stride,
    row_stride,
    column_stride,
    minimums,
    has_confidence: tl.constexpr,
    has_minimum: tl.constexpr,
    are_probabilities: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    left = tl.load(x_low + columns, inside, 0) * column_stride
    right = tl.load(x_high + columns, inside, 0) * column_stride
    across = tl.load(x_weight + columns, inside, 0.0)
    upper = logits + tl.load(y_low + row) * row_stride
    lower = logits + tl.load(y_high + row) * row_stride
    down = tl.load(y_weight + row)

    best = _interpolated(upper, lower, left, right, across, down, inside)
    label = tl.zeros([block], tl.int32)
    for index in range(1, classes):
        offset = tl.cast(index, tl.int64) * class_stride
        value = _interpolated(upper + offset, lower + offset, left, right, across, down, inside)
        # Of equal logits the lowest class wins.
        label = tl.where(value > best, index, label)
        best = tl.maximum(best, value)

    if has_confidence or has_minimum:
        probability = best
        if not are_probabilities:
            total = tl.zeros([block], tl.float32)
            for index in range(classes):
                offset = tl.cast(index, tl.int64) * class_stride
                value = _interpolated(upper + offset, lower + offset, left, right, across, down, inside)
                total += tl.exp(value - best)
            probability = 1.0 / total
        if has_minimum:
            label = tl.where(probability < tl.load(minimums + label), _VOID, label)
        if has_confidence:
            rounded = tl.floor(probability * 255.0 + 0.5)
            tl.store(confidence + tl.cast(row, tl.int64) * width + columns, rounded.to(tl.uint8), inside)
    tl.store(labels + tl.cast(row, tl.int64) * width + columns, label.to(tl.uint8), inside)
