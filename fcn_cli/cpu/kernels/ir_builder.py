"""Kernel functions: the task, a parallel loop over its items, inner loops, and memory on the stack.

A kernel has one argument, the address of its task: an array of 64-bit fields. The first two, `NEXT` and
`THREADS`, are counters that all threads share: the next item, and the number of threads that have started.
`ITEMS`, the number of items, and the kernel's own fields follow. A float32 field holds its bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Generic

from .ir_values import E, Int, Pointer, PointerTable, V, Vector
from .llvm import F32, I64, Element, Function, Raw

NEXT, THREADS, ITEMS = "next", "threads", "items"
_COMMON = (NEXT, THREADS, ITEMS)


def task_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all fields of a task, in order.

    Raises
    ------
    ValueError
        Two fields have one name.
    """
    names = (*_COMMON, *fields)
    if len(set(names)) < len(names):
        raise ValueError(f"two fields of one name: {', '.join(names)}")
    return names


class Carried:
    """What a loop needs to know of a `Variable`, whatever its type."""

    raw: Raw


class Variable(Carried, Generic[V]):
    """A value that changes from one iteration of a loop to the next: a register.

    `value` is the current one. The body of a loop that carries the variable assigns the next one; after the
    loop, it is that of the last iteration.
    """

    def __init__(self, value: V) -> None:
        self.value = value

    @property
    def raw(self) -> Raw:
        """The current value, for `KernelBuilder.loop`."""
        return self.value.raw

    @raw.setter
    def raw(self, raw: Raw) -> None:
        self.value = self.value.like(raw)


class KernelBuilder:
    """Builds one kernel function.

    Parameters
    ----------
    name
        The name of the function.
    fields
        The task's fields beside the common ones. They are read once; ``kernel[field]`` is the value.
    vector_bytes
        The size of a vector register.
    multiplies_bf16
        Whether the kernel may use the instructions of AVX512_BF16.
    """

    def __init__(
        self, name: str, fields: Sequence[str], vector_bytes: int, *, multiplies_bf16: bool = False
    ) -> None:
        self._function = Function(name, multiplies_bf16=multiplies_bf16)
        self._vector_bytes = vector_bytes
        self._task = self._pointer(self._function.argument, I64)
        self._field_indices = {field: index for index, field in enumerate(task_fields(fields))}
        shared = {NEXT, THREADS}
        self._values = {
            field: self._task[index] for field, index in self._field_indices.items() if field not in shared
        }
        for field, value in self._values.items():
            self._function.set_name(value.raw, field)

    def __str__(self) -> str:
        """Return the function in LLVM's intermediate representation."""
        return str(self._function)

    def __getitem__(self, field: str) -> Int:
        """Return the value of a field of the task."""
        return self._values[field]

    def pointer(self, field: str, element: type[E]) -> Pointer[E]:
        """Return a field that holds the address of elements."""
        return self._pointer(self[field].raw, element)

    def broadcast(self, field: str) -> Vector[F32]:
        """Return a field that holds a float32's bits, in all lanes."""
        lanes = self.lanes(F32)
        scalar = self._function.low_bits_as_float(self[field].raw)
        return Vector(self._function, self._function.splat(scalar, F32, lanes), F32, lanes)

    def lanes(self, element: type[Element]) -> int:
        """Return the number of elements in a vector register."""
        return self._vector_bytes // element.size

    def splat(self, value: float) -> Vector[F32]:
        """Return a vector with one number in all lanes."""
        lanes = self.lanes(F32)
        return Vector(self._function, self._function.constant(value, F32, lanes), F32, lanes)

    def alloca(self, element: type[E], count: Int | int) -> Pointer[E]:
        """Return an array on this thread's stack, valid for the whole call."""
        size = self._function.integer(count) if isinstance(count, int) else count.raw
        return self._pointer(self._function.alloca(element, size), element)

    def alloca_pointers(self, count: int, to: Pointer[E]) -> PointerTable[E]:
        """Return an array of pointers of the type of `to` on this thread's stack."""
        return PointerTable(self.alloca(I64, count), to)

    @contextlib.contextmanager
    def parallel_for(self) -> Iterator[Int]:
        """Loop over the items that this thread takes; the function returns when none is left."""
        function = self._function
        head, body, end = (function.new_block(name) for name in ("item", "work", "done"))
        function.branch(head)
        function.move_to(head)
        item = self._fetch_and_increment(NEXT)
        function.branch_if(item.is_index_below(self[ITEMS]).raw, body, end)
        function.move_to(body)
        yield item
        function.branch(head)
        function.move_to(end)
        function.return_void()

    def thread(self) -> Int:
        """Return the number of this thread, from 0; every call takes another number."""
        return self._fetch_and_increment(THREADS)

    @contextlib.contextmanager
    def loop(self, stop: Int | int, step: int = 1, carried: Sequence[Carried] = ()) -> Iterator[Int]:
        """Loop over indices from 0 to `stop` (exclusive) by `step`; the body runs at least once.

        Variables that the body changes must be in `carried`.
        """
        function = self._function
        before = function.current_block()
        body, end = function.new_block("loop"), function.new_block("end")
        function.branch(body)
        function.move_to(body)
        index = Int(function, function.phi(function.integer(0), before))
        phis = [function.phi(variable.raw, before) for variable in carried]
        for variable, phi in zip(carried, phis, strict=True):
            variable.raw = phi
        yield index
        following = index + step
        last = function.current_block()
        function.add_incoming(index.raw, following.raw, last)
        for variable, phi in zip(carried, phis, strict=True):
            function.add_incoming(phi, variable.raw, last)
        function.branch_if((following < stop).raw, body, end)
        function.move_to(end)

    def _pointer(self, address: Raw, element: type[E]) -> Pointer[E]:
        return Pointer(self._function, address, element, self.lanes(element))

    def _fetch_and_increment(self, field: str) -> Int:
        address = (self._task + self._field_indices[field]).raw
        return Int(self._function, self._function.fetch_and_increment(address))
