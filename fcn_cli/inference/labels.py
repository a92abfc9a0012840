"""Logits at the network's stride to a label map at the image's size, in strips to bound the memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from ..common.label_map import VOID_INDEX
from . import device_errors
from .interpolation import Taps, interpolation_matrix, strip_bounds, taps

# Elements of an interpolated chunk: a part of a CPU's cache, and of a GPU's memory.
_CHUNK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 26}


@dataclass(frozen=True)
class PredictionOptions:
    """What to predict beside the classes.

    With `confidence`, the softmax probability of each pixel's winning class is returned. A pixel with a
    probability below `minimum` (0 to 1), or below that which `minimum_of` has for its class, becomes void.
    With `logits`, those of each cell are kept.
    """

    confidence: bool = False
    minimum: float = 0.0
    minimum_of: Mapping[int, float] = field(default_factory=dict)
    logits: bool = False

    @property
    def labels_only(self) -> bool:
        """Whether no probability is needed."""
        return not self.confidence and not self.has_minimum

    @property
    def has_minimum(self) -> bool:
        """Whether a pixel may become void."""
        return self.minimum > 0 or bool(self.minimum_of)

    def minimums(self, classes: int, device: torch.device) -> Tensor:
        """Return the least probability of each class: float32, shape (classes,)."""
        result = torch.full((classes,), self.minimum, device=device)
        for index, minimum in self.minimum_of.items():
            result[index] = minimum
        return result


LABELS_ONLY = PredictionOptions()
_LARGEST_HALF = torch.finfo(torch.float16).max


def in_half(logits: Tensor) -> Tensor:
    """Return logits as float16; what is too large for it is its largest number."""
    return logits.clamp(-_LARGEST_HALF, _LARGEST_HALF).half().contiguous()


class Upsampled(NamedTuple):
    """A label map and its confidence (probability times 255), both uint8, shape (h, w)."""

    labels: Tensor
    confidence: Tensor | None


LabelKernel: TypeAlias = Callable[[Tensor, Taps, Taps, PredictionOptions, bool], Upsampled]
"""Makes a label map on a GPU in one pass; see `triton_labels.label_map_kernel`."""


def find_label_kernel(device: torch.device, options: PredictionOptions) -> LabelKernel | None:
    """Return the kernel of a GPU, or None where it cannot be compiled: tried here, not amid a run.

    Raises
    ------
    RuntimeError
        The device is lost, or its memory does not suffice.
    """
    try:
        from .triton_labels import label_map_kernel

        at = taps(2, 2, device)
        label_map_kernel(torch.zeros(2, 2, 2, device=device), at, at, options, False)
    except Exception as error:
        # Without Triton, a C compiler for its launcher, or support for this GPU: whatever it raises.
        if device_errors.is_lost_device(error, device) or device_errors.is_out_of_memory(error):
            raise
        return None
    return label_map_kernel


def probabilities(logits: NDArray[np.float16], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the softmax of logits, (classes, h, w), that are interpolated bilinearly to (height, width)."""
    wide = F.interpolate(torch.from_numpy(logits).float()[None], size, mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = wide.softmax(1)[0].numpy()
    return result


@dataclass(frozen=True)
class Upsampler:
    """Interpolates logits bilinearly and takes the argmax.

    Among equal logits the lowest class wins. The confidence is the maximum of the softmax over the classes,
    of which there are at most 255. Memory does not grow with classes x height x width.

    `compiled` has our kernel make the labels on a CPU, and `kernel` makes everything on a GPU; without them,
    and for probabilities on a CPU, PyTorch's operators do it, chunk by chunk. With `probabilities` the logits
    are probabilities already, which sum to one over the classes.
    """

    options: PredictionOptions = LABELS_ONLY
    compiled: bool = True
    probabilities: bool = False
    kernel: LabelKernel | None = None

    def to_size(self, logits: Tensor, height: int, width: int) -> Upsampled:
        """Return the label map of a size in pixels, and its confidence if that is wanted.

        It is that of ``F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)``,
        up to the rounding of float32. `logits` is float32, shape (classes, h, w).
        """
        # Taps for the kernel are made on the GPU: copied there, they would wait for what it computes.
        device = torch.device("cpu") if self.kernel is None else logits.device
        x, y = taps(logits.shape[2], width, device), taps(logits.shape[1], height, device)
        return self.upsample(logits, x, y)

    def upsample(self, logits: Tensor, x: Taps, y: Taps) -> Upsampled:
        """Return the label map, of shape (len(y.low), len(x.low)), and its confidence if that is wanted."""
        device = logits.device
        if self.kernel is not None:
            return self.kernel(logits, x.to(device), y.to(device), self.options, self.probabilities)
        logits = logits.contiguous()
        if not self.compiled or device.type != "cpu":
            labels = torch.empty((len(y.low), len(x.low)), dtype=torch.uint8, device=device)
            return Upsampled(labels, self._fill(logits, x, y, labels, write_labels=True))
        # Imported here: it loads llvmlite, which neither a GPU nor PyTorch's own kernels need.
        from .compiled_labels import compiled_label_map

        labels = compiled_label_map(logits, x, y)
        if self.options.labels_only:
            return Upsampled(labels, None)
        return Upsampled(labels, self._fill(logits, x, y, labels, write_labels=False))

    def _fill(self, logits: Tensor, x: Taps, y: Taps, labels: Tensor, *, write_labels: bool) -> Tensor | None:
        """Write the void pixels, and the labels with `write_labels`, into `labels`; return the confidence."""
        classes, options = len(logits), self.options
        confidence = torch.empty_like(labels) if options.confidence else None
        least = options.minimums(classes, logits.device) if options.minimum_of else None
        # Descending, so that the maximum over equal logits selects the lowest class.
        order = torch.arange(classes, 0, -1, dtype=torch.float32, device=logits.device)[:, None, None]
        for rows, chunk in _chunks(logits, x, y):
            # PyTorch's argmax is scalar code; these operators are vectorised.
            best = chunk.amax(0)
            # Computed before the chunk is overwritten.
            probability = None if options.labels_only else self._probability(chunk, best)
            if write_labels:
                labels[rows] = classes - chunk.eq_(best).mul_(order).amax(0)
            if probability is not None and options.has_minimum:
                needed = options.minimum if least is None else least[labels[rows].long()]
                labels[rows].masked_fill_(probability < needed, VOID_INDEX)
            if probability is not None and confidence is not None:
                confidence[rows] = probability.mul_(255).round_()
        return confidence

    def _probability(self, chunk: Tensor, best: Tensor) -> Tensor:
        """Return the winning class's probability."""
        if self.probabilities:
            return best.clone()
        # The largest term of the sum is exp(0).
        return (chunk - best).exp_().sum(0).reciprocal_()


def _chunks(logits: Tensor, x: Taps, y: Taps) -> Iterator[tuple[slice, Tensor]]:
    """Yield some of the label map's rows at a time, with their logits: shape (classes, rows, width).

    All rows of a chunk lie between the same two rows of logits, which are interpolated once, as a matrix
    product.
    """
    classes, _, size = logits.shape
    width, device = len(x.low), logits.device
    matrix, down = interpolation_matrix(x, size, width).to(device), y.weight.to(device)[:, None]
    most = max(1, _CHUNK_ELEMENTS[device.type] // (classes * width))
    wide: dict[int, Tensor] = {}
    for start, end in itertools.pairwise(strip_bounds(y)):
        low, high = int(y.low[start]), int(y.high[start])
        wide = {row: wide[row] if row in wide else logits[:, row] @ matrix for row in (low, high)}
        for first in range(start, end, most):
            rows = slice(first, min(first + most, end))
            yield rows, torch.lerp(wide[low][:, None], wide[high][:, None], down[rows])
