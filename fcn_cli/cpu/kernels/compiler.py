"""Compile kernels for an instruction set, and run them on all threads."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence

from . import llvm, parallel, simd_targets
from .ir_builder import ITEMS, NEXT, THREADS, KernelBuilder, task_fields
from .simd_targets import SimdTarget

_COUNTERS = [task_fields(()).index(name) for name in (NEXT, THREADS)]


_AMX = "llvm.x86.ldtilecfg"


class Kernel:
    """A function that processes the items of a task; it is compiled when it is first called.

    Parameters
    ----------
    name
        The name of the function.
    fields
        The fields of its task.
    build
        Builds the function.
    target
        The instruction set to compile for.
    """

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

        Threads take items in no fixed order: the result must not depend on it.

        Raises
        ------
        TypeError
            A field has no value, or a value no field.
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
            parallel.run(code.address, address, items)

        return run

    def assembly(self) -> str:
        """Return the assembly of the function for its target, also where this machine cannot run it."""
        processor, features = simd_targets.processor(self._target)
        if _AMX in self.ir:
            # A processor with the target's vectors need not have tiles; without them LLVM ends the process.
            features = ",".join(filter(None, [features, "+amx-tile,+amx-bf16"]))
        return llvm.assembly(self.ir, processor, features)

    @functools.cached_property
    def _code(self) -> llvm.MachineCode:
        # LLVM lowers vectors that the processor lacks; instructions that it lacks would end the process.
        runnable = self._target if self._target.runs_here() else simd_targets.host_target()
        return llvm.compile_function(self.ir, self._name, *simd_targets.processor(runnable))


def _bits(value: float) -> int:
    """Return the bits of a float32."""
    return int.from_bytes(struct.pack("<f", value), "little")
