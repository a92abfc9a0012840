"""The matrices of F(m, 3): Winograd's minimal filtering by the Toom-Cook construction, exactly, in fractions.

The product s of a polynomial g with 3 coefficients and h with m has m + 2, so its values at m + 2 points
determine it, and each is a value of g times one of h: s = V^-1 [(V_3 g) * (V_m h)], with the matrices V, V_3
and V_m of the points' powers (at infinity, a polynomial's value is its highest coefficient). For a fixed g
this is a linear map from h to s, and F(m, 3) is its transpose: y = V_m^T [(V_3 g) * (V^-T d)].

Lagrange's formula gives V^-1. Its denominators go into the filter's matrix, which is applied once and in
float64; so all other entries are short binary fractions, exact in float32. The construction is that of Lavin
and Gray ("Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

TAPS = 3
"""The length of a filter."""

Matrix = tuple[tuple[float, ...], ...]
"""A small matrix, row by row."""

# With infinity, x -> -1/x maps these onto themselves: of the sets tried, they lose the fewest digits.
_HALF = Fraction(1, 2)
POINTS: dict[int, tuple[Fraction, ...]] = {
    4: (Fraction(0), Fraction(1), Fraction(-1), _HALF, Fraction(-2)),
    6: (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), _HALF, -_HALF),
}
"""Tile size m → m + 1 finite interpolation points; the last point is always infinity."""


@dataclass(frozen=True)
class Transforms:
    """The three matrices of F(m, 3): y = output · [(filter · g) * (input · d)].

    Here g are the 3 taps of a filter, d the m + 2 elements of a tile, y the m elements of the result, and *
    multiplies element by element. Shapes: `output` (m, m + 2), `filter` (m + 2, 3), `input` (m + 2, m + 2).
    """

    output: Matrix
    filter: Matrix
    input: Matrix

    @classmethod
    def of(cls, tile: int) -> Transforms:
        """Return the transforms for a tile size in `POINTS`."""
        points = POINTS[tile]
        size = tile + TAPS - 1
        all_roots = [Fraction(1)]
        for point in points:
            all_roots = _times_root(all_roots, point)
        outputs = [[point**row for point in points] + [Fraction(row == tile - 1)] for row in range(tile)]
        filters, inputs = [], []
        for index, point in enumerate(points):
            scale, other_roots = Fraction(1), [Fraction(1)]
            for other in points[:index] + points[index + 1 :]:
                scale *= point - other
                other_roots = _times_root(other_roots, other)
            filters.append([point**power / scale for power in range(TAPS)])
            inputs.append(other_roots + [Fraction(0)] * (size - len(other_roots)))
        filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
        inputs.append(all_roots)
        return cls(_matrix(outputs), _matrix(filters), _matrix(inputs))


def _times_root(polynomial: Sequence[Fraction], root: Fraction) -> list[Fraction]:
    """Return the coefficients, lowest first, of a polynomial times (x - root)."""
    shifted = [Fraction(0), *polynomial]
    scaled = [*(root * coefficient for coefficient in polynomial), Fraction(0)]
    return [a - b for a, b in zip(shifted, scaled, strict=True)]


def _matrix(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in rows)
