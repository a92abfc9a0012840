"""3x3 convolutions with stride 1 by minimal filtering: fewer multiplications than the definition has.

The method is Winograd's, as Lavin and Gray apply it to networks ("Fast Algorithms for Convolutional Neural
Networks", arXiv 1509.09308): F(m x m, 3 x 3) turns each m x m tile of the output, for every pair of
channels, from 9 m^2 multiplications into (m + 2)^2. The transforms are built here by the Toom-Cook
construction from interpolation points, exactly, in fractions.

A dilated convolution with dilation d never mixes the d^2 interleaved phases of its input: each phase is a
small image of its own, convolved without dilation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter

import torch
from torch import Tensor

from .products import batched, single
from .workspace import Workspace

TAPS = 3

# Symmetric in sign and in inversion: of the sets tried, these lose the fewest digits.
_HALF = Fraction(1, 2)
POINTS: dict[int, tuple[Fraction, ...]] = {
    4: (Fraction(0), Fraction(1), Fraction(-1), _HALF, Fraction(-2)),
    6: (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), _HALF, -_HALF),
}
"""Tile size m → m + 1 finite interpolation points; infinity is always the last one."""

# The transformed input and output of one block of tiles: large enough for a GEMM to run at full rate, small
# enough for the last cache and for a bound that does not grow with the image.
_BLOCK_ELEMENTS = 1 << 23
_MIN_BLOCK_TILES = 256
# Channels that are transformed together.
_CHUNK = 1024

Band = tuple[int, int]


@dataclass(frozen=True)
class Transforms:
    """The three matrices of F(m, 3), float64: Y = output · [(filter · g) * (input · d)].

    Shapes: `output` (m, m + 2), `filter` (m + 2, 3), `input` (m + 2, m + 2).
    """

    output: Tensor
    filter: Tensor
    input: Tensor

    @classmethod
    def of(cls, tile: int) -> Transforms:
        """Build them for tiles of a size in `POINTS`."""
        points = POINTS[tile]
        size = tile + TAPS - 1
        every = [Fraction(1)]
        for point in points:
            every = _times(every, point)
        outputs = [[point**row for point in points] + [Fraction(row == tile - 1)] for row in range(tile)]
        filters, inputs = [], []
        for index, point in enumerate(points):
            scale, product = Fraction(1), [Fraction(1)]
            for other in points[:index] + points[index + 1 :]:
                scale *= point - other
                product = _times(product, other)
            filters.append([point**power / scale for power in range(TAPS)])
            inputs.append(product + [Fraction(0)] * (size - len(product)))
        filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
        inputs.append(every)
        return cls(_matrix(outputs), _matrix(filters), _matrix(inputs))


def _times(polynomial: Sequence[Fraction], root: Fraction) -> list[Fraction]:
    """Return the coefficients, lowest first, of a polynomial times (x - root)."""
    shifted = [Fraction(0), *polynomial]
    scaled = [*(root * coefficient for coefficient in polynomial), Fraction(0)]
    return [a - b for a, b in zip(shifted, scaled, strict=True)]


def _matrix(rows: Sequence[Sequence[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)


@dataclass(frozen=True)
class Grid:
    """How an image of `height` x `width` is cut into tiles.

    Tiles lie in bands: a band is one row of tiles of all phases that start in the same image row. All phases
    have the tiles of the largest one, so that they look alike to the GEMM.
    """

    height: int
    width: int
    dilation: int
    tile: int

    @property
    def across(self) -> int:
        """How many tiles there are in a row of one phase."""
        return _ceil(_ceil(self.width, self.dilation), self.tile)

    @property
    def phases(self) -> int:
        """How many phases a band has."""
        return min(self.dilation, self.width)

    @property
    def bands(self) -> list[Band]:
        """Every band, as (first row of its phases in the image, its row of tiles)."""
        down = _ceil(_ceil(self.height, self.dilation), self.tile)
        return [(start, row) for start in range(min(self.dilation, self.height)) for row in range(down)]

    @property
    def tiles(self) -> int:
        """How many tiles there are in all."""
        return len(self.bands) * self.phases * self.across


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


class Winograd:
    """A 3x3 convolution with stride 1, zero padding equal to its dilation, a bias and a clamp.

    Parameters
    ----------
    weight
        float64, shape (channels out, channels in, 3, 3).
    bias
        float64, shape (channels out,).
    dilation
        At least 1.
    tile
        Size m of the output's tiles, one of `POINTS`.
    limits
        The result is clamped to these: (0, None) is ReLU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        dilation: int,
        tile: int,
        limits: tuple[float | None, float | None],
    ) -> None:
        transforms = Transforms.of(tile)
        self.dilation = dilation
        self.tile = tile
        self.limits = limits
        self._size = tile + TAPS - 1
        self._out, self._in = weight.shape[:2]
        self._input = transforms.input.float()
        self._output = torch.kron(transforms.output, transforms.output).float()
        self._bias = bias.float()
        # Where the output transform reads 1 for every pixel of a tile: there the bias is added, once a tile.
        one = POINTS[tile].index(Fraction(1))
        self._bias_at = one * self._size + one
        self._filters = [
            _transform_filter(weight[:, start : start + _CHUNK], transforms.filter)
            for start in range(0, self._in, _CHUNK)
        ]

    def __call__(self, x: Tensor, out: Tensor, space: Workspace) -> None:
        """Convolve one image.

        Parameters
        ----------
        x
            float32, shape (h, w, channels in), the last stride 1.
        out
            float32, shape (h, w, channels out), contiguous; is overwritten.
        space
            For what lies between.
        """
        grid = Grid(x.shape[0], x.shape[1], self.dilation, self.tile)
        in_band = grid.phases * grid.across
        widest = max(min(self._in, _CHUNK), self._out)
        most = max(_MIN_BLOCK_TILES, _BLOCK_ELEMENTS // (self._size**2 * widest))
        per_block = max(1, most // in_band)
        bands = grid.bands
        for start in range(0, len(bands), per_block):
            block = bands[start : start + per_block]
            products = space.take("products", self._size**2, len(block) * in_band, self._out)
            for index, filters in enumerate(self._filters):
                part = x[..., index * _CHUNK : (index + 1) * _CHUNK]
                tiles = self._transform_input(part, block, grid, space)
                batched(tiles.transpose(0, 1), filters, products, space, add=index > 0)
            products[self._bias_at] += self._bias
            self._transform_output(products, block, grid, out, space)

    def _transform_input(self, x: Tensor, block: Sequence[Band], grid: Grid, space: Workspace) -> Tensor:
        """Return the transformed tiles of some bands, shape (tiles, (m + 2)^2, channels)."""
        size, across, dilation = self._size, grid.across, self.dilation
        width, channels = x.shape[1:]
        tiles = space.take("tiles", len(block), grid.phases, across, size, size * channels)
        columns = space.take("columns", (across * self.tile + TAPS - 1) * dilation, size, channels)
        columns[:dilation].zero_()
        columns[dilation + width :].zero_()
        # For each phase, its tiles: they overlap in the columns they read.
        length = size * channels
        overlapping = [
            columns.as_strided(
                (across, size, length), (self.tile * dilation * length, dilation * length, 1), phase * length
            )
            for phase in range(grid.phases)
        ]
        horizontal = self._input.expand(across, -1, -1)
        for (down, row), band in zip(block, tiles, strict=True):
            rows = x[down::dilation]
            top = row * self.tile - 1
            first, last = max(top, 0), min(top + size, len(rows))
            if first >= last:
                band.zero_()
                continue
            # Rows outside the image are zero: leaving them out of the sum is the padding.
            vertical = self._input[:, first - top : last - top].expand(width, -1, -1)
            torch.bmm(vertical, rows[first:last].transpose(0, 1), out=columns[dilation : dilation + width])
            for source, target in zip(overlapping, band, strict=True):
                torch.bmm(horizontal, source, out=target)
        return tiles.view(-1, size**2, channels)

    def _transform_output(
        self, products: Tensor, block: Sequence[Band], grid: Grid, out: Tensor, space: Workspace
    ) -> None:
        size, tile, dilation = self._size, self.tile, self.dilation
        done = space.take("done", tile, tile, len(block), grid.phases, grid.across, self._out)
        single(self._output, products.view(size**2, -1), done.view(tile**2, -1))
        # (column, row in the tile; band, phase, tile) → (band, row, tile, column, phase): as pixels lie.
        pixels = done.permute(2, 1, 4, 0, 3, 5)
        for down, bands in itertools.groupby(block, key=itemgetter(0)):
            rows = [row for _, row in bands]
            target = out[down::dilation][rows[0] * tile : (rows[-1] + 1) * tile]
            whole, rest = divmod(len(target), tile)
            if whole:
                self._place(pixels[:whole], _split(target[: whole * tile], 0, whole, tile))
            if rest:
                self._place(pixels[whole, :rest], target[-rest:])
            pixels = pixels[len(rows) :]

    def _place(self, pixels: Tensor, target: Tensor) -> None:
        """Clamp (..., tiles, columns of a tile, phases, channels) into (..., width, channels)."""
        tile, phases = pixels.shape[-3:-1]
        whole, rest = divmod(target.shape[-2], tile * phases)
        if whole:
            part, target = target.tensor_split([whole * tile * phases], -2)
            self._clamp(pixels[..., :whole, :, :, :], _split(part, -2, whole, tile, phases))
        if not rest:
            return
        pixels = pixels[..., whole, :, :, :]
        columns, rest = divmod(rest, phases)
        if columns:
            part, target = target.tensor_split([columns * phases], -2)
            self._clamp(pixels[..., :columns, :, :], _split(part, -2, columns, phases))
        if rest:
            self._clamp(pixels[..., columns, :rest, :], target)

    def _clamp(self, pixels: Tensor, target: Tensor) -> None:
        low, high = self.limits
        if low is None and high is None:
            target.copy_(pixels)
        else:
            torch.clamp(pixels, low, high, out=target)


def _split(x: Tensor, dimension: int, *sizes: int) -> Tensor:
    result: Tensor = x.unflatten(dimension, sizes)  # type: ignore[no-untyped-call]
    return result


def _transform_filter(weight: Tensor, transform: Tensor) -> Tensor:
    """Return float32, shape ((m + 2)^2, channels in, channels out), computed in float64.

    The two axes are swapped on the way: in the input's transform columns come first.
    """
    size = len(transform)
    result = torch.empty(size * size, weight.shape[1], weight.shape[0])
    both = torch.kron(transform, transform)
    # In parts: in float64 all of the largest layer would take half a GiB more.
    for start in range(0, weight.shape[1], 64):
        part = weight[:, start : start + 64].double().permute(3, 2, 1, 0)
        columns = part.reshape(TAPS * TAPS, -1)
        result[:, start : start + 64] = (both @ columns).view(size * size, -1, weight.shape[0])
    return result
