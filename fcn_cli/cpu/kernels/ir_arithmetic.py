"""Arithmetic in LLVM IR: 64-bit integers, addresses, and vectors of float32."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

Value = Any
"""An `llvmlite.ir.Value`; llvmlite has no types of its own."""

FLOAT_BYTES = 4

INT = ir.IntType(64)
INT32 = ir.IntType(32)
FLOAT = ir.FloatType()
POINTER = ir.PointerType()


def as_int(value: Value | int) -> Value:
    """Return a Python integer as a 64-bit constant, and a value unchanged."""
    return ir.Constant(INT, value) if isinstance(value, int) else value


class ArithmeticBuilder:
    """Adds arithmetic instructions to a function.

    Addresses are 64-bit integers. A Python integer is a constant.

    Parameters
    ----------
    module
        The `llvmlite.ir.Module` that holds the function.
    builder
        An `llvmlite.ir.IRBuilder`, positioned in the function.
    lanes
        The number of float32 in a vector.
    """

    def __init__(self, module: Value, builder: Value, lanes: int) -> None:
        self.lanes = lanes
        self._module = module
        self._builder = builder
        self._vector = ir.VectorType(FLOAT, lanes)

    def integer(self, value: int) -> Value:
        """Return an integer constant."""
        return as_int(value)

    def add(self, first: Value | int, *others: Value | int) -> Value:
        """Return a sum of integers."""
        total = as_int(first)
        for other in others:
            total = self._builder.add(total, as_int(other))
        return total

    def sub(self, a: Value | int, b: Value | int) -> Value:
        """Return a - b of integers."""
        return self._builder.sub(as_int(a), as_int(b))

    def mul(self, first: Value | int, *others: Value | int) -> Value:
        """Return a product of integers."""
        total = as_int(first)
        for other in others:
            total = self._builder.mul(total, as_int(other))
        return total

    def divide(self, a: Value, b: Value | int) -> tuple[Value, Value]:
        """Return quotient and remainder of non-negative integers."""
        return self._builder.udiv(a, as_int(b)), self._builder.urem(a, as_int(b))

    def minimum(self, a: Value, b: Value) -> Value:
        """Return the smaller of two integers."""
        return self._builder.select(self._builder.icmp_signed("<", a, b), a, b)

    def in_range(self, index: Value, limit: Value) -> Value:
        """Return whether 0 <= index < limit."""
        return self._builder.icmp_unsigned("<", index, limit)

    def both(self, a: Value, b: Value) -> Value:
        """Return whether both conditions hold."""
        return self._builder.and_(a, b)

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        """Return `yes` where the condition holds, else `no`."""
        return self._builder.select(condition, yes, no)

    def element_pointer(self, address: Value, *floats: Value | int) -> Value:
        """Return the address of a float32 element; its index is the product of `floats`."""
        return self.add(address, self.mul(FLOAT_BYTES, *floats))

    def constant(self, value: float) -> Value:
        """Return a vector with one number in all lanes."""
        return ir.Constant(self._vector, [value] * self.lanes)

    def plus(self, a: Value, b: Value) -> Value:
        """Return a + b of vectors."""
        return self._builder.fadd(a, b)

    def minus(self, a: Value, b: Value) -> Value:
        """Return a - b of vectors."""
        return self._builder.fsub(a, b)

    def times(self, a: Value, b: Value) -> Value:
        """Return a * b of vectors."""
        return self._builder.fmul(a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """Return a * b + c, in one instruction where the processor has it."""
        signature = ir.FunctionType(self._vector, [self._vector] * 3)
        return self._builder.call(self._intrinsic(f"llvm.fmuladd.v{self.lanes}f32", signature), [a, b, c])

    def clamp(self, x: Value, low: Value, high: Value) -> Value:
        """Return x limited to the range from `low` to `high`; NaN stays NaN."""
        x = self._builder.select(self._builder.fcmp_ordered("<", x, low), low, x)
        return self._builder.select(self._builder.fcmp_ordered(">", x, high), high, x)

    def greater(self, a: Value, b: Value) -> Value:
        """Return for each lane whether a > b; false where one of them is NaN."""
        return self._builder.fcmp_ordered(">", a, b)

    def _broadcast(self, scalar: Value) -> Value:
        undefined = ir.Constant(self._vector, ir.Undefined)
        first = self._builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        return self._builder.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        )

    def _intrinsic(self, name: str, signature: Value) -> Value:
        declared = self._module.globals.get(name)
        return declared if declared is not None else ir.Function(self._module, signature, name)
