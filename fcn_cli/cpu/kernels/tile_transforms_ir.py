"""Build the two kernels of `tile_transforms`, which checks their arguments."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from .compiler import Kernel, SimdTarget
from .ir_arithmetic import Value
from .ir_builder import KernelBuilder
from .ir_memory import Table
from .matmul_ir import DEPTH

_TILES = ("height", "width", "dilation", "tile_columns", "phases", "tile_rows", "first", "tiles")
_IMAGE = (*_TILES, "channels", "image", "row_floats", "pixel_floats")
_INPUT = (*_IMAGE, "result", "matrix_floats")
_OUTPUT = (*_IMAGE, "products", "matrix_floats", "product_floats", "bias", "low", "high")

Matrix = tuple[tuple[float, ...], ...]
"""A small matrix, row by row."""


@functools.lru_cache
def input_kernel(target: SimdTarget, tile: int, transform: Matrix) -> Kernel:
    """Return the kernel of `tile_transforms.transform_input`."""
    return Kernel(
        "transform_input",
        _INPUT,
        lambda builder: _TileTransform(builder, target, tile, transform).build_input(),
        target.lanes,
    )


@functools.lru_cache
def output_kernel(target: SimdTarget, tile: int, transform: Matrix) -> Kernel:
    """Return the kernel of `tile_transforms.transform_output`."""
    return Kernel(
        "transform_output",
        _OUTPUT,
        lambda builder: _TileTransform(builder, target, tile, transform).build_output(),
        target.lanes,
    )


class _Transform:
    """Multiplies columns of vectors by a small constant matrix."""

    def __init__(self, builder: KernelBuilder, rows: Matrix) -> None:
        self._builder = builder
        self._rows = rows

    def multiply(self, column: Sequence[Value]) -> list[Value]:
        """Return the transform times a column of values.

        Two rows that differ only in signs, as those of opposite interpolation points do, share their sums.
        """
        products: dict[int, Value] = {}
        for index, row in enumerate(self._rows):
            if index in products:
                continue
            twin = next((i for i in range(index + 1, len(self._rows)) if self._are_twins(index, i)), None)
            if twin is None:
                products[index] = self._sum(zip(row, column, strict=True))
                continue
            terms = list(zip(row, self._rows[twin], column, strict=True))
            equal = self._sum((a, value) for a, b, value in terms if a == b)
            opposite = self._sum((a, value) for a, b, value in terms if a != b)
            products[index] = self._builder.plus(equal, opposite)
            products[twin] = self._builder.minus(equal, opposite)
        return [products[index] for index in range(len(self._rows))]

    def _are_twins(self, first: int, second: int) -> bool:
        pairs = list(zip(self._rows[first], self._rows[second], strict=True))
        return all(abs(a) == abs(b) for a, b in pairs) and any(a == b != 0 for a, b in pairs)

    def _sum(self, terms: Iterable[tuple[float, Value]]) -> Value:
        builder = self._builder
        # Terms that need no multiplication come first.
        (first, value), *rest = sorted(
            (term for term in terms if term[0]), key=lambda term: abs(term[0]) != 1
        )
        total = value if first == 1 else builder.times(builder.constant(first), value)
        for factor, value in rest:
            if factor == 1:
                total = builder.plus(total, value)
            elif factor == -1:
                total = builder.minus(total, value)
            else:
                total = builder.fma(builder.constant(factor), value, total)
        return total


class _TileTransform:
    """Builds either kernel. An item is a block: as many tiles as a matrix product has rows at a time."""

    def __init__(self, builder: KernelBuilder, target: SimdTarget, tile: int, transform: Matrix) -> None:
        self._builder = builder
        self._target = target
        self._tile = tile
        self._size = len(transform[0])
        self._transform = _Transform(builder, transform)

    def build_input(self) -> None:
        builder, size, block_rows = self._builder, self._size, self._target.rows
        # Padding: the address of pixels outside the image.
        zeros = builder.alloca(builder["channels"])
        with builder.loop(builder["channels"], builder.lanes) as channels:
            builder.store(builder.constant(0.0), builder.element_pointer(zeros, channels.index))
        pixels, scratch = builder.table(size * size), builder.alloca(size * size * builder.lanes)
        depths = builder.divide(builder["channels"], DEPTH)[0]
        with builder.parallel_for() as block, builder.loop(self._tiles_in(block)) as tiles:
            self._find_pixels(pixels, self._tile_number(block, tiles.index), 1, zeros)
            result = builder.element_pointer(builder["result"], builder.mul(block, block_rows, depths, DEPTH))
            result = builder.element_pointer(result, tiles.index, DEPTH)
            with builder.loop(depths) as depth, builder.loop(DEPTH, builder.lanes) as lane:
                channel = builder.add(builder.mul(depth.index, DEPTH), lane.index)
                for y in range(size):
                    row = [
                        builder.load(builder.element_pointer(pixels[y * size + x], channel))
                        for x in range(size)
                    ]
                    self._store_line(scratch, y, self._transform.multiply(row))
                offset = builder.add(builder.mul(depth.index, DEPTH * block_rows), lane.index)
                destination = builder.element_pointer(result, offset)
                for x in range(size):
                    for value in self._transform.multiply(self._load_across(scratch, x)):
                        builder.store(value, destination)
                        destination = builder.element_pointer(destination, builder["matrix_floats"])

    def build_output(self) -> None:
        builder, size, tile = self._builder, self._size, self._tile
        low, high = builder.from_bits("low"), builder.from_bits("high")
        # The address to which pixels outside the image are written.
        discarded = builder.alloca(builder["channels"])
        pixels, scratch = builder.table(tile * tile), builder.alloca(size * size * builder.lanes)
        with builder.parallel_for() as block, builder.loop(self._tiles_in(block)) as tiles:
            self._find_pixels(pixels, self._tile_number(block, tiles.index), 0, discarded)
            number = builder.add(builder.mul(block, self._target.rows), tiles.index)
            products = builder.element_pointer(builder["products"], number, builder["product_floats"])
            with builder.loop(builder["channels"], builder.lanes) as channels:
                source = builder.element_pointer(products, channels.index)
                bias = builder.load(builder.element_pointer(builder["bias"], channels.index))
                for x in range(size):
                    column = []
                    for _ in range(size):
                        column.append(builder.load(source))
                        source = builder.element_pointer(source, builder["matrix_floats"])
                    self._store_line(scratch, x, self._transform.multiply(column))
                for y in range(tile):
                    for x, value in enumerate(self._transform.multiply(self._load_across(scratch, y))):
                        clamped = builder.clamp(builder.plus(value, bias), low, high)
                        pixel = builder.element_pointer(pixels[y * tile + x], channels.index)
                        builder.store(clamped, pixel)

    def _tiles_in(self, block: Value) -> Value:
        """Return the number of tiles in a block."""
        builder, rows = self._builder, self._target.rows
        remaining = builder.sub(builder["tiles"], builder.mul(block, rows))
        return builder.minimum(remaining, builder.integer(rows))

    def _tile_number(self, block: Value, index: Value) -> Value:
        """Return the number of a block's tile in the grid."""
        builder = self._builder
        return builder.add(builder["first"], builder.mul(block, self._target.rows), index)

    def _find_pixels(self, pixels: Table, number: Value, padding: int, outside: Value) -> None:
        """Store the addresses of a tile's pixels, row by row, and of `padding` pixels around it.

        `outside` is the address of every pixel that is not in the image.
        """
        builder, side = self._builder, self._tile + 2 * padding
        rest, tile_column = builder.divide(number, builder["tile_columns"])
        rest, phase_column = builder.divide(rest, builder["phases"])
        phase_row, tile_row = builder.divide(rest, builder["tile_rows"])

        def coordinates(phase: Value, position: Value) -> list[Value]:
            first = builder.sub(builder.mul(position, self._tile), padding)
            return [
                builder.add(phase, builder.mul(builder["dilation"], builder.add(first, index)))
                for index in range(side)
            ]

        columns = [
            (column, builder.in_range(column, builder["width"]))
            for column in coordinates(phase_column, tile_column)
        ]
        for y, row in enumerate(coordinates(phase_row, tile_row)):
            start = builder.element_pointer(builder["image"], row, builder["row_floats"])
            row_inside = builder.in_range(row, builder["height"])
            for x, (column, column_inside) in enumerate(columns):
                pixel = builder.element_pointer(start, column, builder["pixel_floats"])
                pixels[y * side + x] = builder.select(builder.both(row_inside, column_inside), pixel, outside)

    def _store_line(self, scratch: Value, line: int, values: Sequence[Value]) -> None:
        builder = self._builder
        for index, value in enumerate(values):
            offset = (line * self._size + index) * builder.lanes
            builder.store(value, builder.element_pointer(scratch, offset))

    def _load_across(self, scratch: Value, index: int) -> list[Value]:
        """Return the element at an index of every stored line."""
        builder = self._builder
        elements = range(index, self._size**2, self._size)
        return [
            builder.load(builder.element_pointer(scratch, element * builder.lanes)) for element in elements
        ]
