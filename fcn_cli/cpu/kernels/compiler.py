"""Compile kernels for this processor, and run them on all threads."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llvmlite import binding, ir
from torch import Tensor

from . import ir_builder

Clamp = tuple[float | None, float | None]
"""The minimum and maximum of a result, None for no limit: (0, None) is ReLU."""


@dataclass(frozen=True)
class SimdTarget:
    """The SIMD instruction set that kernels are compiled for.

    `lanes` is the number of float32 in a vector. A matrix product computes `rows` x `vectors` vectors at a
    time: as many as fit into the registers beside the factors.
    """

    lanes: int
    rows: int
    vectors: int

    @property
    def columns(self) -> int:
        """The number of columns that a matrix product computes at a time."""
        return self.lanes * self.vectors


AVX512 = SimdTarget(16, 12, 2)
AVX2 = SimdTarget(8, 6, 2)
BASELINE = SimdTarget(4, 6, 2)
SIMD_TARGETS = (AVX512, AVX2, BASELINE)


@functools.lru_cache(maxsize=1)
def simd_target() -> SimdTarget:
    """Return the best target that this machine's processor supports."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return AVX512
    if features.get("avx2") and features.get("fma"):
        return AVX2
    return BASELINE


def describe() -> str:
    """Return one line on the processor, the vectors and the compiler of the kernels."""
    vectors = f"vectors of {simd_target().lanes} float32"
    return f"compiled for {binding.get_host_cpu_name()}, {vectors}, by LLVM {_version()}"


def _version() -> str:
    return ".".join(map(str, binding.llvm_version_info))


def contiguous_pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
    """Return the data pointer of a contiguous CPU tensor.

    Raises
    ------
    ValueError
        The tensor is not contiguous, or has another dtype or device: a kernel would not notice.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} that is not contiguous")
    return data_pointer(tensor, dtype)


def data_pointer(tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
    """Return the data pointer of a CPU tensor, for a kernel that knows its strides.

    Raises
    ------
    ValueError
        The tensor has another dtype or device: a kernel would not notice.
    """
    if tensor.dtype != dtype or tensor.device.type != "cpu":
        raise ValueError(f"a tensor of {tensor.dtype} on {tensor.device}, not {dtype} on the CPU")
    return tensor.data_ptr()


def require_shape(name: str, tensor: Tensor, *shape: int) -> None:
    """Check the shape of an argument: with another one, a kernel would read or write out of bounds.

    Raises
    ------
    ValueError
        The shape is another one; the message names both.
    """
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def require_contiguous_matrices(name: str, tensor: Tensor) -> None:
    """Check that a batch's matrices (all but the first dimension) are contiguous and do not overlap.

    Raises
    ------
    ValueError
        They are not contiguous or overlap; the message names the strides.
    """
    disjoint = len(tensor) == 1 or tensor.stride(0) >= tensor[0].numel()
    if not disjoint or not tensor[0].is_contiguous():
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} has strides {tensor.stride()}, "
            "expected contiguous matrices that do not overlap"
        )


def clamp_fields(clamp: Clamp) -> dict[str, float]:
    """Return a kernel's task fields for a clamp; no limit is an infinite one."""
    low, high = clamp
    return {
        "low": -math.inf if low is None else float(low),
        "high": math.inf if high is None else float(high),
    }


class Kernel:
    """A compiled function that processes the items of a task.

    Parameters
    ----------
    name
        The name of the function.
    fields
        The fields of its task.
    build
        Builds the function.
    lanes
        The number of float32 in its vectors.
    """

    def __init__(
        self, name: str, fields: Sequence[str], build: Callable[[ir_builder.KernelBuilder], None], lanes: int
    ) -> None:
        module = ir.Module(name)
        build(ir_builder.KernelBuilder(module, name, fields, lanes))
        self._engine = _compiled(str(module))
        self._address = self._engine.get_function_address(name)
        self._fields = frozenset(fields)
        self._field_indices = {field: index for index, field in enumerate(ir_builder.task_fields(fields))}

    def __call__(self, items: int, **values: int | float) -> None:
        """Process all items on all of torch's threads.

        Threads take items in no fixed order: the result must not depend on it.

        Raises
        ------
        TypeError
            A field has no value, or a value no field.
        """
        if values.keys() != self._fields:
            raise TypeError(f"a task with {sorted(self._fields ^ values.keys())} missing or unknown")
        task = (ctypes.c_int64 * len(self._field_indices))()
        task[self._field_indices[ir_builder.ITEMS]] = items
        for field, value in values.items():
            task[self._field_indices[field]] = value if isinstance(value, int) else _bits(value)
        threads = torch.get_num_threads()
        run_on_threads = _openmp() or _pool(threads)
        run_on_threads(self._address, ctypes.addressof(task), min(threads, items), 0)


def _bits(value: float) -> int:
    """Return the bits of a float32."""
    return int.from_bytes(struct.pack("<f", value), "little")


_compiling = threading.Lock()


def _compiled(code: str) -> Any:
    """Compile LLVM IR for this processor and return the execution engine that holds the code."""
    with _compiling:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        module = binding.parse_assembly(code)
        module.verify()
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(),
            features=binding.get_host_cpu_features().flatten(),
            opt=2,
        )
        engine = binding.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        return engine


_RunOnThreads = Callable[[int, int, int, int], object]
"""Calls a function (its address) with a task (its address) on a number of threads and waits for all; the last
argument is a flag of OpenMP's."""


@functools.lru_cache(maxsize=1)
def _openmp() -> _RunOnThreads | None:
    """Return the entry point of the GNU OpenMP library that torch uses, or None.

    Torch's own threads must do the work: they spin while they wait, and other threads would compete with
    them.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # The look-up includes a library's dependencies, so this finds torch's own OpenMP and no other.
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    entry: _RunOnThreads = parallel
    return entry


@functools.lru_cache(maxsize=1)
def _pool(count: int) -> _RunOnThreads:
    """Return the same on threads of our own, which run in parallel: the call releases Python's lock."""
    pool = ThreadPoolExecutor(max_workers=count)

    def call(function: int, task: int, threads: int, _flags: int) -> None:
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
        for future in [pool.submit(entry, task) for _ in range(threads)]:
            future.result()

    return call
