"""docs/kernels.md says what the code does: its table of targets, numbers and names are compared with it."""

from __future__ import annotations

import importlib
import importlib.util
import re
import textwrap
from fractions import Fraction
from pathlib import Path

from fcn_cli.cpu.kernels import matmul
from fcn_cli.cpu.kernels.simd_targets import SIMD_TARGETS
from fcn_cli.cpu.toom_cook import POINTS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line begins so."""
    lines = PAGE[PAGE.index(f"\n{heading}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_results_have_the_points_that_are_used() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    bold = re.findall(r"\| \*\*F\((\d)x\d, 3x3\)\*\* \| \*\*([^*]+)\*\* \| \*\*([\d.]+)\*\*", results)
    assert {int(tile): tuple(map(Fraction, points.split(", "))) for tile, points, _ in bold} == POINTS
    for tile, multiplications in re.findall(r"F\((\d)x\d, 3x3\)\W+\| [^|]+ \| \W*([\d.]+)", results):
        assert float(multiplications) == round(((int(tile) + 2) / int(tile)) ** 2, 2)


def test_the_table_of_register_blocking() -> None:
    rows = table("| target | float32 per vector")
    assert [row[0].split()[0] for row in rows] == [target.name for target in SIMD_TARGETS]
    for target, (_, lanes, shape, registers) in zip(SIMD_TARGETS, rows, strict=True):
        assert int(lanes) == target.lanes
        assert shape == f"{target.rows} x {target.vectors}"
        assert target.rows * target.vectors + target.vectors + 1 <= int(registers)
        assert matmul.DEPTH % target.lanes == 0


def module_named(name: str) -> str | None:
    places = ("fcn_cli.cpu", "fcn_cli.cpu.kernels")
    return next((f"{place}.{name}" for place in places if importlib.util.find_spec(f"{place}.{name}")), None)


def test_names_with_a_dot_exist() -> None:
    names = set(re.findall(r"`(\w+)\.(\w+)`", PAGE)) - {("kernel", "loop")}
    assert len(names) > 8
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
