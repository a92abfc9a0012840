"""Compile kernels for an instruction set, and run them on all of torch's threads."""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from llvmlite import binding

from . import simd_targets
from .notation import ITEMS, NEXT, THREADS, KernelBuilder, task_fields
from .simd_targets import SimdTarget

_COUNTERS = [task_fields(()).index(name) for name in (NEXT, THREADS)]
_AMX = "llvm.x86.ldtilecfg"
_compiling = threading.Lock()

_RunOnThreads = Callable[[int, int, int, int], object]
"""Calls a function (its address) with a task (its address) on a number of threads and waits for all; the last
argument is a flag of OpenMP's."""


class Kernel:
    """A function for the items of a task with these fields; `build` builds it, the first call compiles it."""

    def __init__(
        self,
        name: str,
        fields: Sequence[str],
        build: Callable[[KernelBuilder], None],
        target: SimdTarget,
    ) -> None:
        builder = KernelBuilder(name, fields, target.vector_bytes, multiplies_bf16=target.multiplies_bf16)
        build(builder)
        self.ir = str(builder)
        self._name = name
        self._target = target
        self._fields = frozenset(fields)
        self._field_indices = {field: index for index, field in enumerate(task_fields(fields))}

    def __call__(self, items: int, **values: int | float) -> None:
        """Process all items of a task, once; otherwise as `task`."""
        self.task(items, **values)()

    def task(self, items: int, **values: int | float) -> Callable[[], None]:
        """Return what processes all items on all of torch's threads, whenever it is called.

        Threads take items in no fixed order: the result must not depend on it. Raises TypeError where a field
        has no value, or a value no field.
        """
        if values.keys() != self._fields:
            raise TypeError(f"a task with {sorted(self._fields ^ values.keys())} missing or unknown")
        task = (ctypes.c_int64 * len(self._field_indices))()
        task[self._field_indices[ITEMS]] = items
        for field, value in values.items():
            task[self._field_indices[field]] = value if isinstance(value, int) else _bits(value)
        code, address = self._code, ctypes.addressof(task)

        def run() -> None:
            for counter in _COUNTERS:
                task[counter] = 0
            _run(code.address, address, items)

        return run

    def assembly(self) -> str:
        """Return the assembly of the function for its target, also where this machine cannot run it."""
        processor, features = simd_targets.processor(self._target)
        if _AMX in self.ir:
            # A processor with the target's vectors need not have tiles; without them LLVM ends the process.
            features = ",".join(filter(None, [features, "+amx-tile,+amx-bf16"]))
        with _compiling:
            module, machine = parse(self.ir, self._target.triple, processor, features)
            return str(machine.emit_assembly(module))

    @functools.cached_property
    def _code(self) -> _MachineCode:
        # LLVM lowers vectors that the processor lacks; instructions that it lacks would end the process.
        runnable = self._target if self._target.runs_here() else simd_targets.host_target()
        with _compiling:
            module, machine = parse(self.ir, runnable.triple, *simd_targets.processor(runnable))
            engine = binding.create_mcjit_compiler(module, machine)
            engine.finalize_object()
            return _MachineCode(engine, self._name)


class _MachineCode:
    """A compiled function: its `address` is valid for as long as this object lives."""

    def __init__(self, engine: Any, function: str) -> None:
        self._engine = engine
        self.address = int(engine.get_function_address(function))


def parse(code: str, triple: str, processor: str, features: str) -> tuple[Any, Any]:
    """Return a module in LLVM's intermediate representation, and what compiles it.

    Raises RuntimeError where this build of LLVM does not know the machine that `triple` names.
    """
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = binding.parse_assembly(code)
    module.verify()
    target = binding.Target.from_triple(triple)
    return module, target.create_target_machine(cpu=processor, features=features, opt=2)


def _bits(value: float) -> int:
    """Return the bits of a float32."""
    return int.from_bytes(struct.pack("<f", value), "little")


def _run(function: int, task: int, items: int) -> None:
    """Call a function (its address) with a task (its address), on as many threads as are set and needed."""
    count = torch.get_num_threads()
    run_on_threads = _openmp() or _pool(count)
    run_on_threads(function, task, min(count, items), 0)


@functools.lru_cache(maxsize=1)
def _openmp() -> _RunOnThreads | None:
    """Return the entry point of the OpenMP library that torch uses, or None; LLVM's has GNU's entry, too.

    Torch's own threads must do the work: they spin while they wait, and other threads would compete with
    them.
    """
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "libomp.dylib"):
        try:
            # The look-up includes a library's dependencies, so this finds torch's own OpenMP and no other.
            parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        entry: _RunOnThreads = parallel
        return entry
    return None


@functools.lru_cache(maxsize=1)
def _pool(count: int) -> _RunOnThreads:
    """Return the same on threads of our own, which run in parallel: the call releases Python's lock."""
    pool = ThreadPoolExecutor(max_workers=count)

    def call(function: int, task: int, threads: int, _flags: int) -> None:
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
        for future in [pool.submit(entry, task) for _ in range(threads)]:
            future.result()

    return call
