"""Whose an output name is: never another image's that still exists, from wherever the command is run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ..conftest import SMALL, Fcn, MakeImages, journal_of, tree


@pytest.fixture
def two(make_images: MakeImages, tmp_path: Path) -> Path:
    """Two places with images of the same names, in a folder of the same name."""
    make_images(["x.png", "y.png"], folder="A/photos")
    make_images(["y.png", "x.png"], folder="B/photos", size=(50, 40))
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize(
    "inputs", [["photos"], ["photos/*.png"], ["--files-from", "list", "--root", "photos"]]
)
def test_masks_of_other_images_are_safe_whatever_the_working_directory(
    inputs: list[str], two: Path, fcn: Fcn
) -> None:
    for place in ("A", "B"):
        (two / place / "list").write_text("photos/x.png\nphotos/y.png\n")
    out = two / "out"
    fcn("segment", *inputs, *SMALL, "-o", out, cwd=two / "A")
    before = tree(out / "masks"), journal_of(out)
    done = fcn("segment", *inputs, *SMALL, "-o", out, cwd=two / "B", code=1)
    assert f"x.png belongs to {two / 'A/photos/x.png'}" in done.stderr
    assert "2 images: 0 done, 2 failed" in done.stderr
    assert (tree(out / "masks"), journal_of(out)) == before
    assert "nothing to do" in fcn("segment", *inputs, *SMALL, "-o", out, cwd=two / "A").stderr


def test_equal_size_and_time_do_not_make_another_image_the_same(two: Path, fcn: Fcn) -> None:
    for name in ("x.png", "y.png"):
        shutil.copy2(two / "A/photos" / name, two / "B/photos" / name)
    with Image.open(two / "A/photos/x.png") as opened:
        mirrored = opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(two / "B/photos/x.png")
    size = (two / "A/photos/x.png").stat().st_size
    data = (two / "B/photos/x.png").read_bytes()
    assert len(data) <= size + 400
    for place in ("A", "B"):
        (two / place / "photos/x.png").write_bytes(
            (two / place / "photos/x.png").read_bytes().ljust(max(size, len(data)), b"\0")
        )
        os.utime(two / place / "photos/x.png", (1e9, 1e9))
    fcn("segment", two / "A/photos", *SMALL, "-o", "out")
    done = fcn("segment", two / "B/photos", *SMALL, "-o", "out", code=1)
    assert "2 failed" in done.stderr
    # --overwrite redoes what is done; it does not take a name away either.
    assert "2 failed" in fcn("segment", two / "B/photos", *SMALL, "-o", "out", "--overwrite", code=1).stderr


def test_the_same_image_by_another_way_is_the_same(two: Path, fcn: Fcn) -> None:
    fcn("segment", "photos", *SMALL, "-o", two / "out", cwd=two / "A")
    (two / "link").symlink_to(two / "A")
    for inputs in ([two / "A/photos"], [two / "link/photos"], ["../A/photos/../photos"]):
        done = fcn("segment", *inputs, *SMALL, "-o", two / "out", cwd=two / "B")
        assert "nothing to do" in done.stderr


def test_a_moved_input_directory_is_known_again_and_its_new_place_recorded(two: Path, fcn: Fcn) -> None:
    fcn("segment", "A/photos", *SMALL, "-o", "out")
    (two / "A/photos").rename(two / "moved")
    assert "nothing to do" in fcn("segment", "moved", *SMALL, "-o", "out").stderr
    assert {record["path"] for record in journal_of(two / "out").values()} == {
        str(two / "moved/x.png"),
        str(two / "moved/y.png"),
    }
    # Now others under the old path are not them.
    (two / "B/photos").rename(two / "A/photos")
    assert "2 failed" in fcn("segment", "A/photos", *SMALL, "-o", "out", code=1).stderr


@pytest.mark.long
def test_a_new_name_that_is_taken_costs_only_its_image(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["cat.jpg", "dog.jpg"])
    fcn("segment", "made", *SMALL, "-o", "out")
    before = tree(tmp_path / "out/masks")
    make_images(["cat.png", "new.png", "new.gif", "New.jpg"])
    done = fcn("segment", "made", *SMALL, "-o", "out", "--json", code=1)
    assert "6 images: 1 done, 2 done before, 3 failed" in done.stderr
    failed = {r["image"]: r["error"] for r in done.records if r["status"] == "failed"}
    assert set(failed) == {"cat.png", "new.gif", "new.png"}
    assert {error["kind"] for error in failed.values()} == {"NameTaken"}
    assert "made/cat.jpg and made/cat.png would both be written as cat.png" in failed["cat.png"]["message"]
    assert "--keep-extension" in failed["cat.png"]["message"]
    after = tree(tmp_path / "out/masks")
    assert {name: after[name] for name in before} == before
    # Refused images are in the summary, never in the journal: there they would replace the owner's record.
    assert set(journal_of(tmp_path / "out")) == {"cat.jpg", "dog.jpg", "New.jpg"}
    summary = (tmp_path / "out/summary.json").read_text()
    assert '"cat.png"' in summary
    again = fcn("segment", "made", *SMALL, "-o", "out", "-q", code=1)
    assert again.stderr == ""
    make_images(["dog.png"])
    for name, record in journal_of(tmp_path / "out").items():
        os.utime(made / name, ns=(record["mtime_ns"], record["mtime_ns"]))
    again = fcn("segment", "made", *SMALL, "-o", "out", "-q", code=1)
    assert "dog.png" in again.stderr
    assert "cat.png" not in again.stderr


@pytest.mark.long
def test_an_image_has_one_name(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """Inputs that would give recorded images other names stop a run before any work."""
    made = make_images(["a.png", "sub/b.png"])
    make_images(["c.png"], folder="more")
    fcn("segment", "made", *SMALL, "-o", "out")
    before = tree(tmp_path / "out")
    (tmp_path / "list").write_text("made/a.png\nmade/sub/b.png\n")
    for inputs, told in (
        (
            ["made", "more"],
            "2 images would be segmented again under another name, nothing is done: "
            "made/a.png is recorded as a.png and would be made/a.png; give the inputs as before",
        ),
        (
            ["made/sub"],
            "1 image would be segmented again under another name, nothing is done: "
            "made/sub/b.png is recorded as sub/b.png and would be b.png",
        ),
        ([made / "sub/b.png"], "b.png is recorded as sub/b.png and would be b.png"),
        (["--files-from", "list"], "made/a.png is recorded as a.png and would be made/a.png"),
    ):
        for extra in ([], ["-q"], ["--shard", "1/2"], ["--dry-run"]):
            assert told in fcn("segment", *inputs, *SMALL, "-o", "out", *extra, code=2).stderr
            assert tree(tmp_path / "out") == before
    # The ways out: as before, others by themselves, a file with --root; a copy and a link are other images.
    assert "nothing to do" in fcn("segment", "made/sub/b.png", "--root", "made", *SMALL, "-o", "out").stderr
    assert "1 done" in fcn("segment", "more", *SMALL, "-o", "out").stderr
    os.link(made / "a.png", made / "linked.png")
    (made / "pointing.png").symlink_to("a.png")
    shutil.copy(made / "a.png", made / "copy.png")
    assert "3 done, 2 done before" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    # A directory that moved keeps its names.
    made.rename(tmp_path / "moved")
    assert "nothing to do" in fcn("segment", "moved", *SMALL, "-o", "out").stderr
    assert "6 done" in fcn("segment", "moved", "more", *SMALL, "-o", "out", "--overwrite").stderr
    # From then on both names are there, and both are done.
    assert "nothing to do" in fcn("segment", "moved", "more", *SMALL, "-o", "out").stderr
