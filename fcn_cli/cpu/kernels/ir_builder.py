"""Machine code for the CPU's kernels: writing a function in LLVM's intermediate representation.

llvmlite's builder knows instructions; this knows what all kernels have in common: a task of 64-bit fields,
items that threads take until none is left, loops, vectors of float32.

A function has one argument, the address of the task. Its first fields are `NEXT`, the next item, and
`THREADS`, how many threads have come; then come the fields that it names. Addresses are 64-bit integers,
float32 fields are their bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir

Value = Any
"""An `llvmlite.ir.Value`; llvmlite has no types of its own."""

FLOAT_BYTES = 4
_INT_BYTES = 8
NEXT, THREADS, ITEMS = "next", "threads", "items"
_COMMON = (NEXT, THREADS, ITEMS)

_INT = ir.IntType(64)
_INT32 = ir.IntType(32)
_FLOAT = ir.FloatType()
_POINTER = ir.PointerType()


def task_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a task's fields, in their order."""
    return (*_COMMON, *fields)


class Emitter:
    """Writes one function into a module.

    Parameters
    ----------
    module
        An `llvmlite.ir.Module`.
    name
        The function's.
    fields
        What its task has beside the common fields. They are read once; ``emitter[field]`` is the value.
    lanes
        How many float32 a vector has.
    """

    def __init__(self, module: Value, name: str, fields: Sequence[str], lanes: int) -> None:
        self.lanes = lanes
        self._module = module
        self._vector = ir.VectorType(_FLOAT, lanes)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_POINTER]), name)
        self._task = function.args[0]
        self._builder = ir.IRBuilder(function.append_basic_block("entry"))
        self._places = {field: index for index, field in enumerate(task_fields(fields))}
        shared = {NEXT, THREADS}
        self._values = {
            field: self._builder.load(self._field_address(field), typ=_INT)
            for field in self._places
            if field not in shared
        }

    def __getitem__(self, field: str) -> Value:
        """Return the value of a field of the task."""
        return self._values[field]

    # Integers and addresses.

    def integer(self, value: int) -> Value:
        """Return a number known now."""
        return _int(value)

    def add(self, first: Value | int, *others: Value | int) -> Value:
        """Return a sum of integers."""
        total = _int(first)
        for other in others:
            total = self._builder.add(total, _int(other))
        return total

    def sub(self, a: Value | int, b: Value | int) -> Value:
        """Return a - b."""
        return self._builder.sub(_int(a), _int(b))

    def mul(self, first: Value | int, *others: Value | int) -> Value:
        """Return a product of integers."""
        total = _int(first)
        for other in others:
            total = self._builder.mul(total, _int(other))
        return total

    def divide(self, a: Value, b: Value | int) -> tuple[Value, Value]:
        """Return quotient and rest of integers that are not negative."""
        return self._builder.udiv(a, _int(b)), self._builder.urem(a, _int(b))

    def minimum(self, a: Value, b: Value) -> Value:
        """Return the lesser of two integers."""
        return self._builder.select(self._builder.icmp_signed("<", a, b), a, b)

    def in_range(self, index: Value, limit: Value) -> Value:
        """Say whether 0 <= index < limit."""
        return self._builder.icmp_unsigned("<", index, limit)

    def both(self, a: Value, b: Value) -> Value:
        """Say whether both hold."""
        return self._builder.and_(a, b)

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        """Return `yes` where the condition holds, else `no`."""
        return self._builder.select(condition, yes, no)

    def element_pointer(self, address: Value, *floats: Value | int) -> Value:
        """Return the address that lies so many float32 after another, the product of what is given."""
        return self.add(address, self.mul(FLOAT_BYTES, *floats))

    # Memory.

    def alloca(self, floats: Value | int) -> Value:
        """Return the address of so many float32 on this thread's stack, for the whole call."""
        place = self._builder.alloca(_FLOAT, size=_int(floats))
        place.align = 64
        return self._builder.ptrtoint(place, _INT)

    def table(self, size: int) -> Table:
        """Return a table of integers on this thread's stack."""
        return Table(self, self.alloca(size * _INT_BYTES // FLOAT_BYTES))

    def load(self, address: Value) -> Value:
        """Return the vector at an address."""
        return self._builder.load(self._pointer(address), align=FLOAT_BYTES, typ=self._vector)

    def store(self, vector: Value, address: Value) -> None:
        """Write a vector."""
        self._builder.store(vector, self._pointer(address), align=FLOAT_BYTES)

    def store_bytes(self, vector: Value, address: Value) -> None:
        """Write numbers from 0 to 255 as bytes."""
        numbers = self._builder.fptoui(vector, ir.VectorType(ir.IntType(8), self.lanes))
        self._builder.store(numbers, self._pointer(address), align=1)

    def load_float(self, address: Value) -> Value:
        """Return the float32 at an address, in all lanes."""
        return self._broadcast(self._builder.load(self._pointer(address), align=FLOAT_BYTES, typ=_FLOAT))

    def load_int(self, array: Value, index: Value | int) -> Value:
        """Return an element of an array of 64-bit integers."""
        return self._builder.load(self._element(array, index), typ=_INT)

    def store_int(self, value: Value, array: Value, index: Value | int) -> None:
        """Write an element of an array of 64-bit integers."""
        self._builder.store(value, self._element(array, index))

    def prefetch(self, address: Value) -> None:
        """Have the cache line at an address fetched; it need not be ours."""
        self._prefetch(address, 0)

    def will_write(self, address: Value) -> None:
        """Have the cache line at an address fetched, to be written to."""
        self._prefetch(address, 1)

    # Vectors of float32.

    def constant(self, value: float) -> Value:
        """Return a number in all lanes."""
        return ir.Constant(self._vector, [value] * self.lanes)

    def from_bits(self, field: str) -> Value:
        """Return a field that holds a float32's bits, in all lanes."""
        return self._broadcast(self._builder.bitcast(self._builder.trunc(self[field], _INT32), _FLOAT))

    def plus(self, a: Value, b: Value) -> Value:
        """Return a + b."""
        return self._builder.fadd(a, b)

    def minus(self, a: Value, b: Value) -> Value:
        """Return a - b."""
        return self._builder.fsub(a, b)

    def times(self, a: Value, b: Value) -> Value:
        """Return a * b."""
        return self._builder.fmul(a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """Return a * b + c, in one instruction where the processor has it."""
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        return self._builder.call(self._intrinsic(f"llvm.fmuladd.v{self.lanes}f32", kind), [a, b, c])

    def clamped(self, x: Value, low: Value, high: Value) -> Value:
        """Return x, not below `low` and not above `high`; NaN stays NaN."""
        x = self._builder.select(self._builder.fcmp_ordered("<", x, low), low, x)
        return self._builder.select(self._builder.fcmp_ordered(">", x, high), high, x)

    def greater(self, a: Value, b: Value) -> Value:
        """Say by lane whether a > b; not where one is NaN."""
        return self._builder.fcmp_ordered(">", a, b)

    # Control.

    @contextlib.contextmanager
    def parallel_for(self) -> Iterator[Value]:
        """Do what follows for one item after the other, as long as there are any; then return."""
        head, body, end = self._blocks("item", "work", "done")
        self._builder.branch(head)
        self._builder.position_at_end(head)
        item = self._count(NEXT)
        self._builder.cbranch(self.in_range(item, self[ITEMS]), body, end)
        self._builder.position_at_end(body)
        yield item
        self._builder.branch(head)
        self._builder.position_at_end(end)
        self._builder.ret_void()

    def thread(self) -> Value:
        """Return this thread's number, from 0: each that asks gets its own."""
        return self._count(THREADS)

    @contextlib.contextmanager
    def loop(self, stop: Value | int, step: int = 1, carried: Sequence[Value] = ()) -> Iterator[Loop]:
        """Do what follows at least once, and for an index from 0 up to `stop`, `step` by `step`."""
        before = self._builder.block
        body, end = self._blocks("loop", "end")
        self._builder.branch(body)
        self._builder.position_at_end(body)
        index = self._builder.phi(_INT)
        index.add_incoming(_int(0), before)
        inside = []
        for value in carried:
            phi = self._builder.phi(value.type)
            phi.add_incoming(value, before)
            inside.append(phi)
        this = Loop(index, inside)
        yield this
        after = self.add(index, step)
        last = self._builder.block
        index.add_incoming(after, last)
        for phi, value in zip(inside, this.carried, strict=True):
            phi.add_incoming(value, last)
        self._builder.cbranch(self._builder.icmp_signed("<", after, _int(stop)), body, end)
        self._builder.position_at_end(end)

    def _blocks(self, *names: str) -> list[Value]:
        return [self._builder.append_basic_block(name) for name in names]

    def _count(self, field: str) -> Value:
        return self._builder.atomic_rmw("add", self._field_address(field), _int(1), "monotonic")

    def _field_address(self, field: str) -> Value:
        return self._builder.gep(self._task, [_int(self._places[field])], source_etype=_INT)

    def _element(self, array: Value, index: Value | int) -> Value:
        return self._pointer(self.add(array, self.mul(_INT_BYTES, index)))

    def _pointer(self, address: Value) -> Value:
        return self._builder.inttoptr(address, _POINTER)

    def _broadcast(self, scalar: Value) -> Value:
        none = ir.Constant(self._vector, ir.Undefined)
        first = self._builder.insert_element(none, scalar, ir.Constant(_INT32, 0))
        return self._builder.shuffle_vector(
            first, none, ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        )

    def _prefetch(self, address: Value, write: int) -> None:
        kind = ir.FunctionType(ir.VoidType(), [_POINTER, _INT32, _INT32, _INT32])
        # Into all levels of the cache; data, not code.
        hints = [ir.Constant(_INT32, hint) for hint in (write, 3, 1)]
        self._builder.call(self._intrinsic("llvm.prefetch.p0", kind), [self._pointer(address), *hints])

    def _intrinsic(self, name: str, kind: Value) -> Value:
        found = self._module.globals.get(name)
        return found if found is not None else ir.Function(self._module, kind, name)


class Loop:
    """A loop being written: its index, and the values that go from one round to the next.

    `carried` are at first those of this round; what is put in their place is the next round's, and after
    the loop the last one's.
    """

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried


class Table:
    """Integers by a number known when the code is written."""

    def __init__(self, builder: Emitter, address: Value) -> None:
        self._emitter = builder
        self._address = address

    def __getitem__(self, index: int) -> Value:
        """Return an entry."""
        return self._emitter.load_int(self._address, index)

    def __setitem__(self, index: int, value: Value) -> None:
        """Write an entry."""
        self._emitter.store_int(value, self._address, index)


def _int(value: Value | int) -> Value:
    return ir.Constant(_INT, value) if isinstance(value, int) else value
