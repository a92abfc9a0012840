"""Small files that others prepared: pipes, devices, sparse files and deep JSON end in a message."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import SAMPLES, SMALL, Fcn, tree


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20 << 30)


def _deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def _many_bytes(path: Path) -> None:
    path.write_text("[[0, 0, 0]" + ", [0, 0, 0]" * 200_000 + "]")


HOSTILE = [_pipe, _endless, _sparse, _deep, _many_bytes]
Make = Callable[[Path], None]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and devices are Unix's")


def _image(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return Path(shutil.copy(SAMPLES / "chelsea.png", folder / "a.png"))


@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_settings_file_makes_no_output_directory(fcn: Fcn, tmp_path: Path, make: Make) -> None:
    _image(tmp_path / "tree/sub")
    make(tmp_path / "tree/sub/settings.json")
    done = fcn("segment", "tree", *SMALL, "-o", "out", "--dry-run")
    assert done.stdout.startswith("segment\tsub/a.png")


@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_palette_is_refused(fcn: Fcn, tmp_path: Path, make: Make) -> None:
    _image(tmp_path / "photos")
    make(tmp_path / "colors.json")
    done = fcn("segment", "photos", *SMALL, "-o", "out", "--palette", "colors.json", code=2)
    assert done.stderr.startswith("fcn: --palette colors.json: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("make", [_pipe, _endless, _sparse])
def test_hostile_class_names_are_refused(fcn: Fcn, tmp_path: Path, make: Make) -> None:
    _image(tmp_path / "photos")
    make(tmp_path / "names.txt")
    done = fcn("segment", "photos", *SMALL, "-o", "out", "--class-names", "names.txt", code=2)
    assert done.stderr.startswith("fcn: --class-names names.txt: cannot be read (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
@pytest.mark.parametrize("make", [_pipe, _endless, _sparse, _deep])
def test_hostile_small_files_of_an_output_directory_are_as_missing_ones(
    fcn: Fcn, tmp_path: Path, make: Make
) -> None:
    _image(tmp_path / "photos")
    fcn("segment", "photos", *SMALL, "-o", "out")
    before = tree(tmp_path / "out/masks")
    for name in ("run.json", "classes.json", "summary.json", ".fcn.holder.json"):
        (tmp_path / "out" / name).unlink(missing_ok=True)
        make(tmp_path / "out" / name)
    assert fcn("status", "out", code=None).code in {0, 1}
    assert "classes.json: missing or damaged" in fcn("list", "out", "--class", "cat", code=2).stderr
    assert fcn("list", "out").stdout.strip().endswith("a.png")
    fcn("verify", "out")
    assert (
        "classes.json: missing or damaged"
        in fcn("export", "out", "--format", "coco", "-o", "c.json", code=2).stderr
    )
    fcn("report", "out")
    fcn("segment", "photos", *SMALL, "-o", "out")
    assert tree(tmp_path / "out/masks") == before
    (tmp_path / "out/settings.json").unlink()
    make(tmp_path / "out/settings.json")
    for command in ("report", "verify", "list"):
        assert "not an output directory of fcn" in fcn(command, "out", code=2).stderr
    fcn("segment", "photos", *SMALL, "-o", "out")
    fcn("verify", "out")
