"""Low-resolution logits to a label map at the photo's size, strip by strip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Elements of the interpolated strip: on a CPU it should stay in cache, a GPU wants few launches.
_STRIP_ELEMENTS_CPU = 1 << 19
_STRIP_ELEMENTS_GPU = 1 << 26


class _Taps(NamedTuple):
    """For every output index the two source indices and the weight of the second."""

    low: Tensor
    high: Tensor
    weight: Tensor


def label_map(logits: Tensor, height: int, width: int) -> Tensor:
    """Interpolate logits bilinearly and take the argmax, without a tensor of classes x height x width.

    The same as ``F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)`` and
    ``argmax(1)``, up to the rounding of float32; of equal logits the lowest class index wins.

    Parameters
    ----------
    logits
        float32, shape (classes, h, w), at most 256 classes.
    height, width
        Size of the result in pixels.

    Returns
    -------
    Tensor
        uint8, shape (height, width), on the device of `logits`.
    """
    device = logits.device
    x, y = _taps(logits.shape[2], width), _taps(logits.shape[1], height)
    left, right, x_weight = x.low.to(device), x.high.to(device), x.weight.to(device)[:, None]
    upper, lower, y_weight = y.low.to(device), y.high.to(device), y.weight.to(device)[:, None, None]
    labels = torch.empty((height, width), dtype=torch.uint8, device=device)
    budget = _STRIP_ELEMENTS_CPU if device.type == "cpu" else _STRIP_ELEMENTS_GPU
    rows = max(1, budget // (logits.shape[0] * width))
    channels_last = logits.permute(1, 2, 0).contiguous()
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        first, last = int(y.low[start]), int(y.high[stop - 1]) + 1
        source = channels_last[first:last]
        wide = torch.lerp(source[:, left], source[:, right], x_weight)
        strip = torch.lerp(
            wide[upper[start:stop] - first], wide[lower[start:stop] - first], y_weight[start:stop]
        )
        labels[start:stop] = strip.argmax(2)
    return labels


def _taps(size_in: int, size_out: int) -> _Taps:
    """Return where PyTorch's half-pixel rule reads: (i + 0.5) * in / out - 0.5, not below 0, in float32."""
    scale = torch.tensor(size_in, dtype=torch.float32) / torch.tensor(size_out, dtype=torch.float32)
    position = ((torch.arange(size_out, dtype=torch.float32) + 0.5) * scale - 0.5).clamp_(min=0)
    low = position.floor().long().clamp_(max=size_in - 1)
    high = (low + 1).clamp_(max=size_in - 1)
    return _Taps(low, high, position - low)
