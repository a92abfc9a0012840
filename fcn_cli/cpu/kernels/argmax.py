"""The class of the largest interpolated logit for every pixel: a CPU kernel.

Logits are first widened to the label map's width; the kernel interpolates between two rows of them. It loops
over the classes with the best one so far in registers, and writes nothing of the label map's size but the
result.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import argmax_ir, arguments, simd_targets
from .argmax_ir import COLUMNS

_kernel = functools.lru_cache(argmax_ir.argmax)

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
    _kernel(simd_targets.simd_target())(
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
