"""What must be quick is quick because torch stays out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fcn_cli import __version__

from ..conftest import SMALL, Fcn, MakeImages

REPORT = (
    "import sys; from fcn_cli.__main__ import run; code = run(sys.argv[1:]); "
    "heavy = {'torch', 'torch._dynamo', 'torch._inductor', 'torchvision', 'sympy'} & set(sys.modules); "
    "print('HEAVY', sorted(heavy), file=sys.stderr); sys.exit(code)"
)


def heavy_modules(*arguments: str, cwd: Path | None = None, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stderr.split("HEAVY ")[1].strip()


def test_help_and_version_import_no_torch() -> None:
    assert heavy_modules("--help") == "[]"
    assert heavy_modules("segment", "--help") == "[]"
    assert heavy_modules("--version") == "[]"


@pytest.mark.long
def test_commands_that_read_an_output_directory_import_no_torch(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL)
    assert heavy_modules("status", "fcn_output", cwd=tmp_path) == "[]"
    assert heavy_modules("verify", "fcn_output", cwd=tmp_path) == "[]"
    assert heavy_modules("list", "fcn_output", cwd=tmp_path) == "[]"
    for form in ("coco", "voc", "yolo"):
        assert heavy_modules("export", "fcn_output", "--format", form, "-o", form, cwd=tmp_path) == "[]"


def test_version(fcn: Fcn) -> None:
    assert fcn("--version").stdout == f"fcn {__version__}\n"


@pytest.mark.long
def test_a_run_needs_neither_torchvision_nor_pytorchs_compiler(
    make_images: MakeImages, tmp_path: Path
) -> None:
    """Either takes longer to import than the rest of PyTorch."""
    make_images(["a.png"])
    every_kind = ("--write", "masks,color,overlay,confidence,cutout")
    for how in ((), ("--kernels", "torch", "--precision", "bf16", "--scales", "1,0.5", "--flip")):
        loaded = heavy_modules("segment", "made", *SMALL, *how, *every_kind, "--overwrite", cwd=tmp_path)
        assert loaded == "['torch']"


@pytest.mark.long
def test_a_run_with_nothing_to_do_imports_no_torch(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "b.png"])
    fcn("segment", "made", *SMALL)
    assert heavy_modules("segment", "made", *SMALL, cwd=tmp_path) == "[]"
    # Kinds that can be made from the masks on disk need no network either.
    assert heavy_modules("segment", "made", *SMALL, "--write", "overlay", cwd=tmp_path) == "[]"
    assert (tmp_path / "fcn_output/overlay/a.jpg").is_file()


def test_a_dry_run_builds_and_writes_nothing(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    assert heavy_modules("segment", "made", *SMALL, "--dry-run", cwd=tmp_path) == "[]"
    assert not (tmp_path / "fcn_output").exists()


def test_a_device_that_is_not_there_is_refused_before_weights_are_looked_for(
    fcn: Fcn, make_images: MakeImages
) -> None:
    make_images(["a.png"])
    for device in ("cuda:99", "tpu"):
        # ResNet-50's weights are not on this machine either.
        for line in (("made",), ("made/a.png", "-o", "cat.png")):
            done = fcn("segment", *line, "--offline", "--device", device, code=2)
            assert f"--device {device}" in done.stderr
            assert "weights" not in done.stderr
    assert [path.name for path in Path().iterdir()] == ["made"]
