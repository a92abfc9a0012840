"""Winograd's tiles: how an image is divided into them, and their input and output transforms.

Each kernel reads its input once and writes its output once: it gathers pixels, transforms them and stores
them in the layout of the matrix products, or the reverse. Padding, dilation, bias and clamp are included. The
lanes of a vector are channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..toom_cook import Matrix
from . import arguments, matmul, simd_targets
from .arguments import Clamp
from .compiler import Kernel
from .matmul import DEPTH
from .notation import (
    BF16,
    F32,
    Element,
    Int,
    KernelBuilder,
    Pointer,
    PointerTable,
    Vector,
    clamped,
    fma,
    load_floats,
    minimum,
    store_floats,
)
from .simd_targets import SimdTarget

_TILES = ("height", "width", "dilation", "tile_columns", "phases", "tile_rows", "first", "tiles")
_ITEMS = ("blocks", "channels", "channels_per_item")
_IMAGE = (*_TILES, *_ITEMS, "image", "row_floats", "pixel_floats")
# An item has as many channels, if there are: finding a tile's pixels takes as long for few.
_FEWEST_CHANNELS = 4 * DEPTH
_INPUT = (*_IMAGE, "result", "matrix_floats")
_OUTPUT = (*_IMAGE, "products", "matrix_floats", "product_floats", "bias", "low", "high")


@dataclass(frozen=True)
class TileGrid:
    """The tiles of `tile` x `tile` pixels that cover an image of `height` x `width` pixels.

    A convolution with dilation d splits the image into d^2 interleaved phases, and each phase has tiles of
    its own. Tiles are ordered by the row in which their phase starts, tile row, column in which their phase
    starts, and tile column. Every phase has as many tiles as the largest one, so that the matrix products
    need not tell phases apart.
    """

    height: int
    width: int
    dilation: int
    tile: int

    @property
    def columns(self) -> int:
        """The number of tile columns of a phase."""
        return math.ceil(math.ceil(self.width / self.dilation) / self.tile)

    @property
    def rows(self) -> int:
        """The number of tile rows of a phase."""
        return math.ceil(math.ceil(self.height / self.dilation) / self.tile)

    @property
    def phases(self) -> int:
        """The number of phases that start in an image row."""
        return min(self.dilation, self.width)

    @property
    def tiles(self) -> int:
        """The number of all tiles."""
        return min(self.dilation, self.height) * self.rows * self.phases * self.columns


@dataclass(frozen=True)
class TileRange:
    """`count` tiles of a grid in a row, from number `first` on; ValueError where the grid has none such."""

    grid: TileGrid
    first: int
    count: int

    def __post_init__(self) -> None:
        if self.first < 0 or self.count <= 0 or self.first + self.count > self.grid.tiles:
            raise ValueError(
                f"tiles {self.first} to {self.first + self.count} of a grid that has {self.grid.tiles}"
            )

    def fields(self) -> dict[str, int]:
        """Return the task fields that describe the range to a kernel."""
        return {
            "height": self.grid.height,
            "width": self.grid.width,
            "dilation": self.grid.dilation,
            "tile_columns": self.grid.columns,
            "phases": self.grid.phases,
            "tile_rows": self.grid.rows,
            "first": self.first,
            "tiles": self.count,
        }


def transform_input(x: Tensor, tiles: TileRange, transform: Matrix, result: Tensor) -> None:
    """Transform tiles of an image (h, w, channels), float32 or bfloat16, with a last stride of 1.

    `transform` has m + 2 rows of m + 2 numbers for tiles of size m, and is applied to rows and columns.
    `result`, float32, is the left factor of `matmul.batched_product`; rows of its last block beyond the last
    tile are left unchanged. Raises ValueError where something has another shape, type or strides.
    """
    target = simd_targets.simd_target()
    grid = tiles.grid
    size = grid.tile + 2
    _require_transform(transform, size, size)
    channels = _channels("x", x, grid, DEPTH)
    blocks = math.ceil(tiles.count / target.rows)
    arguments.require_shape("result", result, size**2, blocks, channels // DEPTH, target.rows, DEPTH)
    if x.stride(2) != 1:
        raise ValueError(f"x has strides {x.stride()}, the last one must be 1")
    arguments.require_contiguous_matrices("result", result)
    dtype = _image_type(x)
    items, fields = _items(blocks, channels)
    input_kernel(target, grid.tile, transform, bf16=dtype == torch.bfloat16)(
        items,
        **tiles.fields(),
        **fields,
        image=arguments.data_pointer(x, dtype),
        row_floats=x.stride(0),
        pixel_floats=x.stride(1),
        result=arguments.data_pointer(result),
        matrix_floats=result.stride(0),
    )


def transform_output(
    products: Tensor, tiles: TileRange, transform: Matrix, bias: Tensor, clamp: Clamp, out: Tensor
) -> None:
    """Transform tiles back and write them into an image (h, w, channels), float32 or bfloat16, contiguous.

    `products` are float32, at least ((m + 2)^2, tiles, channels) for tiles of size m, each matrix contiguous.
    `transform` has m rows of m + 2 numbers, and is applied to rows and columns. `bias` is float32. Raises
    ValueError where something has another shape, type or strides.
    """
    target = simd_targets.simd_target()
    grid = tiles.grid
    size = grid.tile + 2
    _require_transform(transform, grid.tile, size)
    channels = _channels("out", out, grid, target.lanes)
    arguments.require_shape("bias", bias, channels)
    minimum = (size**2, tiles.count, channels)
    if products.ndim != 3 or any(has < needs for has, needs in zip(products.shape, minimum, strict=True)):
        raise ValueError(f"products has shape {tuple(products.shape)}, expected at least {minimum}")
    arguments.require_contiguous_matrices("products", products)
    dtype = _image_type(out)
    items, fields = _items(math.ceil(tiles.count / target.rows), channels)
    output_kernel(target, grid.tile, transform, bf16=dtype == torch.bfloat16)(
        items,
        **tiles.fields(),
        **fields,
        products=arguments.data_pointer(products),
        matrix_floats=products.stride(0),
        product_floats=products.stride(1),
        image=arguments.contiguous_pointer(out, dtype),
        row_floats=out.stride(0),
        pixel_floats=out.stride(1),
        bias=arguments.contiguous_pointer(bias),
        **arguments.clamp_fields(clamp),
    )


def _items(blocks: int, channels: int) -> tuple[int, dict[str, int]]:
    """Return how many items there are, and the task fields that divide blocks and channels into them."""
    threads, lines = torch.get_num_threads(), math.ceil(channels / DEPTH)
    counts = range(1, max(1, channels // _FEWEST_CHANNELS) + 1)
    # The first one of the best: as few parts of the channels as keep threads busy.
    groups = max(counts, key=lambda count: min(matmul.BUSY, matmul.filled_share(blocks * count, threads)))
    per_item = math.ceil(lines / groups) * DEPTH
    fields = {"blocks": blocks, "channels": channels, "channels_per_item": per_item}
    return blocks * math.ceil(channels / per_item), fields


def _image_type(image: Tensor) -> torch.dtype:
    """Return the type that an image must have."""
    return torch.bfloat16 if image.dtype == torch.bfloat16 else torch.float32


def _require_transform(transform: Matrix, rows: int, columns: int) -> None:
    if len(transform) != rows or any(len(row) != columns for row in transform):
        lengths = sorted({len(row) for row in transform})
        raise ValueError(
            f"the transform has {len(transform)} rows of {lengths}, expected {rows} of {columns}"
        )


def _channels(name: str, image: Tensor, grid: TileGrid, multiple: int) -> int:
    """Return the number of channels of an image; raises ValueError unless its size is the grid's."""
    channels = image.shape[2] if image.ndim == 3 else 0
    if not channels or channels % multiple or image.shape[:2] != (grid.height, grid.width):
        raise ValueError(
            f"{name} has shape {tuple(image.shape)}, "
            f"expected ({grid.height}, {grid.width}, a multiple of {multiple})"
        )
    return channels


@functools.lru_cache
def input_kernel(target: SimdTarget, tile: int, transform: Matrix, *, bf16: bool = False) -> Kernel:
    """Build the kernel of `transform_input`; `bf16`: whether the image is bfloat16."""
    return Kernel(
        "transform_input",
        _INPUT,
        lambda kernel: _TileTransform(kernel, target, tile, transform, bf16=bf16).build_input(),
        target,
    )


@functools.lru_cache
def output_kernel(target: SimdTarget, tile: int, transform: Matrix, *, bf16: bool = False) -> Kernel:
    """Build the kernel of `transform_output`; `bf16`: whether the image is bfloat16."""
    return Kernel(
        "transform_output",
        _OUTPUT,
        lambda kernel: _TileTransform(kernel, target, tile, transform, bf16=bf16).build_output(),
        target,
    )


class _Transform:
    """Multiplies columns of vectors by a small constant matrix."""

    def __init__(self, rows: Matrix) -> None:
        self._rows = rows

    def multiply(self, column: Sequence[Vector[F32]]) -> list[Vector[F32]]:
        """Return the transform times a column of values.

        Two rows that differ only in signs, as those of opposite interpolation points do, share their sums.
        """
        products: dict[int, Vector[F32]] = {}
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
            products[index] = equal + opposite
            products[twin] = equal - opposite
        return [products[index] for index in range(len(self._rows))]

    def _are_twins(self, first: int, second: int) -> bool:
        pairs = list(zip(self._rows[first], self._rows[second], strict=True))
        return all(abs(a) == abs(b) for a, b in pairs) and any(a == b != 0 for a, b in pairs)

    def _sum(self, terms: Iterable[tuple[float, Vector[F32]]]) -> Vector[F32]:
        needed = [(factor, value) for factor, value in terms if factor]
        # Terms that need no multiplication come first.
        (first, value), *rest = [
            *((factor, value) for factor, value in needed if abs(factor) == 1),
            *((factor, value) for factor, value in needed if abs(factor) != 1),
        ]
        total = value if first == 1 else first * value
        for factor, value in rest:
            if factor == 1:
                total = total + value
            elif factor == -1:
                total = total - value
            else:
                total = fma(factor, value, total)
        return total


class _TileTransform:
    """Builds either kernel.

    An item is some channels of a block, of as many tiles as a matrix product has rows at a time.
    """

    def __init__(
        self, kernel: KernelBuilder, target: SimdTarget, tile: int, transform: Matrix, *, bf16: bool
    ) -> None:
        self._kernel = kernel
        self._element: type[Element] = BF16 if bf16 else F32
        self._target = target
        self._tile = tile
        self._size = len(transform[0])
        self._transform = _Transform(transform)

    def build_input(self) -> None:
        kernel, size, block_rows = self._kernel, self._size, self._target.rows
        channels, lanes = kernel["channels"], self._target.lanes
        depths = channels // DEPTH
        # Padding: pixels outside the image are read here.
        zeros = kernel.alloca(self._element, channels)
        with kernel.loop(channels, lanes) as channel:
            store_floats(kernel.splat(0.0), zeros + channel)
        pixels, scratch = kernel.alloca_pointers(size * size, zeros), self._alloca_scratch()
        with kernel.parallel_for() as item:
            block, first, count = self._place(item)
            with kernel.loop(self._tiles_in(block)) as tile:
                self._find_pixels(pixels, self._tile_number(block, tile), 1, zeros)
                target = kernel.pointer("result", F32) + (block * depths * block_rows + tile) * DEPTH
                with kernel.loop(count // DEPTH) as line, kernel.loop(DEPTH, lanes) as lane:
                    depth = first // DEPTH + line
                    channel = depth * DEPTH + lane
                    for y in range(size):
                        row = [load_floats(pixels[y * size + x] + channel) for x in range(size)]
                        self._store_line(scratch, y, self._transform.multiply(row))
                    destination = target + depth * block_rows * DEPTH + lane
                    for x in range(size):
                        for value in self._transform.multiply(self._load_across(scratch, x)):
                            destination.store(value)
                            destination += kernel["matrix_floats"]

    def build_output(self) -> None:
        kernel, size, tile_size = self._kernel, self._size, self._tile
        low, high = kernel.broadcast("low"), kernel.broadcast("high")
        # Pixels outside the image are written here.
        discarded = kernel.alloca(self._element, kernel["channels"])
        pixels, scratch = kernel.alloca_pointers(tile_size * tile_size, discarded), self._alloca_scratch()
        bias = kernel.pointer("bias", F32)
        with kernel.parallel_for() as item:
            block, first, count = self._place(item)
            with kernel.loop(self._tiles_in(block)) as tile:
                self._find_pixels(pixels, self._tile_number(block, tile), 0, discarded)
                number = block * self._target.rows + tile
                products = kernel.pointer("products", F32) + number * kernel["product_floats"]
                with kernel.loop(count, self._target.lanes) as offset:
                    channel = first + offset
                    source = products + channel
                    shift = (bias + channel).load()
                    for x in range(size):
                        column = []
                        for _ in range(size):
                            column.append(source.load())
                            source += kernel["matrix_floats"]
                        self._store_line(scratch, x, self._transform.multiply(column))
                    for y in range(tile_size):
                        for x, value in enumerate(self._transform.multiply(self._load_across(scratch, y))):
                            pixel = pixels[y * tile_size + x] + channel
                            store_floats(clamped(value + shift, low, high), pixel)

    def _place(self, item: Int) -> tuple[Int, Int, Int]:
        """Return the block of an item, its first channel and its number of channels."""
        kernel = self._kernel
        group, block = divmod(item, kernel["blocks"])
        first = group * kernel["channels_per_item"]
        return block, first, minimum(kernel["channels"] - first, kernel["channels_per_item"])

    def _tiles_in(self, block: Int) -> Int:
        """Return the number of tiles in a block."""
        return minimum(self._kernel["tiles"] - block * self._target.rows, self._target.rows)

    def _tile_number(self, block: Int, index: Int) -> Int:
        """Return the number of a block's tile in the grid."""
        return self._kernel["first"] + block * self._target.rows + index

    def _find_pixels(
        self, pixels: PointerTable[Element], number: Int, padding: int, outside: Pointer[Element]
    ) -> None:
        """Store the addresses of a tile's pixels, row by row, and of `padding` pixels around it.

        `outside` is the address of every pixel that is not in the image.
        """
        kernel, side = self._kernel, self._tile + 2 * padding
        image = kernel.pointer("image", self._element)
        rest, tile_column = divmod(number, kernel["tile_columns"])
        rest, phase_column = divmod(rest, kernel["phases"])
        phase_row, tile_row = divmod(rest, kernel["tile_rows"])

        def coordinates(phase: Int, position: Int) -> list[Int]:
            first = position * self._tile - padding
            return [phase + kernel["dilation"] * (first + index) for index in range(side)]

        columns = [
            (column, column.is_index_below(kernel["width"]))
            for column in coordinates(phase_column, tile_column)
        ]
        for y, row in enumerate(coordinates(phase_row, tile_row)):
            start = image + row * kernel["row_floats"]
            row_inside = row.is_index_below(kernel["height"])
            for x, (column, column_inside) in enumerate(columns):
                pixel = start + column * kernel["pixel_floats"]
                pixels[y * side + x] = (row_inside & column_inside).select(pixel, outside)

    def _alloca_scratch(self) -> Pointer[F32]:
        return self._kernel.alloca(F32, self._size * self._size * self._target.lanes)

    def _store_line(self, scratch: Pointer[F32], line: int, values: Sequence[Vector[F32]]) -> None:
        for index, value in enumerate(values):
            (scratch + (line * self._size + index) * self._target.lanes).store(value)

    def _load_across(self, scratch: Pointer[F32], index: int) -> list[Vector[F32]]:
        """Return the element at an index of every stored line."""
        elements = range(index, self._size**2, self._size)
        return [(scratch + element * self._target.lanes).load() for element in elements]
