"""Memory access in LLVM IR: the thread's stack, loads, stores, prefetching."""

from __future__ import annotations

from llvmlite import ir

from .ir_arithmetic import FLOAT, FLOAT_BYTES, INT, INT32, POINTER, ArithmeticBuilder, Value, as_int

_INT_BYTES = 8


class MemoryBuilder(ArithmeticBuilder):
    """Adds memory accesses to a function, beside arithmetic."""

    def alloca(self, floats: Value | int) -> Value:
        """Return the address of a float32 array on this thread's stack, valid for the whole call."""
        array = self._builder.alloca(FLOAT, size=as_int(floats))
        array.align = 64
        return self._builder.ptrtoint(array, INT)

    def table(self, size: int) -> Table:
        """Return a table of integers on this thread's stack."""
        return Table(self, self.alloca(size * _INT_BYTES // FLOAT_BYTES))

    def load(self, address: Value) -> Value:
        """Return the vector at an address."""
        return self._builder.load(self._pointer(address), align=FLOAT_BYTES, typ=self._vector)

    def store(self, vector: Value, address: Value) -> None:
        """Write a vector to an address."""
        self._builder.store(vector, self._pointer(address), align=FLOAT_BYTES)

    def store_bytes(self, vector: Value, address: Value) -> None:
        """Write a vector of numbers from 0 to 255 as bytes."""
        numbers = self._builder.fptoui(vector, ir.VectorType(ir.IntType(8), self.lanes))
        self._builder.store(numbers, self._pointer(address), align=1)

    def load_float(self, address: Value) -> Value:
        """Return the float32 at an address, in all lanes."""
        return self._broadcast(self._builder.load(self._pointer(address), align=FLOAT_BYTES, typ=FLOAT))

    def load_int(self, array: Value, index: Value | int) -> Value:
        """Return an element of an array of 64-bit integers."""
        return self._builder.load(self._int_element(array, index), typ=INT)

    def store_int(self, value: Value, array: Value, index: Value | int) -> None:
        """Write an element of an array of 64-bit integers."""
        self._builder.store(value, self._int_element(array, index))

    def prefetch(self, address: Value) -> None:
        """Prefetch a cache line for reading; the address need not be valid."""
        self._prefetch(address, 0)

    def prefetch_for_write(self, address: Value) -> None:
        """Prefetch a cache line for writing; the address need not be valid."""
        self._prefetch(address, 1)

    def _int_element(self, array: Value, index: Value | int) -> Value:
        return self._pointer(self.add(array, self.mul(_INT_BYTES, index)))

    def _pointer(self, address: Value) -> Value:
        return self._builder.inttoptr(address, POINTER)

    def _prefetch(self, address: Value, write: int) -> None:
        signature = ir.FunctionType(ir.VoidType(), [POINTER, INT32, INT32, INT32])
        # Locality 3: into all levels of the cache. Cache type 1: data, not code.
        hints = [ir.Constant(INT32, hint) for hint in (write, 3, 1)]
        self._builder.call(self._intrinsic("llvm.prefetch.p0", signature), [self._pointer(address), *hints])


class Table:
    """Integers on the stack, indexed by numbers that are known at compile time."""

    def __init__(self, builder: MemoryBuilder, address: Value) -> None:
        self._builder = builder
        self._address = address

    def __getitem__(self, index: int) -> Value:
        """Return an entry."""
        return self._builder.load_int(self._address, index)

    def __setitem__(self, index: int, value: Value) -> None:
        """Write an entry."""
        self._builder.store_int(value, self._address, index)
