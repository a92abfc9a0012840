"""The SIMD instruction sets that kernels are compiled for, and which one this machine has."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import binding

_FLOAT_BYTES = 4
_MACHINES = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}


@dataclass(frozen=True, eq=False)
class SimdTarget:
    """An instruction set, and how a matrix product uses its registers.

    `machine` is LLVM's name of the machines that have it, empty where all have. `lanes` is the number of
    float32 in a vector. A matrix product computes `rows` x `vectors` vectors at a time: as many as fit into
    the registers beside the factors. They must be eight or more, as a multiply-add takes four cycles and two
    begin in each, and need fewer loads than multiply-adds. `features` are those that LLVM must find in a
    processor, and `processor` is LLVM's name of a plain one that has them. `beats_torch` says whether our
    float32 kernels were measured to be faster than PyTorch's there (`benchmarks/RESULTS.md`),
    `multiplies_bf16` whether there is an instruction for dot products of bfloat16 pairs.
    """

    name: str
    machine: str
    lanes: int
    rows: int
    vectors: int
    features: tuple[str, ...]
    processor: str
    beats_torch: bool = True
    multiplies_bf16: bool = False

    @property
    def columns(self) -> int:
        """The number of columns that a matrix product computes at a time."""
        return self.lanes * self.vectors

    @property
    def vector_bytes(self) -> int:
        """The size of a vector register."""
        return self.lanes * _FLOAT_BYTES

    @property
    def triple(self) -> str:
        """The machine and its system as LLVM names them: this one, or another machine with Linux."""
        if self.machine in {"", host_machine()}:
            return str(binding.get_default_triple())
        return f"{self.machine}-unknown-linux-gnu"

    def runs_here(self) -> bool:
        """Return whether this machine's processor has the instruction set."""
        available = host_features()
        return self.machine in {"", host_machine()} and all(available.get(each) for each in self.features)


AVX512_BF16 = SimdTarget(
    "AVX512_BF16", "x86_64", 16, 12, 2, ("avx512f", "avx512bf16"), "cooperlake", multiplies_bf16=True
)
AVX512 = SimdTarget("AVX512", "x86_64", 16, 12, 2, ("avx512f",), "x86-64-v4")
AVX2 = SimdTarget("AVX2", "x86_64", 8, 6, 2, ("avx2", "fma"), "x86-64-v3")
# Every 64-bit ARM has it; LLVM may find no features there.
NEON = SimdTarget("NEON", "aarch64", 4, 12, 2, (), "generic", beats_torch=False)
BASELINE = SimdTarget("BASELINE", "", 4, 6, 2, (), "", beats_torch=False)
SIMD_TARGETS = (AVX512_BF16, AVX512, AVX2, NEON, BASELINE)
"""From the best to the one that every processor has."""


def host_machine() -> str:
    """Return LLVM's name of this kind of machine."""
    return _MACHINES.get(platform.machine(), platform.machine())


def host_processor() -> str:
    """Return LLVM's name of this machine's processor."""
    return str(binding.get_host_cpu_name())


def host_features() -> Mapping[str, bool]:
    """Return which instruction sets this machine's processor has, by LLVM's names."""
    features: dict[str, bool] = binding.get_host_cpu_features()
    return features


@functools.lru_cache(maxsize=1)
def host_target() -> SimdTarget:
    """Return the best target that this machine's processor supports."""
    return next(target for target in SIMD_TARGETS if target.runs_here())


def simd_target() -> SimdTarget:
    """Return the target that kernels are compiled for."""
    return host_target()


def multiplies_bf16_fast() -> bool:
    """Return whether bfloat16 is faster than float32 without AMX: on AMD's Zen 4 and later.

    Intel's cores make a quarter of Zen's dot products of pairs in a cycle (`benchmarks/RESULTS.md`).
    """
    return simd_target().multiplies_bf16 and host_processor().startswith("znver")


def processor(target: SimdTarget) -> tuple[str, str]:
    """Return the processor and the features that LLVM compiles for.

    For the best target of this machine they are its own. A lesser one gets its own instructions only, so that
    its code is what a machine without the better ones would run.
    """
    if target == host_target():
        return host_processor(), str(binding.get_host_cpu_features().flatten())
    return target.processor, ""


def describe() -> str:
    """Return one line on the instruction set and the compiler of the kernels."""
    target, version = simd_target(), ".".join(map(str, binding.llvm_version_info))
    return f"{target.name}, vectors of {target.lanes} float32, compiled by LLVM {version}"
