"""No module, class, function body or parameter list of the package exceeds its size limit."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcn_cli.cli.app import app

PACKAGE = Path(__file__).parent.parent / "fcn_cli"
MODULE_LINES, CLASS_LINES, BODY_LINES, PARAMETERS = 300, 150, 50, 7


def line_count(first: ast.AST, last: ast.AST) -> int:
    return int(getattr(last, "end_lineno", 0)) - int(getattr(first, "lineno", 0)) + 1


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body, without its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return line_count(body[0], body[-1]) if body else 0


def parameter_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return (
        len([name for name in named if name not in {"self", "cls"}]) + bool(given.vararg) + bool(given.kwarg)
    )


def too_large(source: str, commands: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the names of what exceeds a limit; "" is the module, and `commands` may have any parameters."""
    if len(source.splitlines()) > MODULE_LINES:
        yield ""
    yield from _too_large(ast.parse(source), "", commands)


def _too_large(parent: ast.AST, prefix: str, commands: frozenset[str]) -> Iterator[str]:
    for node in ast.iter_child_nodes(parent):
        inside = prefix
        if isinstance(node, ast.ClassDef):
            inside = f"{prefix}{node.name}."
            if line_count(node, node) > CLASS_LINES:
                yield f" {prefix}{node.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{prefix}{node.name}."
            # A GPU's kernel takes numbers and pointers, one by one.
            exempt = prefix + node.name in commands or is_gpu_kernel(node)
            parameters = 0 if exempt else parameter_count(node)
            if body_lines(node) > BODY_LINES or parameters > PARAMETERS:
                yield f" {prefix}{node.name}()"
        yield from _too_large(node, inside, commands)


def is_gpu_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is compiled by Triton."""
    return any(ast.unparse(decorator).startswith("triton.jit") for decorator in node.decorator_list)


def registered(typer_app: Any) -> Iterator[tuple[str, str]]:
    """Yield the (module, name) of every function that is a command of the application."""
    for command in typer_app.registered_commands:
        yield command.callback.__module__, command.callback.__name__
    for group in typer_app.registered_groups:
        yield from registered(group.typer_instance)


def test_nothing_exceeds_its_size_limit() -> None:
    commands = set(registered(app))
    assert ("fcn_cli.cli.segment", "segment") in commands
    assert ("fcn_cli.cli.weights", "fetch") in commands
    found = set()
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        module = ".".join(["fcn_cli", *place.with_suffix("").parts])
        names = frozenset(name for owner, name in commands if owner == module)
        found |= {f"{place.as_posix()}{name}" for name in too_large(path.read_text(), names)}
    assert found == set()


def test_each_limit_holds_to_the_line() -> None:
    long_body = "\n    ".join(["x = 1"] * (BODY_LINES + 1))
    wide = ", ".join(f"a{number}" for number in range(PARAMETERS))
    samples = {
        "x = 1\n" * MODULE_LINES: [],
        "x = 1\n" * (MODULE_LINES + 1): [""],
        "class A:\n" + "    x = 1\n" * (CLASS_LINES - 1): [],
        "class A:\n" + "    x = 1\n" * CLASS_LINES: [" A"],
        f'def f():\n    """Text."""\n    {long_body.removesuffix("    x = 1")}': [],
        f"def f():\n    {long_body}": [" f()"],
        f"class A:\n  def f(self, {wide}): pass": [],
        f"class A:\n  async def f(self, {wide}, *rest): pass": [" A.f()"],
        f"def f({wide}, *, b): pass": [" f()"],
    }
    for source, expected in samples.items():
        assert list(too_large(source)) == expected, source
    assert not list(too_large(f"def f({wide}, b): pass", frozenset({"f"})))
