"""How the network is run, as users ask for it; light, as commands that compute nothing hold it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InferenceOptions:
    """How the network is run; what ``auto`` and None stand for is `execution.resolve_execution`'s to say.

    `device` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. `precision` is ``auto``, ``fp32``, ``bf16`` or
    ``fp16``. `kernels` is ``auto``, ``fast`` or ``torch``. `batch_size` is the number of images of one shape
    per forward pass, `threads` that of the network's CPU threads. Pixels whose class has a smaller
    probability than `min_confidence` (0 to 1) become void.
    """

    device: str = "auto"
    precision: str = "auto"
    kernels: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    min_confidence: float = 0.0
