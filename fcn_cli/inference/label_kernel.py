"""Find the fused kernel that makes label maps on a GPU, if it runs there and is right."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from . import device_errors
from .interpolation import Taps, taps
from .upsampling import PredictionOptions, Upsampled, Upsampler

_CHECKED = PredictionOptions(confidence=True, minimum=0.2)
_CLASSES = 21
# Not multiples of anything.
_LOGITS = 11, 17
_LABELS = 53, 301
# Where the two best logits nearly tie, or a probability nearly is the minimum, rounding decides.
_MAX_OTHER_LABELS = 0.001
_MAX_OTHER_CONFIDENCE = 1


class LabelKernel(Protocol):
    """Makes a label map of logits in one pass; see `triton_labels.label_map_kernel`."""

    def __call__(
        self, logits: Tensor, x: Taps, y: Taps, options: PredictionOptions, *, probabilities: bool
    ) -> Upsampled:
        """Return the label map, and its confidence if that is wanted."""
        ...


def find_label_kernel(device: torch.device) -> LabelKernel | None:
    """Return the kernel of a GPU, or None where there is none or it differs from the plain operators.

    Raises
    ------
    RuntimeError
        The device is lost, or its memory does not suffice.
    """
    try:
        from .triton_labels import label_map_kernel

        return label_map_kernel if is_right(label_map_kernel, device) else None
    except Exception as error:
        # Without Triton, a C compiler for its launcher, or support for this GPU: whatever it raises.
        if device_errors.is_lost_device(error, device) or device_errors.is_out_of_memory(error):
            raise
        return None


def is_right(kernel: LabelKernel, device: torch.device) -> bool:
    """Compare a kernel with the plain operators, on random logits."""
    logits = torch.randn(_CLASSES, *_LOGITS, generator=torch.Generator().manual_seed(0)).mul_(3).to(device)
    y, x = (taps(few, many) for few, many in zip(_LOGITS, _LABELS, strict=True))
    plain = Upsampler(_CHECKED, compiled=False).upsample(logits, x, y)
    ours = kernel(logits, x.to(device), y.to(device), _CHECKED, probabilities=False)
    if plain.confidence is None or ours.confidence is None:
        return False
    others = float((plain.labels != ours.labels).float().mean())
    difference = int((plain.confidence.int() - ours.confidence.int()).abs().max())
    return others <= _MAX_OTHER_LABELS and difference <= _MAX_OTHER_CONFIDENCE
