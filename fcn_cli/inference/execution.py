"""Choose device, precision and kernels: what ``auto`` means here, and what the hardware cannot do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..common import resources
from ..common.errors import RequestError
from .options import InferenceOptions

if TYPE_CHECKING:
    from ..cpu.kernels.simd_targets import SimdTarget

ONEDNN_PRIMITIVES = 256
"""How many compiled operators oneDNN keeps: those of a dozen shapes of input. Its own default is 1024."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
KERNELS = ("auto", "fast", "torch")

# Both kinds of kernels were measured to be hardly faster with more.
_AUTO_BATCH_CPU = 1
_AUTO_BATCH_CUDA = 16

_BF16_CAPABILITY = (8, 0)
_FP16_CAPABILITY = (7, 0)
"""The first CUDA compute capabilities with tensor cores for bfloat16 and float16."""


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how a network runs.

    `kernels` is ``fast`` (ours) or ``torch``, `batch_size` the number of images of one shape per forward
    pass. `fallback` is the precision in which an image whose logits are not finite is done again, or None.
    """

    device: torch.device
    precision: str
    kernels: str
    batch_size: int
    threads: int
    fallback: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return where and how the network runs, as summaries and benchmarks have it."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "kernels": self.kernels,
            "threads": self.threads,
        }


def resolve_execution(options: InferenceOptions | None = None) -> ExecutionConfig:
    """Decide what ``auto`` means on this machine, and where our kernels apply: on a CPU.

    Without `options` everything is ``auto``.

    `precision` auto is float32 on a CPU. On CUDA it is bfloat16 from compute capability 8.0; on 7.x float16,
    where an image whose logits are not finite is done again in float32; else float32.

    `kernels` auto is ours on a CPU in float32 where they were measured to be faster than PyTorch's: with AVX2
    or AVX-512. In bfloat16, auto and fast are ours on a CPU with AMX or AVX512_BF16; they are PyTorch's where
    the operating system keeps AMX from our kernels.

    Raises
    ------
    RequestError
        The device does not exist or does not have this precision, or a name is unknown.
    """
    options = options or InferenceOptions()
    precision, kernels = options.precision, options.kernels
    for option, value, known in (("precision", precision, PRECISIONS), ("kernels", kernels, KERNELS)):
        if value not in known:
            raise RequestError(f"--{option} {value}: not one of {', '.join(known)}")
    chosen = _device(options.device)
    fallback = None
    if chosen.type == "cuda":
        precision, fallback = _on_cuda(chosen, precision)
        kernels = "torch"
    else:
        precision, kernels = _on_cpu(precision, kernels)
    auto_batch = _AUTO_BATCH_CPU if chosen.type == "cpu" else _AUTO_BATCH_CUDA
    batch_size, threads = options.batch_size or auto_batch, options.threads or resources.cpu_count()
    return ExecutionConfig(chosen, precision, kernels, batch_size, threads, fallback)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise RequestError(f"--device {name}: not one of auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            has = (
                f"has {count} CUDA device{'s' if count > 1 else ''}" if count else "has no usable CUDA device"
            )
            raise RequestError(f"--device {name}: this machine {has}")
    return device


def _on_cuda(device: torch.device, precision: str) -> tuple[str, str | None]:
    """Return the precision to compute in, and the one to fall back to."""
    capability = torch.cuda.get_device_capability(device)
    if precision == "auto":
        if capability >= _BF16_CAPABILITY:
            return "bf16", None
        return ("fp16", "fp32") if capability >= _FP16_CAPABILITY else ("fp32", None)
    if precision == "bf16" and capability < _BF16_CAPABILITY:
        name, version = torch.cuda.get_device_name(device), ".".join(map(str, capability))
        raise RequestError(
            f"--precision bf16: {name} ({device}) has compute capability {version}, bfloat16 needs 8.0; "
            "use auto, fp16 or fp32"
        )
    return precision, None


def _on_cpu(precision: str, kernels: str) -> tuple[str, str]:
    """Return the precision to compute in, and whose kernels compute."""
    if precision == "fp16":
        raise RequestError("--precision fp16 needs a CUDA device; on a CPU use fp32 or bf16")
    if precision == "bf16":
        return precision, _bf16_kernels(kernels)
    if kernels == "auto":
        kernels = "fast" if _simd_target().beats_torch else "torch"
    return "fp32", kernels


def _bf16_kernels(kernels: str) -> str:
    if kernels == "torch":
        return "torch"
    if _has_amx():
        return "fast" if _amx_available() else "torch"
    if not _simd_target().multiplies_bf16:
        raise RequestError(
            "--precision bf16: this CPU has no bfloat16 instructions (AMX or AVX512_BF16), so it would "
            "be slower than fp32; use fp32, or add --kernels torch to use it anyway"
        )
    return "fast"


def note(chosen: ExecutionConfig) -> str | None:
    """Return one line on a choice that makes a run slower on this machine, or None."""
    if chosen.device.type != "cpu" or (chosen.precision, chosen.kernels) != ("bf16", "fast"):
        return None
    from ..cpu.kernels import simd_targets

    if _has_amx() or simd_targets.multiplies_bf16_fast():
        return None
    return "--precision bf16 is slower than fp32 on this processor; on Intel it needs AMX"


def _has_amx() -> bool:
    # PyTorch has no public name for this question, nor had every version this one.
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _amx_available() -> bool:
    from ..cpu.kernels import amx

    return amx.available()


def _simd_target() -> SimdTarget:
    # Imported here: it loads llvmlite, which neither a GPU nor PyTorch's own kernels need.
    from ..cpu.kernels import simd_targets

    return simd_targets.simd_target()
