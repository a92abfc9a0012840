"""Typed values of a kernel under construction, with operators: `target + (depth * rows + index) * DEPTH`.

An operator appends an LLVM instruction to the function that its operands belong to. A Python number is a
constant. Integers and indices are 64-bit and not negative where they are divided.
"""

from __future__ import annotations

import copy
from typing import Generic, NoReturn, Self, TypeVar

from .llvm import F32, I64, U8, Comparison, Element, Function, Operation, Raw

E = TypeVar("E", bound=Element)
V = TypeVar("V", bound="Value")


class Value:
    """A value that an instruction of a function computes."""

    def __init__(self, function: Function, raw: Raw) -> None:
        self.function = function
        self.raw = raw

    def like(self, raw: Raw) -> Self:
        """Return another value of this type."""
        value = copy.copy(self)
        value.raw = raw
        return value

    def __bool__(self) -> NoReturn:
        raise TypeError("a kernel's value is known when the kernel runs, not when it is built: use select")


class Bool(Value):
    """A condition."""

    def __and__(self, other: Bool) -> Bool:
        return self.like(self.function.binary("and_", self.raw, other.raw))

    def select(self, yes: V, no: V) -> V:
        """Return `yes` if the condition holds, else `no`."""
        return yes.like(self.function.select(self.raw, yes.raw, no.raw))


class Int(Value):
    """A 64-bit integer."""

    def __add__(self, other: Int | int) -> Int:
        return self._binary("add", other)

    __radd__ = __add__

    def __sub__(self, other: Int | int) -> Int:
        return self._binary("sub", other)

    def __mul__(self, other: Int | int) -> Int:
        return self._binary("mul", other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Int | int) -> Int:
        return self._binary("udiv", other)

    def __mod__(self, other: Int | int) -> Int:
        return self._binary("urem", other)

    def __divmod__(self, other: Int | int) -> tuple[Int, Int]:
        return self // other, self % other

    def __lt__(self, other: Int | int) -> Bool:
        return self._compare("icmp_signed", other)

    def is_index_below(self, limit: Int | int) -> Bool:
        """Return whether 0 <= self < limit."""
        return self._compare("icmp_unsigned", limit)

    def _binary(self, operation: Operation, other: Int | int) -> Int:
        return self.like(self.function.binary(operation, self.raw, self._operand(other)))

    def _compare(self, comparison: Comparison, other: Int | int) -> Bool:
        return Bool(self.function, self.function.compare(comparison, "<", self.raw, self._operand(other)))

    def _operand(self, other: Int | int) -> Raw:
        return self.function.integer(other) if isinstance(other, int) else other.raw


class Vector(Value, Generic[E]):
    """As many elements as a vector register holds, or fewer."""

    def __init__(self, function: Function, raw: Raw, element: type[E], lanes: int) -> None:
        super().__init__(function, raw)
        self.element = element
        self.lanes = lanes

    def __add__(self, other: Vector[E] | float) -> Vector[E]:
        return self._binary("fadd", other)

    def __sub__(self, other: Vector[E] | float) -> Vector[E]:
        return self._binary("fsub", other)

    def __mul__(self, other: Vector[E] | float) -> Vector[E]:
        return self._binary("fmul", other)

    __rmul__ = __mul__

    def __lt__(self, other: Vector[E]) -> Mask:
        return Mask(self.function, self.function.compare("fcmp_ordered", "<", self.raw, other.raw))

    def __gt__(self, other: Vector[E]) -> Mask:
        return Mask(self.function, self.function.compare("fcmp_ordered", ">", self.raw, other.raw))

    def splat(self, value: float) -> Vector[E]:
        """Return a vector of this type with one number in all lanes."""
        return self.like(self.function.constant(value, self.element, self.lanes))

    def to_uint8(self) -> Vector[U8]:
        """Convert numbers from 0 to 255 to bytes."""
        return Vector(self.function, self.function.float_to_int(self.raw, U8, self.lanes), U8, self.lanes)

    def _binary(self, operation: Operation, other: Vector[E] | float) -> Vector[E]:
        operand = other if isinstance(other, Vector) else self.splat(other)
        return self.like(self.function.binary(operation, self.raw, operand.raw))


class Mask(Value):
    """A condition for each lane of a vector; false where NaN was compared."""

    def select(self, yes: Vector[E], no: Vector[E]) -> Vector[E]:
        """Return in each lane `yes` if its condition holds, else `no`."""
        return yes.like(self.function.select(self.raw, yes.raw, no.raw))


class Pointer(Value, Generic[E]):
    """The address of an element. As in C, `pointer + index` counts elements, not bytes.

    `lanes` is the number of its elements in a vector register.
    """

    def __init__(self, function: Function, raw: Raw, element: type[E], lanes: int) -> None:
        super().__init__(function, raw)
        self.element = element
        self.lanes = lanes

    def __add__(self, index: Int | int) -> Pointer[E]:
        size = self.element.size
        offset = index * size if size != 1 else index
        raw = self.function.integer(offset) if isinstance(offset, int) else offset.raw
        return self.like(self.function.binary("add", self.raw, raw))

    def load(self) -> Vector[E]:
        """Load a vector."""
        return self._vector(self.function.load(self.raw, self.element, self.lanes))

    def store(self, vector: Vector[E]) -> None:
        """Store a vector."""
        self.function.store(vector.raw, self.raw, self.element)

    def broadcast(self) -> Vector[E]:
        """Load one element into all lanes of a vector."""
        scalar = self.function.load(self.raw, self.element, 1)
        return self._vector(self.function.splat(scalar, self.element, self.lanes))

    def prefetch(self, *, write: bool = False) -> None:
        """Prefetch the cache line; the address need not be valid."""
        self.function.prefetch(self.raw, write=write)

    def __getitem__(self: Pointer[I64], index: Int | int) -> Int:
        """Load an integer of an array."""
        return Int(self.function, self.function.load((self + index).raw, I64, 1))

    def __setitem__(self: Pointer[I64], index: Int | int, value: Int) -> None:
        """Store an integer in an array."""
        self.function.store(value.raw, (self + index).raw, I64)

    def _vector(self, raw: Raw) -> Vector[E]:
        return Vector(self.function, raw, self.element, self.lanes)


class PointerTable(Generic[E]):
    """An array of pointers to one element type, in memory."""

    def __init__(self, memory: Pointer[I64], to: Pointer[E]) -> None:
        self._memory = memory
        self._to = to

    def __getitem__(self, index: Int | int) -> Pointer[E]:
        return self._to.like(self._memory[index].raw)

    def __setitem__(self, index: Int | int, pointer: Pointer[E]) -> None:
        self._memory[index] = Int(pointer.function, pointer.raw)


def minimum(a: Int, b: Int | int) -> Int:
    """Return the smaller of two integers."""
    second = b if isinstance(b, Int) else a.like(a.function.integer(b))
    return (a < second).select(a, second)


def fma(a: Vector[F32] | float, b: Vector[F32], c: Vector[F32]) -> Vector[F32]:
    """Return a * b + c, in one instruction where the processor has it."""
    factor = a if isinstance(a, Vector) else b.splat(a)
    name = f"llvm.fmuladd.v{b.lanes}{b.element.name}"
    return b.like(b.function.call(name, b.element, b.lanes, [factor.raw, b.raw, c.raw]))


def clamp(x: Vector[F32], low: Vector[F32], high: Vector[F32]) -> Vector[F32]:
    """Return x limited to the range from `low` to `high`; NaN stays NaN."""
    x = (x < low).select(low, x)
    return (x > high).select(high, x)
