"""The contract of `make check` refuses imports against the direction, however they are written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = Path(sys.executable).with_name("lint-imports")


def lint(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-cache"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package's sources and of the contract."""
    shutil.copytree(
        ROOT / "fcn_cli", tmp_path / "fcn_cli", ignore=shutil.ignore_patterns("__pycache__", "*.pth")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_keeps_the_contract(project: Path) -> None:
    done = lint(project)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("inputs/discovery", "from ..outputs import journal", "inputs.discovery -> fcn_cli.outputs.journal"),
        ("common/errors", "from fcn_cli.runs import report", "common.errors -> fcn_cli.runs.report"),
        ("models/registry", "import fcn_cli.inputs.discovery", "models.registry -> fcn_cli.inputs.discovery"),
        (
            "runs/report",
            "def late() -> None:\n    from .. import segmenter",
            "runs.report -> fcn_cli.segmenter",
        ),
        (
            "outputs/journal",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..inference.engine import Engine",
            "outputs.journal -> fcn_cli.inference.engine",
        ),
        (
            "cpu/kernels/compiler",
            "from ...common import resources",
            "cpu.kernels.compiler -> fcn_cli.common.resources",
        ),
        (
            "cpu/kernels/compiler",
            "import fcn_cli.models.registry",
            "cpu.kernels.compiler -> fcn_cli.models.registry",
        ),
        ("cpu/kernels/compiler", "from .. import layers", "cpu.kernels.compiler -> fcn_cli.cpu.layers"),
    ],
)
def test_an_import_against_the_direction_is_refused(
    project: Path, module: str, line: str, broken: str
) -> None:
    file = project / "fcn_cli" / f"{module}.py"
    file.write_text(f"{file.read_text()}\n{line}\n")
    done = lint(project)
    assert done.returncode == 1
    assert broken in done.stdout


def test_a_package_without_a_layer_is_refused(project: Path) -> None:
    (project / "fcn_cli/misc").mkdir()
    (project / "fcn_cli/misc/__init__.py").touch()
    done = lint(project)
    assert done.returncode == 1
    assert "fcn_cli.misc" in done.stdout
