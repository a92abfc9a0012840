"""Bfloat16 in kernels: numbers that are stored in 16 bits, and dot products of pairs of them.

A bfloat16 is the upper half of a float32. Kernels compute in float32: they widen what they load and round
what they store. Only products take bfloat16 as it is, two at a time: a *pair* lies in the place of one
float32, the first number in the lower half. Where the processor has no instruction for a product of pairs,
the same is computed in float32.
"""

from __future__ import annotations

from .ir_values import E, Pointer, Vector, fma
from .llvm import BF16, F32, I32, BFloat, Function, Operation, Raw

_HALF = 16
# Of the instructions of AVX512_BF16, only those on whole registers are used.
_DOT = "llvm.x86.avx512bf16.dpbf16ps.512"
_NARROW = "llvm.x86.avx512bf16.cvtneps2bf16.512"
_NARROW_BOTH = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"


def dot_of_pairs(a: Vector[F32], b: Vector[F32], total: Vector[F32]) -> Vector[F32]:
    """Return in each lane `total` plus the dot product of two pairs, summed in float32.

    The product of the second numbers is added first. The instruction takes subnormal numbers as zeros.
    """
    function, lanes = total.function, total.lanes
    if function.multiplies_bf16:
        pairs = [function.bitcast(each.raw, BFloat, 2 * lanes) for each in (a, b)]
        return total.like(function.call(_DOT, F32, lanes, [total.raw, *pairs]))
    return fma(_lower_half(a), _lower_half(b), fma(_upper_half(a), _upper_half(b), total))


def load_floats(source: Pointer[E]) -> Vector[F32]:
    """Load a vector of float32, or of as many bfloat16, which become float32."""
    function, lanes = source.function, source.lanes * source.element.size // F32.size
    if source.element is F32:
        return Vector(function, function.load(source.raw, F32, lanes), F32, lanes)
    halves = function.load(source.raw, BF16, lanes)
    bits = _operate(function, "shl", function.resize(halves, I32, lanes), _HALF, lanes)
    return Vector(function, function.bitcast(bits, F32, lanes), F32, lanes)


def store_floats(vector: Vector[F32], target: Pointer[E]) -> None:
    """Store a vector of float32, or, where `target` holds them, of as many bfloat16."""
    raw = vector.raw if target.element is F32 else _narrowed(vector)
    vector.function.store(raw, target.raw, target.element)


def store_both(first: Vector[F32], second: Vector[F32], target: Pointer[E]) -> None:
    """Store two vectors of float32 one after the other, as `store_floats` does."""
    function, lanes = first.function, first.lanes
    if target.element is F32 or not function.multiplies_bf16:
        store_floats(first, target)
        store_floats(second, target + lanes)
        return
    both = function.call(_NARROW_BOTH, BFloat, 2 * lanes, [second.raw, first.raw])
    function.store(function.bitcast(both, BF16, 2 * lanes), target.raw, BF16)


def _narrowed(vector: Vector[F32]) -> Raw:
    """Return the nearest bfloat16, ties to even; NaN stays NaN. The instruction makes subnormals zeros."""
    function, lanes = vector.function, vector.lanes
    if function.multiplies_bf16:
        return function.bitcast(function.call(_NARROW, BFloat, lanes, [vector.raw]), BF16, lanes)
    bits = function.bitcast(vector.raw, I32, lanes)
    last = _operate(function, "and_", _operate(function, "lshr", bits, _HALF, lanes), 1, lanes)
    rounded = function.binary("add", _operate(function, "add", bits, 0x7FFF, lanes), last)
    # Rounded, a NaN could become an infinity; with this bit it stays one.
    quiet = _operate(function, "or_", bits, 0x400000, lanes)
    is_nan = function.compare("fcmp_unordered", "uno", vector.raw, vector.raw)
    chosen = function.select(is_nan, quiet, rounded)
    return function.resize(_operate(function, "lshr", chosen, _HALF, lanes), BF16, lanes)


def _upper_half(pairs: Vector[F32]) -> Vector[F32]:
    return _changed_bits(pairs, "and_", 0xFFFF0000)


def _lower_half(pairs: Vector[F32]) -> Vector[F32]:
    return _changed_bits(pairs, "shl", _HALF)


def _changed_bits(vector: Vector[F32], operation: Operation, constant: int) -> Vector[F32]:
    function, lanes = vector.function, vector.lanes
    bits = _operate(function, operation, function.bitcast(vector.raw, I32, lanes), constant, lanes)
    return vector.like(function.bitcast(bits, F32, lanes))


def _operate(function: Function, operation: Operation, bits: Raw, constant: int, lanes: int) -> Raw:
    """Append an operation of 32-bit integers and a constant."""
    return function.binary(operation, bits, function.constant(constant, I32, lanes))
