"""Low-resolution logits to a label map at the photo's size, strip by strip."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..common.label_map import VOID_INDEX
from .interpolation import Taps, interpolation_matrix, strip_bounds, taps, taps_on

if TYPE_CHECKING:
    from .label_kernel import LabelKernel

# Elements of an interpolated strip: small enough for a CPU's cache; large on a GPU, for few kernel launches.
_STRIP_ELEMENTS_CPU = 1 << 19
_STRIP_ELEMENTS_GPU = 1 << 26


@dataclass(frozen=True)
class PredictionOptions:
    """What to predict beside the classes.

    With `confidence`, the softmax probability of each pixel's winning class is returned. A pixel with a
    probability below `minimum` (0 to 1) becomes void.
    """

    confidence: bool = False
    minimum: float = 0.0

    @property
    def labels_only(self) -> bool:
        """Whether no probability is needed."""
        return not self.confidence and not self.minimum


LABELS_ONLY = PredictionOptions()


class Upsampled(NamedTuple):
    """A label map and its confidence (probability times 255), both uint8, shape (h, w)."""

    labels: Tensor
    confidence: Tensor | None


def label_map(logits: Tensor, height: int, width: int) -> Tensor:
    """Return only the labels of `upsample`: uint8, shape (height, width)."""
    return upsample(logits, height, width).labels


def upsample(
    logits: Tensor,
    height: int,
    width: int,
    options: PredictionOptions = LABELS_ONLY,
    *,
    compiled: bool = True,
    kernel: LabelKernel | None = None,
) -> Upsampled:
    """Interpolate logits bilinearly and take the argmax, strip by strip.

    The result equals ``F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)``
    followed by ``argmax(1)``, up to float32 rounding. Among equal logits the lowest class index wins. The
    confidence is the maximum of ``softmax(1)``. Memory does not grow with classes x height x width.

    Parameters
    ----------
    logits
        float32, shape (classes, h, w), at most 255 classes.
    height, width
        Size of the result in pixels.
    options
        What to predict beside the classes.
    compiled
        On a CPU, compute the labels with our compiled kernel instead of PyTorch's operators.
    kernel
        Makes the label map on a GPU instead of PyTorch's operators.

    Returns
    -------
    Upsampled
        On the device of `logits`; the confidence is None unless `options` request it.
    """
    return Upsampler(options, compiled=compiled, kernel=kernel).to_size(logits, height, width)


@dataclass(frozen=True)
class Upsampler:
    """Interpolates logits at given taps and takes the argmax; see `upsample`.

    With `probabilities` they are probabilities already, which sum to one over the classes. On a GPU `kernel`
    makes the label map in one pass, if there is one.
    """

    options: PredictionOptions = LABELS_ONLY
    compiled: bool = True
    probabilities: bool = False
    kernel: LabelKernel | None = None

    def to_size(self, logits: Tensor, height: int, width: int) -> Upsampled:
        """Return the label map of a size in pixels, and its confidence if that is wanted."""
        if self.kernel is not None:
            device = logits.device
            x, y = taps_on(logits.shape[2], width, device), taps_on(logits.shape[1], height, device)
        else:
            x, y = taps(logits.shape[2], width), taps(logits.shape[1], height)
        return self.upsample(logits, x, y)

    def upsample(self, logits: Tensor, x: Taps, y: Taps) -> Upsampled:
        """Return the label map, of shape (len(y.low), len(x.low)), and its confidence if that is wanted."""
        device = logits.device
        compiled = self.compiled and device.type == "cpu"
        if self.kernel is not None:
            return self.kernel(
                logits, x.to(device), y.to(device), self.options, probabilities=self.probabilities
            )
        if compiled:
            # Imported here: it loads llvmlite, which neither a GPU nor PyTorch's own kernels need.
            from .compiled_labels import compiled_label_map

            labels = compiled_label_map(logits.contiguous(), x, y)
            if self.options.labels_only:
                return Upsampled(labels, None)
        else:
            shape = len(y.low), len(x.low)
            labels = torch.empty(shape, dtype=torch.uint8, device=device)
        confidence = _fill_by_strips(logits.contiguous(), x, y, labels, self, write_labels=not compiled)
        return Upsampled(labels, confidence)


def _fill_by_strips(
    logits: Tensor, x: Taps, y: Taps, labels: Tensor, upsampler: Upsampler, *, write_labels: bool
) -> Tensor | None:
    """Write the void pixels (and the labels, with `write_labels`) into `labels`; return the confidence."""
    classes, device, options = len(logits), logits.device, upsampler.options
    confidence = torch.empty_like(labels) if options.confidence else None
    # Descending, so that the maximum over equal logits selects the lowest class.
    order = torch.arange(classes, 0, -1, dtype=torch.float32, device=device)[:, None, None]
    weight = y.weight.to(device)[:, None]
    strips = _cpu_strips if device.type == "cpu" else _gpu_strips
    for start, stop, upper, lower in strips(logits, x, y):
        strip = torch.lerp(upper, lower, weight[start:stop])
        # PyTorch's argmax is scalar code; these operators are vectorised.
        best = strip.amax(0)
        # Computed before the strip is overwritten.
        probability = None if options.labels_only else _probability(strip, best, upsampler)
        if write_labels:
            labels[start:stop] = classes - strip.eq_(best).mul_(order).amax(0)
        if probability is not None:
            labels[start:stop].masked_fill_(probability < options.minimum, VOID_INDEX)
        if probability is not None and confidence is not None:
            confidence[start:stop] = probability.mul_(255).round_()
    return confidence


def _probability(strip: Tensor, best: Tensor, upsampler: Upsampler) -> Tensor:
    """Return the winning class's probability."""
    if upsampler.probabilities:
        return best.clone()
    # The largest term of the sum is exp(0).
    return (strip - best).exp_().sum(0).reciprocal_()


_Strips = Iterator[tuple[int, int, Tensor, Tensor]]
"""First row, end row, and the horizontally interpolated logits of the rows above and below each."""


def _cpu_strips(logits: Tensor, x: Taps, y: Taps) -> _Strips:
    """Yield strips between two rows of logits; each row is interpolated once, as a matrix product."""
    classes, _, size = logits.shape
    width = len(x.low)
    matrix = interpolation_matrix(x, size, width)
    rows = max(1, _STRIP_ELEMENTS_CPU // (classes * width))
    wide: dict[int, Tensor] = {}
    for start, end in itertools.pairwise(strip_bounds(y)):
        low, high = int(y.low[start]), int(y.high[start])
        wide = {row: wide[row] if row in wide else logits[:, row] @ matrix for row in (low, high)}
        for first in range(start, end, rows):
            yield first, min(first + rows, end), wide[low][:, None], wide[high][:, None]


def _gpu_strips(logits: Tensor, x: Taps, y: Taps) -> _Strips:
    """Yield few large strips and gather the rows of logits for each, which needs few kernel launches."""
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
