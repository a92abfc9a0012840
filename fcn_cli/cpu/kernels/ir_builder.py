"""Kernel functions in LLVM IR: the task, a parallel loop over its items, and inner loops.

A kernel has one argument, the address of its task: an array of 64-bit fields. The first two, `NEXT` and
`THREADS`, are counters that all threads share: the next item, and the number of threads that have started.
`ITEMS`, the number of items, and the kernel's own fields follow. Addresses are 64-bit integers; a float32
field holds its bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from llvmlite import ir

from .ir_arithmetic import FLOAT, INT, INT32, POINTER, Value, as_int
from .ir_memory import MemoryBuilder

NEXT, THREADS, ITEMS = "next", "threads", "items"
_COMMON = (NEXT, THREADS, ITEMS)


def task_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all fields of a task, in order."""
    return (*_COMMON, *fields)


class KernelBuilder(MemoryBuilder):
    """Builds one kernel function.

    Parameters
    ----------
    module
        An `llvmlite.ir.Module`.
    name
        The name of the function.
    fields
        The task's fields beside the common ones. They are read once; ``builder[field]`` is the value.
    lanes
        The number of float32 in a vector.
    """

    def __init__(self, module: Value, name: str, fields: Sequence[str], lanes: int) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
        super().__init__(module, ir.IRBuilder(function.append_basic_block("entry")), lanes)
        self._task = function.args[0]
        self._field_indices = {field: index for index, field in enumerate(task_fields(fields))}
        shared = {NEXT, THREADS}
        self._values = {
            field: self._builder.load(self._field_pointer(field), typ=INT)
            for field in self._field_indices
            if field not in shared
        }

    def __getitem__(self, field: str) -> Value:
        """Return the value of a field of the task."""
        return self._values[field]

    def from_bits(self, field: str) -> Value:
        """Return a field that holds a float32's bits, in all lanes."""
        return self._broadcast(self._builder.bitcast(self._builder.trunc(self[field], INT32), FLOAT))

    @contextlib.contextmanager
    def parallel_for(self) -> Iterator[Value]:
        """Loop over the items that this thread takes; the function returns when none is left."""
        head, body, end = self._blocks("item", "work", "done")
        self._builder.branch(head)
        self._builder.position_at_end(head)
        item = self._fetch_and_increment(NEXT)
        self._builder.cbranch(self.in_range(item, self[ITEMS]), body, end)
        self._builder.position_at_end(body)
        yield item
        self._builder.branch(head)
        self._builder.position_at_end(end)
        self._builder.ret_void()

    def thread(self) -> Value:
        """Return the number of this thread, from 0; every call takes another number."""
        return self._fetch_and_increment(THREADS)

    @contextlib.contextmanager
    def loop(self, stop: Value | int, step: int = 1, carried: Sequence[Value] = ()) -> Iterator[Loop]:
        """Loop over indices from 0 to `stop` (exclusive) by `step`; the body runs at least once."""
        before = self._builder.block
        body, end = self._blocks("loop", "end")
        self._builder.branch(body)
        self._builder.position_at_end(body)
        index = self._builder.phi(INT)
        index.add_incoming(as_int(0), before)
        phis = []
        for value in carried:
            phi = self._builder.phi(value.type)
            phi.add_incoming(value, before)
            phis.append(phi)
        loop = Loop(index, phis)
        yield loop
        following = self.add(index, step)
        last = self._builder.block
        index.add_incoming(following, last)
        for phi, value in zip(phis, loop.carried, strict=True):
            phi.add_incoming(value, last)
        self._builder.cbranch(self._builder.icmp_signed("<", following, as_int(stop)), body, end)
        self._builder.position_at_end(end)

    def _blocks(self, *names: str) -> list[Value]:
        return [self._builder.append_basic_block(name) for name in names]

    def _fetch_and_increment(self, field: str) -> Value:
        return self._builder.atomic_rmw("add", self._field_pointer(field), as_int(1), "monotonic")

    def _field_pointer(self, field: str) -> Value:
        return self._builder.gep(self._task, [as_int(self._field_indices[field])], source_etype=INT)


class Loop:
    """A loop under construction: its index, and the values carried from one iteration to the next.

    In the body, `carried` first holds the values of the current iteration; the body replaces them by those of
    the next one. After the loop it holds the values of the last iteration.
    """

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried
