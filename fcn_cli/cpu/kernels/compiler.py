"""Machine code for the CPU's kernels: compiling it for this processor, and running it on all threads."""

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
"""The least and the largest value that a result may have, if any: (0, None) is ReLU."""


@dataclass(frozen=True)
class SimdTarget:
    """What kernels are written for.

    `lanes` is how many float32 a vector has. A matrix product computes `rows` x `vectors` of them at a time:
    as many as the registers hold, beside the factors.
    """

    lanes: int
    rows: int
    vectors: int

    @property
    def columns(self) -> int:
        """How many columns of the result a matrix product computes at a time."""
        return self.lanes * self.vectors


AVX512 = SimdTarget(16, 12, 2)
AVX2 = SimdTarget(8, 6, 2)
BASELINE = SimdTarget(4, 6, 2)
PROCESSORS = (AVX512, AVX2, BASELINE)


@functools.lru_cache(maxsize=1)
def processor() -> SimdTarget:
    """Return what this machine's processor can do."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return AVX512
    if features.get("avx2") and features.get("fma"):
        return AVX2
    return BASELINE


def describe() -> str:
    """Say in a few words what kernels are compiled for, and by what."""
    vectors = f"vectors of {processor().lanes} float32"
    return f"compiled for {binding.get_host_cpu_name()}, {vectors}, by LLVM {_version()}"


def _version() -> str:
    return ".".join(map(str, binding.llvm_version_info))


def address(tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
    """Return where a tensor's numbers are, for a kernel that takes them to lie one after the other.

    Raises
    ------
    ValueError
        They do not, or are of another type or on another device: a kernel would not notice.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} that is not contiguous")
    return start(tensor, dtype)


def start(tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
    """Return where a tensor begins, for a kernel that knows its strides; raises ValueError as `address`."""
    if tensor.dtype != dtype or tensor.device.type != "cpu":
        raise ValueError(f"a tensor of {tensor.dtype} on {tensor.device}, not {dtype} on the CPU")
    return tensor.data_ptr()


def need_shape(name: str, tensor: Tensor, *shape: int) -> None:
    """Check the shape of an argument before a kernel, which would read or write out of bounds, gets it.

    Raises
    ------
    ValueError
        It has another shape; the text names both.
    """
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {shape} is needed")


def need_matrices(name: str, tensor: Tensor) -> None:
    """Check that a tensor's matrices, all of it but the first dimension, are contiguous and do not overlap.

    Raises
    ------
    ValueError
        They are not; the text names the strides.
    """
    apart = len(tensor) == 1 or tensor.stride(0) >= tensor[0].numel()
    if not apart or not tensor[0].is_contiguous():
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} has strides {tensor.stride()}, "
            "contiguous matrices that do not overlap are needed"
        )


def clamp_fields(limits: Clamp) -> dict[str, float]:
    """Return a kernel's fields for limits: infinite where there is none."""
    low, high = limits
    return {
        "low": -math.inf if low is None else float(low),
        "high": math.inf if high is None else float(high),
    }


class Kernel:
    """A compiled function of a task.

    Parameters
    ----------
    name
        The function's.
    fields
        The fields of its task.
    write
        Writes it.
    lanes
        How many float32 its vectors have.
    """

    def __init__(
        self, name: str, fields: Sequence[str], write: Callable[[ir_builder.Emitter], None], lanes: int
    ) -> None:
        module = ir.Module(name)
        write(ir_builder.Emitter(module, name, fields, lanes))
        self._engine = _compiled(str(module))
        self._address = self._engine.get_function_address(name)
        self._fields = frozenset(fields)
        self._places = {field: index for index, field in enumerate(ir_builder.task_fields(fields))}

    def __call__(self, items: int, **values: int | float) -> None:
        """Do all items, on all of torch's threads; every field has a value.

        Which thread does which item is chance: a result must not depend on it.
        """
        if values.keys() != self._fields:
            raise TypeError(f"a task with {sorted(self._fields ^ values.keys())} missing or unknown")
        task = (ctypes.c_int64 * len(self._places))()
        task[self._places[ir_builder.ITEMS]] = items
        for field, value in values.items():
            task[self._places[field]] = value if isinstance(value, int) else _bits(value)
        threads = torch.get_num_threads()
        on_threads = _openmp() or _pool(threads)
        on_threads(self._address, ctypes.addressof(task), min(threads, items), 0)


def _bits(value: float) -> int:
    """Return a float32's bits."""
    return int.from_bytes(struct.pack("<f", value), "little")


_compiling = threading.Lock()


def _compiled(code: str) -> Any:
    """Return an execution engine with the code in it, for this processor."""
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


_OnThreads = Callable[[int, int, int, int], object]
"""Calls a function's address with a task's on so many threads, and returns when all are done; and a flag."""


@functools.lru_cache(maxsize=1)
def _openmp() -> _OnThreads | None:
    """Return GNU OpenMP's entry as torch itself uses it, or None.

    Torch's own threads must do the work: they wait for it busily, and others would have to compete with them.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # What a library depends on is searched too: so it is the one that torch has, and no other.
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    entry: _OnThreads = parallel
    return entry


@functools.lru_cache(maxsize=1)
def _pool(count: int) -> _OnThreads:
    """Return the same by threads of our own: a call into compiled code lets them all run."""
    pool = ThreadPoolExecutor(max_workers=count)

    def call(function: int, task: int, threads: int, _flags: int) -> None:
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
        for done in [pool.submit(entry, task) for _ in range(threads)]:
            done.result()

    return call
