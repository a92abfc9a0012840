"""Write the two kernels of Winograd's tiles; `tile_transforms` checks what they get."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from .compiler import Kernel, SimdTarget
from .ir_builder import Emitter, Table, Value
from .matmul_ir import DEPTH

_GRID = ("height", "width", "dilation", "across", "phases", "down", "first", "tiles")
_IMAGE = (*_GRID, "channels", "image", "row_floats", "pixel_floats")
_INPUT = (*_IMAGE, "result", "matrix_floats")
_OUTPUT = (*_IMAGE, "products", "matrix_floats", "product_floats", "bias", "low", "high")

Matrix = tuple[tuple[float, ...], ...]


@functools.lru_cache
def input_kernel(target: SimdTarget, tile: int, transform: Matrix) -> Kernel:
    """Return the kernel of `tile_transforms.transform_input`."""
    return Kernel(
        "transform_input",
        _INPUT,
        lambda emitter: _Tiles(emitter, target, tile, transform).input(),
        target.lanes,
    )


@functools.lru_cache
def output_kernel(target: SimdTarget, tile: int, transform: Matrix) -> Kernel:
    """Return the kernel of `tile_transforms.transform_output`."""
    return Kernel(
        "transform_output",
        _OUTPUT,
        lambda emitter: _Tiles(emitter, target, tile, transform).output(),
        target.lanes,
    )


class _Tiles:
    """Writes the two kernels. An item is a block of as many tiles as a matrix product has rows."""

    def __init__(self, builder: Emitter, target: SimdTarget, tile: int, transform: Matrix) -> None:
        self._to = builder
        self._on = target
        self._tile = tile
        self._size = len(transform[0])
        self._transform = transform

    def input(self) -> None:
        to, size = self._to, self._size
        zeros = to.alloca(to["channels"])
        with to.loop(to["channels"], to.lanes) as channels:
            to.store(to.constant(0.0), to.element_pointer(zeros, channels.index))
        pixels, between = to.table(size * size), to.alloca(size * size * to.lanes)
        depths = to.divide(to["channels"], DEPTH)[0]
        with to.parallel_for() as block, to.loop(self._tiles_of(block)) as each:
            self._find(pixels, block, each.index, size, 1, zeros)
            result = to.element_pointer(to["result"], to.mul(block, self._on.rows, depths, DEPTH))
            result = to.element_pointer(result, each.index, DEPTH)
            with to.loop(depths) as depth, to.loop(DEPTH, to.lanes) as lane:
                channel = to.add(to.mul(depth.index, DEPTH), lane.index)
                for y in range(size):
                    row_of = [to.load(to.element_pointer(pixels[y * size + x], channel)) for x in range(size)]
                    self._keep(between, y, self._transformed(row_of))
                target = to.element_pointer(
                    result, to.add(to.mul(depth.index, DEPTH * self._on.rows), lane.index)
                )
                for x in range(size):
                    for value in self._transformed(self._kept(between, x)):
                        to.store(value, target)
                        target = to.element_pointer(target, to["matrix_floats"])

    def output(self) -> None:
        to, size, tile = self._to, self._size, self._tile
        low, high = to.from_bits("low"), to.from_bits("high")
        nowhere = to.alloca(to["channels"])
        pixels, between = to.table(tile * tile), to.alloca(size * size * to.lanes)
        with to.parallel_for() as block, to.loop(self._tiles_of(block)) as each:
            self._find(pixels, block, each.index, tile, 0, nowhere)
            number = to.add(to.mul(block, self._on.rows), each.index)
            products = to.element_pointer(to["products"], number, to["product_floats"])
            with to.loop(to["channels"], to.lanes) as channels:
                source = to.element_pointer(products, channels.index)
                bias = to.load(to.element_pointer(to["bias"], channels.index))
                for x in range(size):
                    column_of = []
                    for _ in range(size):
                        column_of.append(to.load(source))
                        source = to.element_pointer(source, to["matrix_floats"])
                    self._keep(between, x, self._transformed(column_of))
                for y in range(tile):
                    for x, value in enumerate(self._transformed(self._kept(between, y))):
                        done = to.clamped(to.plus(value, bias), low, high)
                        to.store(done, to.element_pointer(pixels[y * tile + x], channels.index))

    def _tiles_of(self, block: Value) -> Value:
        """Return how many tiles a block has."""
        to = self._to
        return to.minimum(to.sub(to["tiles"], to.mul(block, self._on.rows)), to.integer(self._on.rows))

    def _find(
        self, pixels: Table, block: Value, index: Value, side: int, before: int, instead: Value
    ) -> None:
        """Write the addresses of a tile's pixels, from so many before its first one, row by row.

        Where a pixel is not in the image, `instead` is its address.
        """
        to = self._to
        number = to.add(to["first"], to.mul(block, self._on.rows), index)
        rest, place = to.divide(number, to["across"])
        rest, phase = to.divide(rest, to["phases"])
        start, row = to.divide(rest, to["down"])

        def places(start: Value, position: Value) -> list[Value]:
            first = to.sub(to.mul(position, self._tile), before)
            return [to.add(start, to.mul(to["dilation"], to.add(first, index))) for index in range(side)]

        columns = [(column, to.in_range(column, to["width"])) for column in places(phase, place)]
        for y, line in enumerate(places(start, row)):
            address, inside = (
                to.element_pointer(to["image"], line, to["row_floats"]),
                to.in_range(line, to["height"]),
            )
            for x, (column, column_inside) in enumerate(columns):
                pixel = to.element_pointer(address, column, to["pixel_floats"])
                pixels[y * side + x] = to.select(to.both(inside, column_inside), pixel, instead)

    def _keep(self, between: Value, line: int, values: Sequence[Value]) -> None:
        for index, value in enumerate(values):
            self._to.store(
                value, self._to.element_pointer(between, (line * self._size + index) * self._to.lanes)
            )

    def _kept(self, between: Value, index: int) -> list[Value]:
        """Return what was kept at an index of every line."""
        places = range(index, self._size**2, self._size)
        return [self._to.load(self._to.element_pointer(between, place * self._to.lanes)) for place in places]

    def _transformed(self, values: Sequence[Value]) -> list[Value]:
        """Return the transform times a column of values.

        Two rows that differ only in signs, as those of opposite interpolation points do, share their sums.
        """
        done: dict[int, Value] = {}
        for index, row in enumerate(self._transform):
            if index in done:
                continue
            twin = next(
                (i for i in range(index + 1, len(self._transform)) if self._are_twins(index, i)), None
            )
            if twin is None:
                done[index] = self._sum(zip(row, values, strict=True))
                continue
            terms = list(zip(row, self._transform[twin], values, strict=True))
            same = self._sum((a, value) for a, b, value in terms if a == b)
            opposite = self._sum((a, value) for a, b, value in terms if a != b)
            done[index] = self._to.plus(same, opposite)
            done[twin] = self._to.minus(same, opposite)
        return [done[index] for index in range(len(self._transform))]

    def _are_twins(self, one: int, other: int) -> bool:
        pairs = list(zip(self._transform[one], self._transform[other], strict=True))
        return all(abs(a) == abs(b) for a, b in pairs) and any(a == b != 0 for a, b in pairs)

    def _sum(self, terms: Iterable[tuple[float, Value]]) -> Value:
        to = self._to
        # Those that need no multiplication first.
        (first, value), *rest = sorted(
            (term for term in terms if term[0]), key=lambda term: abs(term[0]) != 1
        )
        total = value if first == 1 else to.times(to.constant(first), value)
        for factor, value in rest:
            if factor == 1:
                total = to.plus(total, value)
            elif factor == -1:
                total = to.minus(total, value)
            else:
                total = to.fma(to.constant(factor), value, total)
        return total
