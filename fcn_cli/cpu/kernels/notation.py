"""The notation of kernels: typed values with operators, such as `target + (depth * rows + index)`, and loops.

A value holds the object of llvmlite that it stands for; an operator appends an instruction. llvmlite has no
types: what leaves this module has one, so that mypy checks the kernels. A Python number is a constant.
Integers, indices and addresses have 64 bits, and are not negative where they are divided.

A kernel has one argument, the address of its task: an array of 64-bit fields. The first two, `NEXT` and
`THREADS`, are counters that all threads share: the next item, and the number of threads that have started.
`ITEMS`, the number of items, and the kernel's own fields follow. A float32 field holds its bits.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar

from llvmlite import ir
from typing_extensions import override

NEXT, THREADS, ITEMS = "next", "threads", "items"
_COMMON = (NEXT, THREADS, ITEMS)

_INT32, _POINTER, _VOID = ir.IntType(32), ir.PointerType(), ir.VoidType()


class Element:
    """What an array holds: the name that LLVM's intrinsics use for it, its bytes, and LLVM's type."""

    name: ClassVar[str]
    size: ClassVar[int]
    llvm_type: ClassVar[Any]


class I64(Element):
    """A 64-bit integer."""

    name, size, llvm_type = "i64", 8, ir.IntType(64)


class U8(Element):
    """A byte."""

    name, size, llvm_type = "i8", 1, ir.IntType(8)


class I32(Element):
    """The bits of a 32-bit number."""

    name, size, llvm_type = "i32", 4, _INT32


class BF16(Element):
    """A bfloat16, the upper half of a float32, as its bits."""

    name, size, llvm_type = "i16", 2, ir.IntType(16)


class F32(Element):
    """A 32-bit floating-point number."""

    name, size, llvm_type = "f32", 4, ir.FloatType()


class _BFloatType(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks: what the instructions of AVX512_BF16 take."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloatType)

    def __hash__(self) -> int:
        return hash(_BFloatType)


class _BFloat(Element):
    """A bfloat16 as an operand of instructions."""

    name, size, llvm_type = "bf16", 2, _BFloatType()


E = TypeVar("E", bound=Element)
V = TypeVar("V", bound="Value")


class _Code(ir.IRBuilder):  # type: ignore[misc]
    """llvmlite's builder of a function, which says whether there are the instructions of AVX512_BF16."""

    multiplies_bf16 = False

    def call_intrinsic(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """Append a call of one of LLVM's intrinsics, and declare it if it is the first one."""
        declared = self.module.globals.get(name)
        if declared is None:
            signature = ir.FunctionType(result, [argument.type for argument in arguments])
            declared = ir.Function(self.module, signature, name)
        return self.call(declared, arguments)


# ---- values


class Value:
    """A value that an instruction of a function computes; `raw` is llvmlite's."""

    def __init__(self, code: _Code, raw: Any) -> None:
        self.code = code
        self.raw = raw

    def like(self, raw: Any) -> Self:
        """Return another value of this type."""
        return type(self)(self.code, raw)

    def __bool__(self) -> NoReturn:
        raise TypeError("a kernel's value is known when the kernel runs, not when it is built: use select")


class Bool(Value):
    """A condition."""

    def __and__(self, other: Bool) -> Bool:
        return self.like(self.code.and_(self.raw, other.raw))

    def select(self, yes: V, no: V) -> V:
        """Return `yes` if the condition holds, else `no`."""
        return yes.like(self.code.select(self.raw, yes.raw, no.raw))


class Int(Value):
    """A 64-bit integer."""

    def __add__(self, other: Int | int) -> Int:
        return self.like(self.code.add(self.raw, _integer(other)))

    __radd__ = __add__

    def __sub__(self, other: Int | int) -> Int:
        return self.like(self.code.sub(self.raw, _integer(other)))

    def __mul__(self, other: Int | int) -> Int:
        return self.like(self.code.mul(self.raw, _integer(other)))

    __rmul__ = __mul__

    def __floordiv__(self, other: Int | int) -> Int:
        return self.like(self.code.udiv(self.raw, _integer(other)))

    def __mod__(self, other: Int | int) -> Int:
        return self.like(self.code.urem(self.raw, _integer(other)))

    def __divmod__(self, other: Int | int) -> tuple[Int, Int]:
        return self // other, self % other

    def __lt__(self, other: Int | int) -> Bool:
        return Bool(self.code, self.code.icmp_signed("<", self.raw, _integer(other)))

    def is_index_below(self, limit: Int | int) -> Bool:
        """Return whether 0 <= self < limit."""
        return Bool(self.code, self.code.icmp_unsigned("<", self.raw, _integer(limit)))


class Vector(Value, Generic[E]):
    """As many elements as a vector register holds, or fewer."""

    def __init__(self, code: _Code, raw: Any, element: type[E], lanes: int) -> None:
        super().__init__(code, raw)
        self.element = element
        self.lanes = lanes

    @override
    def like(self, raw: Any) -> Vector[E]:
        return Vector(self.code, raw, self.element, self.lanes)

    def __add__(self, other: Vector[E] | float) -> Vector[E]:
        return self.like(self.code.fadd(self.raw, self._operand(other)))

    def __sub__(self, other: Vector[E] | float) -> Vector[E]:
        return self.like(self.code.fsub(self.raw, self._operand(other)))

    def __mul__(self, other: Vector[E] | float) -> Vector[E]:
        return self.like(self.code.fmul(self.raw, self._operand(other)))

    __rmul__ = __mul__

    def __lt__(self, other: Vector[E]) -> Mask:
        return Mask(self.code, self.code.fcmp_ordered("<", self.raw, other.raw))

    def __gt__(self, other: Vector[E]) -> Mask:
        return Mask(self.code, self.code.fcmp_ordered(">", self.raw, other.raw))

    def splat(self, value: float) -> Vector[E]:
        """Return a vector of this type with one number in all lanes."""
        return self.like(_constant(value, self.element, self.lanes))

    def to_uint8(self) -> Vector[U8]:
        """Convert numbers from 0 to 255 to bytes."""
        return Vector(self.code, self.code.fptoui(self.raw, _type(U8, self.lanes)), U8, self.lanes)

    def _operand(self, other: Vector[E] | float) -> Any:
        return other.raw if isinstance(other, Vector) else self.splat(other).raw


class Mask(Value):
    """A condition for each lane of a vector; false where NaN was compared."""

    def select(self, yes: Vector[E], no: Vector[E]) -> Vector[E]:
        """Return in each lane `yes` if its condition holds, else `no`."""
        return yes.like(self.code.select(self.raw, yes.raw, no.raw))


class Pointer(Value, Generic[E]):
    """The address of an element. As in C, `pointer + index` counts elements, not bytes.

    `lanes` is the number of its elements in a vector register. Addresses need only be aligned to an element.
    """

    def __init__(self, code: _Code, raw: Any, element: type[E], lanes: int) -> None:
        super().__init__(code, raw)
        self.element = element
        self.lanes = lanes

    @override
    def like(self, raw: Any) -> Pointer[E]:
        return Pointer(self.code, raw, self.element, self.lanes)

    def __add__(self, index: Int | int) -> Pointer[E]:
        size = self.element.size
        return self.like(self.code.add(self.raw, _integer(index * size if size != 1 else index)))

    def load(self) -> Vector[E]:
        """Load a vector."""
        return self._vector(_load(self, self.element, self.lanes))

    def store(self, vector: Vector[E]) -> None:
        """Store a vector."""
        _store(vector.raw, self)

    def broadcast(self) -> Vector[E]:
        """Load one element into all lanes of a vector."""
        scalar = _load(self, self.element, 1)
        return self._vector(_splat(self.code, scalar, self.element, self.lanes))

    def prefetch(self, *, write: bool = False) -> None:
        """Prefetch the cache line; the address need not be valid."""
        # Locality 3: into all levels of the cache. Cache type 1: data, not code.
        hints = [ir.Constant(_INT32, hint) for hint in (int(write), 3, 1)]
        self.code.call_intrinsic("llvm.prefetch.p0", _VOID, [_address(self), *hints])

    def __getitem__(self: Pointer[I64], index: Int | int) -> Int:
        """Load an integer of an array."""
        return Int(self.code, _load(self + index, I64, 1))

    def __setitem__(self: Pointer[I64], index: Int | int, value: Int) -> None:
        """Store an integer in an array."""
        _store(value.raw, self + index)

    def _vector(self, raw: Any) -> Vector[E]:
        return Vector(self.code, raw, self.element, self.lanes)


class PointerTable(Generic[E]):
    """An array of pointers to one element type, in memory."""

    def __init__(self, memory: Pointer[I64], to: Pointer[E]) -> None:
        self._memory = memory
        self._to = to

    def __getitem__(self, index: Int | int) -> Pointer[E]:
        return self._to.like(self._memory[index].raw)

    def __setitem__(self, index: Int | int, pointer: Pointer[E]) -> None:
        self._memory[index] = Int(pointer.code, pointer.raw)


class Variable(Generic[V]):
    """A value that changes from one iteration of a loop to the next: a register.

    `value` is the current one. The body of a loop that carries the variable assigns the next one; after the
    loop, it is that of the last iteration.
    """

    def __init__(self, value: V) -> None:
        self.value = value


def minimum(a: Int, b: Int | int) -> Int:
    """Return the smaller of two integers."""
    second = a.like(_integer(b))
    return (a < second).select(a, second)


def fma(a: Vector[F32] | float, b: Vector[F32], c: Vector[F32]) -> Vector[F32]:
    """Return a * b + c, in one instruction where the processor has it."""
    factor = a if isinstance(a, Vector) else b.splat(a)
    name = f"llvm.fmuladd.v{b.lanes}{F32.name}"
    return b.like(b.code.call_intrinsic(name, _type(F32, b.lanes), [factor.raw, b.raw, c.raw]))


def clamped(x: Vector[F32], low: Vector[F32], high: Vector[F32]) -> Vector[F32]:
    """Return x limited to the range from `low` to `high`; NaN stays NaN."""
    x = (x < low).select(low, x)
    return (x > high).select(high, x)


# ---- bfloat16
#
# A bfloat16 is the upper half of a float32. Kernels compute in float32: they widen what they load and round
# what they store. Only products take bfloat16 as it is, two at a time: a *pair* lies in the place of one
# float32, the first number in the lower half. Where the processor has no instruction for a product of pairs,
# the same is computed in float32.

_HALF = 16
# Of the instructions of AVX512_BF16, only those on whole registers are used.
_DOT = "llvm.x86.avx512bf16.dpbf16ps.512"
_NARROW = "llvm.x86.avx512bf16.cvtneps2bf16.512"
_NARROW_BOTH = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"


def dot_of_pairs(a: Vector[F32], b: Vector[F32], total: Vector[F32]) -> Vector[F32]:
    """Return in each lane `total` plus the dot product of two pairs, summed in float32.

    The product of the second numbers is added first. The instruction takes subnormal numbers as zeros.
    """
    code, lanes = total.code, total.lanes
    if code.multiplies_bf16:
        pairs = [code.bitcast(each.raw, _type(_BFloat, 2 * lanes)) for each in (a, b)]
        return total.like(code.call_intrinsic(_DOT, _type(F32, lanes), [total.raw, *pairs]))
    return fma(_lower_half(a), _lower_half(b), fma(_upper_half(a), _upper_half(b), total))


def load_floats(source: Pointer[E]) -> Vector[F32]:
    """Load a vector of float32, or of as many bfloat16, which become float32."""
    code, lanes = source.code, source.lanes * source.element.size // F32.size
    if source.element is F32:
        return Vector(code, _load(source, F32, lanes), F32, lanes)
    bits = code.zext(_load(source, BF16, lanes), _type(I32, lanes))
    return Vector(code, code.bitcast(code.shl(bits, _bits(_HALF, lanes)), _type(F32, lanes)), F32, lanes)


def store_floats(vector: Vector[F32], target: Pointer[E]) -> None:
    """Store a vector of float32, or, where `target` holds them, of as many bfloat16."""
    _store(vector.raw if target.element is F32 else _narrowed(vector), target)


def store_both(first: Vector[F32], second: Vector[F32], target: Pointer[E]) -> None:
    """Store two vectors of float32 one after the other, as `store_floats` does."""
    code, lanes = first.code, first.lanes
    if target.element is F32 or not code.multiplies_bf16:
        store_floats(first, target)
        store_floats(second, target + lanes)
        return
    both = code.call_intrinsic(_NARROW_BOTH, _type(_BFloat, 2 * lanes), [second.raw, first.raw])
    _store(code.bitcast(both, _type(BF16, 2 * lanes)), target)


def _narrowed(vector: Vector[F32]) -> Any:
    """Return the nearest bfloat16, ties to even; NaN stays NaN. The instruction makes subnormals zeros."""
    code, lanes = vector.code, vector.lanes
    if code.multiplies_bf16:
        narrow = code.call_intrinsic(_NARROW, _type(_BFloat, lanes), [vector.raw])
        return code.bitcast(narrow, _type(BF16, lanes))
    bits = code.bitcast(vector.raw, _type(I32, lanes))
    last = code.and_(code.lshr(bits, _bits(_HALF, lanes)), _bits(1, lanes))
    rounded = code.add(code.add(bits, _bits(0x7FFF, lanes)), last)
    # Rounded, a NaN could become an infinity; with this bit it stays one.
    quiet = code.or_(bits, _bits(0x400000, lanes))
    is_nan = code.fcmp_unordered("uno", vector.raw, vector.raw)
    chosen = code.select(is_nan, quiet, rounded)
    return code.trunc(code.lshr(chosen, _bits(_HALF, lanes)), _type(BF16, lanes))


def _upper_half(pairs: Vector[F32]) -> Vector[F32]:
    code, lanes = pairs.code, pairs.lanes
    bits = code.and_(code.bitcast(pairs.raw, _type(I32, lanes)), _bits(0xFFFF0000, lanes))
    return pairs.like(code.bitcast(bits, _type(F32, lanes)))


def _lower_half(pairs: Vector[F32]) -> Vector[F32]:
    code, lanes = pairs.code, pairs.lanes
    bits = code.shl(code.bitcast(pairs.raw, _type(I32, lanes)), _bits(_HALF, lanes))
    return pairs.like(code.bitcast(bits, _type(F32, lanes)))


def _bits(constant: int, lanes: int) -> Any:
    return _constant(constant, I32, lanes)


# ---- llvmlite's objects


def _type(element: type[Element], lanes: int) -> Any:
    return element.llvm_type if lanes == 1 else ir.VectorType(element.llvm_type, lanes)


def _integer(value: Int | int) -> Any:
    return _constant(value, I64, 1) if isinstance(value, int) else value.raw


def _constant(value: float, element: type[Element], lanes: int) -> Any:
    return _cached_constant(value, element.llvm_type, lanes)


# A constant keeps its text, which takes long to write. No kernel has a -0.0, which would be found as 0.0.
@functools.lru_cache(maxsize=4096)
def _cached_constant(value: float, llvm_type: Any, lanes: int) -> Any:
    if lanes == 1:
        return ir.Constant(llvm_type, value)
    return ir.Constant(ir.VectorType(llvm_type, lanes), [value] * lanes)


def _splat(code: _Code, scalar: Any, element: type[Element], lanes: int) -> Any:
    undefined = ir.Constant(_type(element, lanes), ir.Undefined)
    first = code.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    return code.shuffle_vector(first, undefined, _constant(0, I32, lanes))


def _address(pointer: Value) -> Any:
    return pointer.code.inttoptr(pointer.raw, _POINTER)


def _load(source: Pointer[Any], element: type[Element], lanes: int) -> Any:
    return source.code.load(_address(source), align=element.size, typ=_type(element, lanes))


def _store(raw: Any, target: Pointer[Any]) -> None:
    target.code.store(raw, _address(target), align=target.element.size)


# ---- kernels


def task_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all fields of a task, in order; ValueError where two have one name."""
    names = (*_COMMON, *fields)
    if len(set(names)) < len(names):
        raise ValueError(f"two fields of one name: {', '.join(names)}")
    return names


class KernelBuilder:
    """Builds one kernel function.

    The task's `fields` beside the common ones are read once; ``kernel[field]`` is the value. `vector_bytes`
    is the size of a vector register. With `multiplies_bf16` it may use the instructions of AVX512_BF16.
    """

    def __init__(
        self, name: str, fields: Sequence[str], vector_bytes: int, *, multiplies_bf16: bool = False
    ) -> None:
        self._module = ir.Module(name)
        self._function = ir.Function(self._module, ir.FunctionType(_VOID, [_POINTER]), name)
        self._code = _Code(self._function.append_basic_block("entry"))
        self._code.multiplies_bf16 = multiplies_bf16
        self._vector_bytes = vector_bytes
        self._task = self._pointer(self._code.ptrtoint(self._function.args[0], I64.llvm_type), I64)
        self._field_indices = {field: index for index, field in enumerate(task_fields(fields))}
        shared = {NEXT, THREADS}
        self._values = {
            field: self._task[index] for field, index in self._field_indices.items() if field not in shared
        }
        for field, value in self._values.items():
            # For people who read the code.
            value.raw.name = field

    def __str__(self) -> str:
        """Return the function in LLVM's intermediate representation."""
        return str(self._module)

    def __getitem__(self, field: str) -> Int:
        """Return the value of a field of the task."""
        return self._values[field]

    def pointer(self, field: str, element: type[E]) -> Pointer[E]:
        """Return a field that holds the address of elements."""
        return self._pointer(self[field].raw, element)

    def broadcast(self, field: str) -> Vector[F32]:
        """Return a field that holds a float32's bits, in all lanes."""
        lanes = self.lanes(F32)
        scalar = self._code.bitcast(self._code.trunc(self[field].raw, _INT32), F32.llvm_type)
        return Vector(self._code, _splat(self._code, scalar, F32, lanes), F32, lanes)

    def lanes(self, element: type[Element]) -> int:
        """Return the number of elements in a vector register."""
        return self._vector_bytes // element.size

    def integer(self, value: int) -> Int:
        """Return a constant."""
        return Int(self._code, _integer(value))

    def splat(self, value: float) -> Vector[F32]:
        """Return a vector with one number in all lanes."""
        lanes = self.lanes(F32)
        return Vector(self._code, _constant(value, F32, lanes), F32, lanes)

    def alloca(self, element: type[E], count: Int | int) -> Pointer[E]:
        """Return an array on this thread's stack, aligned to a cache line and valid for the whole call."""
        array = self._code.alloca(element.llvm_type, size=_integer(count))
        array.align = 64
        return self._pointer(self._code.ptrtoint(array, I64.llvm_type), element)

    def alloca_pointers(self, count: int, to: Pointer[E]) -> PointerTable[E]:
        """Return an array of pointers of the type of `to` on this thread's stack."""
        return PointerTable(self.alloca(I64, count), to)

    @contextlib.contextmanager
    def parallel_for(self) -> Iterator[Int]:
        """Loop over the items that this thread takes; the function returns when none is left."""
        code = self._code
        head, body, end = (code.append_basic_block(name) for name in ("item", "work", "done"))
        code.branch(head)
        code.position_at_end(head)
        item = self._fetch_and_increment(NEXT)
        code.cbranch(item.is_index_below(self[ITEMS]).raw, body, end)
        code.position_at_end(body)
        yield item
        code.branch(head)
        code.position_at_end(end)
        code.ret_void()

    def thread(self) -> Int:
        """Return the number of this thread, from 0; every call takes another number."""
        return self._fetch_and_increment(THREADS)

    @contextlib.contextmanager
    def loop(self, stop: Int | int, step: int = 1, carried: Sequence[Variable[Any]] = ()) -> Iterator[Int]:
        """Loop over indices from 0 to `stop` (exclusive) by `step`; the body runs at least once.

        Variables that the body changes must be in `carried`.
        """
        code = self._code
        before = code.block
        body, end = code.append_basic_block("loop"), code.append_basic_block("end")
        code.branch(body)
        code.position_at_end(body)
        index = self.integer(0)
        tops = [self._phi(each, before) for each in (index, *(variable.value for variable in carried))]
        index = index.like(tops[0])
        for variable, top in zip(carried, tops[1:], strict=True):
            variable.value = variable.value.like(top)
        yield index
        following = index + step
        last = code.block
        for top, value in zip(tops, (following, *(variable.value for variable in carried)), strict=True):
            top.add_incoming(value.raw, last)
        code.cbranch((following < stop).raw, body, end)
        code.position_at_end(end)

    def tile_instruction(self, name: str, tiles: Sequence[int], *memory: Value) -> None:
        """Append an instruction of AMX on tiles (by number) and memory: an address, a stride in bytes."""
        numbers = [ir.Constant(U8.llvm_type, tile) for tile in tiles]
        operands = [*map(_address, memory[:1]), *(each.raw for each in memory[1:])]
        self._code.call_intrinsic(f"llvm.x86.{name}", _VOID, [*numbers, *operands])

    def _phi(self, initial: Value, before: Any) -> Any:
        """Append a variable at the top of a loop: `initial` on the jump from `before`."""
        phi = self._code.phi(initial.raw.type)
        phi.add_incoming(initial.raw, before)
        return phi

    def _pointer(self, address: Any, element: type[E]) -> Pointer[E]:
        return Pointer(self._code, address, element, self.lanes(element))

    def _fetch_and_increment(self, field: str) -> Int:
        address = _address(self._task + self._field_indices[field])
        return Int(self._code, self._code.atomic_rmw("add", address, _integer(1), "monotonic"))
