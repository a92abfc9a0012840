"""Low-resolution logits to a label map at the photo's size, strip by strip."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.label_map import VOID_INDEX
from .interpolation import Taps, bounds, taps, widening

# Elements of the interpolated strip: on a CPU it should stay in cache, a GPU wants few launches.
_STRIP_ELEMENTS_CPU = 1 << 19
_STRIP_ELEMENTS_GPU = 1 << 26


@dataclass(frozen=True)
class PredictionOptions:
    """What is wanted beside the classes.

    `confidence`: the winning class's softmax probability of every pixel. `minimum`: a pixel with less of it
    becomes void.
    """

    confidence: bool = False
    minimum: float = 0.0


LABELS_ONLY = PredictionOptions()


class Upsampled(NamedTuple):
    """A label map, and the confidence in it (0 to 255 for a probability of 0 to 1), both uint8, (h, w)."""

    labels: Tensor
    confidence: Tensor | None


def label_map(logits: Tensor, height: int, width: int) -> Tensor:
    """Return only the labels of `upsampled`."""
    return upsampled(logits, height, width).labels


def upsampled(
    logits: Tensor,
    height: int,
    width: int,
    options: PredictionOptions = LABELS_ONLY,
    *,
    compiled: bool = True,
) -> Upsampled:
    """Interpolate logits bilinearly and take the argmax, without a tensor of classes x height x width.

    The same as ``F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)`` and
    ``argmax(1)``, up to the rounding of float32; of equal logits the lowest class index wins. The confidence
    is the largest value of ``softmax(1)`` there.

    Parameters
    ----------
    logits
        float32, shape (classes, h, w), at most 255 classes.
    height, width
        Size of the result in pixels.
    options
        What is wanted beside the classes.
    compiled
        Whether a CPU takes the labels by our kernel, or by PyTorch's operators alone.

    Returns
    -------
    Upsampled
        On the device of `logits`; the confidence is None unless asked for.
    """
    x, y = taps(logits.shape[2], width), taps(logits.shape[1], height)
    compiled = compiled and logits.device.type == "cpu"
    if compiled:
        # Here, because llvmlite comes with it, which neither a GPU nor PyTorch's own kernels need.
        from .compiled_labels import labels_between

        labels = labels_between(logits.contiguous(), x, y)
        if options == LABELS_ONLY:
            return Upsampled(labels, None)
    else:
        labels = torch.empty((height, width), dtype=torch.uint8, device=logits.device)
    confidence = _by_strips(logits.contiguous(), x, y, labels, options, label=not compiled)
    return Upsampled(labels, confidence)


def _by_strips(
    logits: Tensor, x: Taps, y: Taps, labels: Tensor, options: PredictionOptions, *, label: bool
) -> Tensor | None:
    """Write the labels, if they are not there, and the void ones; return the confidence, if asked for."""
    classes, device = len(logits), logits.device
    confidence = torch.empty_like(labels) if options.confidence else None
    # Descending, so that the largest of the equal ones is the lowest class.
    order = torch.arange(classes, 0, -1, dtype=torch.float32, device=device)[:, None, None]
    weight = y.weight.to(device)[:, None]
    between = _between_rows if device.type == "cpu" else _gathered
    for start, stop, upper, lower in between(logits, x, y):
        strip = torch.lerp(upper, lower, weight[start:stop])
        # PyTorch's argmax goes element by element; these are vectorised.
        best = strip.amax(0)
        # Before the strip is overwritten. The largest term of the sum is exp(0).
        winner = (strip - best).exp_().sum(0).reciprocal_() if options != LABELS_ONLY else None
        if label:
            labels[start:stop] = classes - strip.eq_(best).mul_(order).amax(0)
        if winner is not None:
            labels[start:stop][winner < options.minimum] = VOID_INDEX
        if winner is not None and confidence is not None:
            confidence[start:stop] = winner.mul_(255).round_()
    return confidence


_Strips = Iterator[tuple[int, int, Tensor, Tensor]]
"""First row, row after the last, and for the classes and these rows the logits above and below, widened."""


def _between_rows(logits: Tensor, x: Taps, y: Taps) -> _Strips:
    """Cut strips that each lie between two rows of logits, and widen each row once, by a GEMM."""
    classes, _, size = logits.shape
    width = len(x.low)
    widen = widening(x, size, width)
    rows = max(1, _STRIP_ELEMENTS_CPU // (classes * width))
    wide: dict[int, Tensor] = {}
    for start, end in itertools.pairwise(bounds(y)):
        low, high = int(y.low[start]), int(y.high[start])
        wide = {row: wide[row] if row in wide else logits[:, row] @ widen for row in (low, high)}
        for first in range(start, end, rows):
            yield first, min(first + rows, end), wide[low][:, None], wide[high][:, None]


def _gathered(logits: Tensor, x: Taps, y: Taps) -> _Strips:
    """Cut few large strips, and gather the rows of logits for each: a GPU wants few launches."""
    device = logits.device
    left, right, weight = x.low.to(device), x.high.to(device), x.weight.to(device)
    rows = max(1, _STRIP_ELEMENTS_GPU // (len(logits) * len(left)))
    for start in range(0, len(y.low), rows):
        stop = min(start + rows, len(y.low))
        first, last = int(y.low[start]), int(y.high[stop - 1]) + 1
        source = logits[:, first:last]
        wide = torch.lerp(source[:, :, left], source[:, :, right], weight)
        upper, lower = y.low[start:stop] - first, y.high[start:stop] - first
        yield start, stop, wide[:, upper.to(device)], wide[:, lower.to(device)]
