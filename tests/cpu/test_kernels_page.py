"""docs/kernels.md says what the code does: its tables, drawings, numbers and names are compared with it."""

from __future__ import annotations

import importlib
import importlib.util
import re
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fcn_cli.cpu import winograd
from fcn_cli.cpu.kernels import amx, argmax, matmul, simd_targets, tile_transforms
from fcn_cli.cpu.kernels.simd_targets import AVX512, SIMD_TARGETS
from fcn_cli.cpu.kernels.tile_transforms import TileGrid
from fcn_cli.cpu.toom_cook import POINTS, Transforms

from . import references

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line begins so."""
    lines = PAGE[PAGE.index(f"\n{heading}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def drawing(first_line: str) -> list[str]:
    """Return the lines of the indented block that begins so."""
    return PAGE[PAGE.index(first_line) :].split("\n\n")[0].splitlines()


def test_the_matrices() -> None:
    lines = drawing("    G (filter)  ")
    starts = [lines[0].index(name) for name in ("G (filter)", "B (input)", "A (output)")]
    matrices = Transforms.of(4)
    for start, stop, matrix in zip(
        starts, [*starts[1:], None], (matrices.filter, matrices.input, matrices.output), strict=True
    ):
        # A column's numbers may begin left of its heading.
        cut = slice(max(start - 4, 0), stop - 4 if stop else None)
        shown = [[float(Fraction(entry)) for entry in line[cut].split()] for line in lines[1:]]
        np.testing.assert_array_equal([row for row in shown if row], matrix)


def test_the_points() -> None:
    bold = re.findall(r"\| \*\*F\((\d)x\d, 3x3\)\*\* \| \*\*([^*]+)\*\* \| \*\*([\d.]+)\*\*", PAGE)
    assert {int(tile): tuple(map(Fraction, points.split(", "))) for tile, points, _ in bold} == POINTS
    for tile, multiplications in re.findall(r"F\((\d)x\d, 3x3\)\W+\| [^|]+ \| \W*([\d.]+)", PAGE):
        assert float(multiplications) == round(((int(tile) + 2) / int(tile)) ** 2, 2)


def test_the_drawing_of_tiles() -> None:
    shown = np.array([line.split() for line in drawing("    0 2 0 2")], int)
    height, width = shown.shape
    grid = TileGrid(height, width, dilation=2, tile=4)
    drawn = np.full_like(shown, -1)
    for number, (rows, columns) in enumerate(references.tile_positions(grid)):
        for row in rows:
            for column in columns:
                if row < grid.height and column < grid.width:
                    drawn[row, column] = number
    np.testing.assert_array_equal(shown, drawn)


def test_the_table_of_register_blocking() -> None:
    rows = table("| target | float32 per vector")
    assert [row[0].split()[0] for row in rows] == [target.name for target in SIMD_TARGETS]
    for target, (_, lanes, shape, registers, used, loads) in zip(SIMD_TARGETS, rows, strict=True):
        assert int(lanes) == target.lanes
        assert shape == f"{target.rows} x {target.vectors}"
        needed = (target.rows * target.vectors, target.vectors, 1)
        assert used == " + ".join(map(str, needed))
        assert sum(needed) <= int(registers.split()[0])
        assert float(loads) == round((target.rows + target.vectors) / (target.rows * target.vectors), 2)
        assert matmul.DEPTH % target.lanes == 0


def test_the_table_of_task_fields() -> None:
    fields = {
        "pointwise": matmul._POINTWISE,
        "batched_product": matmul._BATCHED,
        "transform_input": tile_transforms._INPUT,
        "transform_output": tile_transforms._OUTPUT,
        "argmax": argmax._FIELDS,
        "amx_convolution": amx._CONVOLUTION,
    }
    shown = {
        name.strip("`"): tuple(re.findall(r"\w+", cell)) for name, cell in table("| kernel | its fields")
    }
    assert shown == fields


def test_the_cost_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simd_targets, "simd_target", lambda: AVX512)
    costs = winograd.COSTS
    assert f"(height · width + {costs.direct_filters})" in PAGE
    assert f"(rows + {costs.filters})" in PAGE
    assert f"({costs.transform_in} · in + {costs.transform_out} · out)" in PAGE
    rows = table("| height x width, dilation")
    assert len(rows) > 3
    for shape, channels, four, six, chosen in rows:
        height, width, dilation = map(int, re.findall(r"\d+", shape))
        inward, outward = map(int, re.findall(r"\d+", channels))
        direct = 9 * inward * outward * (height * width + costs.direct_filters)
        for tile, shown in ((4, four), (6, six)):
            cost = winograd.winograd_cost(TileGrid(height, width, dilation, tile), inward, outward, costs)
            assert float(shown) == round(cost / direct, 2)
        best = winograd.choose_tile(height, width, dilation, inward, outward)
        assert chosen == str(best or "direct")


def module_named(name: str) -> str | None:
    places = ("fcn_cli.cpu", "fcn_cli.cpu.kernels")
    return next((f"{place}.{name}" for place in places if importlib.util.find_spec(f"{place}.{name}")), None)


def test_names_with_a_dot_exist() -> None:
    names = set(re.findall(r"`(\w+)\.(\w+)`", PAGE)) - {("kernel", "loop"), ("pyproject", "toml")}
    assert len(names) > 12
    for module, name in names:
        path = module_named(module)
        assert path, module
        assert hasattr(importlib.import_module(path), name), f"{module}.{name}"


def test_numbers_beside_a_constant_are_its_value() -> None:
    shown = re.findall(r"(\d+)( KiB)?[\w ,]* \(`(\w+)\.(\w+)`\)", PAGE)
    assert len(shown) >= 5
    for number, unit, module, name in shown:
        path = module_named(module)
        assert path
        assert getattr(importlib.import_module(path), name) == int(number) * (1024 if unit else 1), name


def test_the_excerpt_is_in_the_code() -> None:
    (excerpt,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    source = (ROOT / "fcn_cli/cpu/kernels/matmul.py").read_text(encoding="utf-8")
    assert textwrap.indent(excerpt, " " * 12) in source


def test_commands_and_tests_exist() -> None:
    for module in re.findall(r"python -m\s+([\w.]+)", PAGE):
        assert importlib.util.find_spec(module), module
    tests = re.findall(r"`(test_\w+)`", PAGE)
    assert len(tests) > 4
    for name in tests:
        assert (ROOT / "tests/cpu" / f"{name}.py").is_file(), name
