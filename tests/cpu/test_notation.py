"""The operators of typed values compute what Python's do: small kernels run, and Python is the oracle."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_cli.cpu.kernels import arguments
from fcn_cli.cpu.kernels.compiler import Kernel
from fcn_cli.cpu.kernels.notation import (
    F32,
    I64,
    U8,
    Int,
    KernelBuilder,
    Variable,
    Vector,
    clamped,
    fma,
    minimum,
)
from fcn_cli.cpu.kernels.simd_targets import SimdTarget


def address(array: NDArray[Any] | Tensor) -> int:
    """Return an array's address, as the wrappers of kernels do."""
    tensor = torch.as_tensor(array)
    return arguments.data_pointer(tensor, tensor.dtype)


PAIRS = [(7, 3), (3, 7), (0, 5), (12, 12), (1 << 40, 1000)]

INTEGERS: dict[str, Callable[[Int, Int], Int]] = {
    "a + b": operator.add,
    "a - b": operator.sub,
    "a * b": operator.mul,
    "a // b": operator.floordiv,
    "a % b": operator.mod,
    "5 + a": lambda a, _: 5 + a,
    "5 * a": lambda a, _: 5 * a,
    "a + 5": lambda a, _: a + 5,
    "a - 5": lambda a, _: a - 5,
    "(a + b * 3) * 4": lambda a, b: (a + b * 3) * 4,
}


def run_integers(target: SimdTarget, build: Callable[[KernelBuilder, Int, Int], Int], a: int, b: int) -> int:
    result = torch.zeros(1, dtype=torch.int64)

    def whole(kernel: KernelBuilder) -> None:
        with kernel.parallel_for():
            kernel.pointer("result", I64)[0] = build(kernel, kernel["a"], kernel["b"])

    Kernel("integers", ("a", "b", "result"), whole, target)(1, a=a, b=b, result=address(result))
    return int(result)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(target: SimdTarget, name: str) -> None:
    for a, b in PAIRS:
        computed = run_integers(target, lambda _, x, y: INTEGERS[name](x, y), a, b)
        assert computed == eval(name, {"a": a, "b": b})


def test_choices_of_integers(target: SimdTarget) -> None:
    for a, b in [*PAIRS, (-3, 5), (5, -3)]:
        assert run_integers(target, lambda _, x, y: minimum(x, y), a, b) == min(a, b)
        assert run_integers(target, lambda _, x, y: minimum(x, 4), a, b) == min(a, 4)
        assert run_integers(target, lambda _, x, y: (x < y).select(y, x), a, b) == max(a, b)
        inside = run_integers(target, lambda _, x, y: x.is_index_below(12).select(x, y), a, b)
        assert inside == (a if 0 <= a < 12 else b)
        both = run_integers(target, lambda _, x, y: ((x < y) & (x < 5)).select(x, y), a, b)
        assert both == (a if a < b and a < 5 else b)


def test_a_value_is_not_a_python_condition(target: SimdTarget) -> None:
    with pytest.raises(TypeError, match="select"):
        run_integers(target, lambda _, x, y: x if x < y else y, 1, 2)


def test_variables_of_nested_loops(target: SimdTarget) -> None:
    """Two of Fibonacci's numbers a turn, and a count of all turns."""

    def build(kernel: KernelBuilder, a: Int, b: Int) -> Int:
        first, second, turns = Variable(a), Variable(b), Variable(a)
        with kernel.loop(10, 2, carried=[first, second, turns]), kernel.loop(3, carried=[turns]):
            turns.value += 1
        with kernel.loop(6, carried=[first, second]):
            first.value, second.value = second.value, first.value + second.value
        return turns.value * 1000 + second.value

    assert run_integers(target, build, 0, 1) == 15 * 1000 + 13


def test_the_index_of_a_loop(target: SimdTarget) -> None:
    def build(kernel: KernelBuilder, a: Int, b: Int) -> Int:
        total = Variable(a)
        with kernel.loop(b, 3, carried=[total]) as index:
            total.value += index
        return total.value

    assert [run_integers(target, build, 0, stop) for stop in (1, 3, 4, 10)] == [0, 0, 3, 18]


VECTORS: dict[str, Callable[[Vector[F32], Vector[F32]], Vector[F32]]] = {
    "a + b": operator.add,
    "a - b": operator.sub,
    "a * b": operator.mul,
    "a + 1.5": lambda a, _: a + 1.5,
    "a - 1.5": lambda a, _: a - 1.5,
    "1.5 * a": lambda a, _: 1.5 * a,
    "np.where(a > b, a, -1.0)": lambda a, b: (a > b).select(a, a.splat(-1.0)),
    "np.where(a < b, a, -1.0)": lambda a, b: (a < b).select(a, a.splat(-1.0)),
    "a * b + a": lambda a, b: fma(a, b, a),
    "2.0 * b + a": lambda a, b: fma(2.0, b, a),
    "np.clip(a, -1.0, 2.0)": lambda a, _: clamped(a, a.splat(-1.0), a.splat(2.0)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(target: SimdTarget, name: str) -> None:
    # Quarters: their products are exact, with and without a fused multiply-add.
    random = np.random.default_rng(0)
    a, b = (random.integers(-16, 17, target.lanes).astype(np.float32) / 4 for _ in range(2))
    a[0] = b[0]
    result = np.zeros_like(a)

    def build(kernel: KernelBuilder) -> None:
        first, second, out = (kernel.pointer(field, F32) for field in ("a", "b", "result"))
        with kernel.parallel_for():
            out.store(VECTORS[name](first.load(), second.load()))

    kernel = Kernel("vectors", ("a", "b", "result"), build, target)
    kernel(1, a=address(a), b=address(b), result=address(result))
    np.testing.assert_array_equal(result, eval(name, {"a": a, "b": b, "np": np}))


def test_not_a_number_passes_a_clamp_and_fails_a_comparison(target: SimdTarget) -> None:
    a, limited, chosen = (np.full(target.lanes, value, np.float32) for value in (np.nan, 0, 0))

    def build(kernel: KernelBuilder) -> None:
        with kernel.parallel_for():
            value, zero = kernel.pointer("a", F32).load(), kernel.splat(0.0)
            kernel.pointer("limited", F32).store(clamped(value, zero, zero + 6.0))
            kernel.pointer("chosen", F32).store((value > zero).select(zero, zero + 3.0))

    kernel = Kernel("nan", ("a", "limited", "chosen"), build, target)
    kernel(1, a=address(a), limited=address(limited), chosen=address(chosen))
    assert np.isnan(limited).all()
    assert (chosen == 3).all()


def test_pointers_count_elements(target: SimdTarget) -> None:
    """Of every type; `broadcast` reads one element, a table keeps addresses, `alloca` is the thread's own."""
    floats = np.arange(100, dtype=np.float32)
    integers, octets = np.arange(100, 110), np.zeros(64, np.uint8)
    result = np.zeros((3, target.lanes), np.float32)

    def build(kernel: KernelBuilder) -> None:
        source, out = kernel.pointer("floats", F32), kernel.pointer("result", F32)
        index = kernel.pointer("integers", I64)[kernel["three"]]
        with kernel.parallel_for():
            table = kernel.alloca_pointers(2, source)
            table[0], table[1] = source + 7, source + (index - 100) * 10
            own = kernel.alloca(F32, 64)
            (own + 5).store((table[1] + 2).load())
            out.store(table[0].broadcast())
            (out + kernel.lanes(F32)).store((own + 5).load())
            (out + 2 * target.lanes).store(kernel.broadcast("float"))
            (kernel.pointer("octets", U8) + 3).store(table[1].load().to_uint8())

    fields = ("floats", "integers", "octets", "result", "three", "float")
    Kernel("pointers", fields, build, target)(
        1,
        floats=address(floats),
        integers=address(integers),
        octets=address(octets),
        result=address(result),
        three=3,
        float=2.5,
    )
    lanes = target.lanes
    np.testing.assert_array_equal(result, [np.full(lanes, 7), np.arange(32, 32 + lanes), np.full(lanes, 2.5)])
    np.testing.assert_array_equal(octets[3 : 3 + lanes], np.arange(30, 30 + lanes))
    assert not octets[:3].any()
    assert not octets[3 + lanes :].any()


def test_every_item_is_processed_once_and_every_thread_has_a_number(target: SimdTarget) -> None:
    counts, by_thread = np.zeros(1000, np.int64), np.zeros(64, np.int64)

    def build(kernel: KernelBuilder) -> None:
        own = kernel.pointer("by_thread", I64) + kernel.thread()
        counts = kernel.pointer("counts", I64)
        with kernel.parallel_for() as item:
            counts[item] = counts[item] + 1
            own[0] = own[0] + 1

    Kernel("items", ("counts", "by_thread"), build, target)(
        1000, counts=address(counts), by_thread=address(by_thread)
    )
    assert (counts == 1).all()
    assert by_thread.sum() == 1000
    assert not by_thread[torch.get_num_threads() :].any()


def test_a_field_cannot_have_the_name_of_a_common_one(target: SimdTarget) -> None:
    with pytest.raises(ValueError, match="threads"):
        Kernel("twice", ("counts", "threads"), lambda _: None, target)
