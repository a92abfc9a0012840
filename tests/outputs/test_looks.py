"""Colours and overlays change without the network; whatever happens, a record says how its files look."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_cli.common import palettes
from fcn_cli.outputs.directory import OutputDirectory

from ..conftest import SMALL, Fcn, MakeImages, journal_of, run_process, tree

NAMES = [f"p{i}.png" for i in range(4)]
VOC = ("--palette", "voc")
IN_FORKS = """\
import sys
sys.modules["torch"] = sys.modules["multiprocessing.forkserver"] = None
from fcn_cli.__main__ import main
main()
"""


@pytest.fixture
def out(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Path:
    make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,color,overlay")
    return tmp_path / "out"


def palette_of(path: Path) -> list[int]:
    with Image.open(path) as image:
        return list(image.getpalette() or [])


def assert_looks(output: Path, palette: str) -> None:
    expected = {"hub": palettes.hub, "voc": palettes.voc}[palette]().flatten().tolist()
    for name, record in journal_of(output).items():
        color = output / "color" / name
        assert palette_of(color) == expected, name
        assert record["looks"]["color"] == palette
        with Image.open(color) as image, Image.open(output / "masks" / name) as mask:
            assert np.array_equal(np.array(image), np.array(mask))


@pytest.mark.long
def test_another_palette_needs_neither_overwrite_nor_the_network(out: Path, tmp_path: Path, fcn: Fcn) -> None:
    masks, overlays = tree(out / "masks"), tree(out / "overlay")
    times = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    fcn("segment", "made", *SMALL, "-o", "out", *VOC, "--write", "masks,color,overlay")
    assert tree(out / "masks") == masks
    assert {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()} == times
    assert_looks(out, "voc")
    assert json.loads((out / "classes.json").read_text())["15"]["color"] == [192, 128, 128]
    fresh = fcn("segment", "made", *SMALL, "-o", "new", *VOC, "--write", "masks,color,overlay")
    assert "4 done" in fresh.stderr
    assert tree(out / "overlay") == tree(tmp_path / "new/overlay")
    assert tree(out / "color") == tree(tmp_path / "new/color")
    assert tree(out / "overlay") != overlays or not np.array(Image.open(out / "masks/p0.png")).any()
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out", *VOC).stderr


@pytest.mark.long
def test_repainting_loads_no_torch_and_decodes_in_forks(out: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    write = ("--write", "masks,color,overlay")
    done = subprocess.run(
        [sys.executable, "-c", IN_FORKS, "segment", "made", *SMALL, "-o", "out", *VOC, *write],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 images: 4 done" in done.stderr
    assert_looks(out, "voc")


def test_only_the_kinds_that_are_asked_for_are_repainted(out: Path, fcn: Fcn) -> None:
    fcn("segment", "made", *SMALL, "-o", "out", *VOC, "--write", "color")
    records = journal_of(out)
    assert {record["looks"]["overlay"] for record in records.values()} == {"hub, opacity 0.5, borders"}
    assert_looks(out, "voc")
    done = fcn("segment", "made", *SMALL, "-o", "out", "--write", "overlay")
    assert "nothing to do" in done.stderr


@pytest.mark.long
def test_another_palette_for_one_image_leaves_the_others_described(out: Path, fcn: Fcn) -> None:
    before = (out / "settings.json").read_bytes()
    fcn("segment", "made/p0.png", *SMALL, "-o", "out", *VOC, "--overwrite", "--write", "masks,color,overlay")
    assert (out / "settings.json").read_bytes() == before
    looks = {name: record["looks"]["color"] for name, record in journal_of(out).items()}
    assert looks == {"p0.png": "voc", "p1.png": "hub", "p2.png": "hub", "p3.png": "hub"}
    assert "3 done, 1 done before" in fcn("segment", "made", *SMALL, "-o", "out", *VOC).stderr
    assert_looks(out, "voc")


@pytest.mark.long
def test_colours_alone_are_repainted_from_themselves(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "color")
    plan = fcn("segment", "made", *SMALL, "-o", "out", "--write", "color", *VOC, "--dry-run").stdout
    assert plan.splitlines()[0] == "repaint\tp0.png\tcolor was hub, is now voc"
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "color", *VOC)
    fcn("segment", "made", *SMALL, "-o", "fresh", "--write", "color", *VOC)
    assert tree(Path("out/color")) == tree(Path("fresh/color"))


class Killed(BaseException):
    """Stands for a kill: nothing in the command handles it."""


KILLS = {
    "before a file": ("before", 2),
    "after a file, before its record": ("after", 2),
    "after many": ("after", 3),
}


@pytest.mark.long
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("when", "nth"), KILLS.values(), ids=KILLS.keys())
@pytest.mark.parametrize("then", ["voc", "hub"])
def test_a_palette_change_that_is_killed_is_finished_or_undone(
    when: str, nth: int, overwrite: bool, then: str, out: Path, fcn: Fcn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed half-way; then the same without --overwrite, or with the old palette again."""
    written = 0
    real: Callable[..., object] = OutputDirectory.write

    def write(*arguments: object) -> object:
        nonlocal written
        written += 1
        if when == "before" and written == nth:
            raise Killed
        result = real(*arguments)
        if when == "after" and written >= nth:
            raise Killed
        return result

    arguments = ["segment", "made", *SMALL, "-o", "out", "--workers", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(OutputDirectory, "write", write)
        patch.setattr("fcn_cli.outputs.write_queue._thread_count", lambda: 1)
        with pytest.raises(Killed):
            fcn(*arguments, *VOC, *(["--overwrite"] if overwrite else []))
    for record in journal_of(out).values():
        if "color" in record["looks"]:
            expected = palettes.load(record["looks"]["color"]).flatten().tolist()
            assert palette_of(out / "color" / record["image"]) == expected
    fcn(*arguments, "--palette", then)
    assert_looks(out, then)
    assert "nothing to do" in fcn(*arguments, "--palette", then).stderr


def test_a_lost_settings_file_is_written_again_when_all_records_agree(out: Path, fcn: Fcn) -> None:
    before = json.loads((out / "settings.json").read_text())
    masks = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    for damage in (None, b"", b'{"fcn_settings": 2, "lab'):
        (out / "settings.json").unlink()
        if damage is not None:
            (out / "settings.json").write_bytes(damage)
        done = fcn("segment", "made", *SMALL, "-o", "out", "-q")
        assert "settings.json was missing or damaged: written again" in done.stderr
        assert json.loads((out / "settings.json").read_text()) == before
    assert {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()} == masks
    # Another palette and a lost settings file: repainted, nothing mixed.
    (out / "settings.json").unlink()
    fcn("segment", "made", *SMALL, "-o", "out", *VOC)
    assert_looks(out, "voc")


def test_a_lost_settings_file_and_other_settings_are_refused(out: Path, fcn: Fcn) -> None:
    (out / "settings.json").unlink()
    before = tree(out)
    done = fcn("segment", "made", *SMALL[:-1], "80", "-o", "out", code=2)
    assert "settings.json: missing or damaged" in done.stderr
    assert "--overwrite" in done.stderr
    assert tree(out) == before
    fcn("segment", "made", *SMALL[:-1], "80", "-o", "out", "--overwrite")
    assert "nothing to do" in fcn("segment", "made", *SMALL[:-1], "80", "-o", "out").stderr


def test_a_directory_of_another_schema_is_refused_or_redone(out: Path, fcn: Fcn) -> None:
    content = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps({**content, "fcn_settings": 1}))
    (out / "manifest.jsonl").write_text('{"image": "p0.png", "source": "made/p0.png", "status": "ok"}\n')
    done = fcn("segment", "made", *SMALL, "-o", "out", code=2)
    assert "another version of fcn" in done.stderr
    assert "--overwrite" in done.stderr
    assert "--output" in done.stderr
    done = fcn("segment", "made", *SMALL, "-o", "out", "--overwrite")
    assert "damaged" not in done.stderr
    assert "4 images: 4 done" in done.stderr
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    (out / "settings.json").write_text('{"something": "else"}')
    assert "not written by fcn" in fcn("segment", "made", *SMALL, "-o", "out", code=2).stderr


def test_a_mask_that_is_not_what_its_record_says_is_not_painted_from(out: Path, fcn: Fcn) -> None:
    whole = tree(out / "masks")
    mask = out / "masks/p1.png"
    with Image.open(mask) as opened:
        other = Image.fromarray(np.full_like(np.array(opened), 7))
    record = journal_of(out)["p1.png"]
    other.save(mask)
    # The same size in bytes, so that only its pixels tell.
    mask.write_bytes(mask.read_bytes().ljust(record["output_bytes"][0], b"\0"))
    fcn("segment", "made", *SMALL, "-o", "out", *VOC)
    assert tree(out / "masks") == whole
    assert_looks(out, "voc")


def test_a_run_in_a_process_of_its_own_repaints_too(out: Path, tmp_path: Path) -> None:
    run_process("segment", "made", *SMALL, "-o", "out", *VOC, cwd=tmp_path)
    assert_looks(out, "voc")


def test_an_overwrite_that_is_refused_leaves_the_journal_of_another_schema(
    out: Path, fcn: Fcn, make_images: MakeImages
) -> None:
    content = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps({**content, "fcn_settings": 1}))
    (out / "manifest.jsonl").write_text('{"image": "p0.png", "status": "ok"}\n')
    before = tree(out)
    make_images(["p0.gif"])
    done = fcn("segment", "made", *SMALL, "-o", "out", "--overwrite", code=2)
    assert "would both be written as p0.png" in done.stderr
    assert tree(out) == before
