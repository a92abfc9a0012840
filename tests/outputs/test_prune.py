"""`--prune` removes what belongs to images that are gone, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fcn_cli.outputs.directory import OutputDirectory

from ..conftest import SMALL, Fcn, MakeImages, command, journal_of, run_line, tree, without_roots_rights

NAMES = ["a.png", "b.png", "c.png", "sub/d.png", "sub/e.png", "sub/deep/f.png"]


@pytest.fixture
def out(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Path:
    make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,color,overlay")
    return tmp_path / "out"


def stems(output: Path, kind: str = "masks") -> set[str]:
    return {name.rpartition(".")[0] for name in tree(output / kind)}


def test_images_that_are_gone_lose_their_outputs_and_records(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    (tmp_path / "made/b.png").unlink()
    shutil.rmtree(tmp_path / "made/sub/deep")
    line = ("segment", "made", *SMALL, "-o", "out")
    plan = fcn(*line, "--prune", "--dry-run").stdout.splitlines()
    assert [row for row in plan if row.startswith("prune")] == [
        "prune\tb.png\tits image is gone",
        "prune\tsub/deep/f.png\tits image is gone",
    ]
    assert len(stems(out)) == 6
    # Without --prune they stay, and a line says so; which ones, `fcn list` does.
    told = fcn(*line).stderr
    assert told.count("2 recorded images are gone; see --prune") == 1
    assert "nothing to do" in told
    assert fcn(*line, "-q").stderr == ""
    assert "2 recorded images are gone" in fcn(*line, "--shard", "1/1").stderr
    assert len(stems(out)) == 6
    missing = [str(tmp_path / "made" / name) for name in ("b.png", "sub/deep/f.png")]
    assert fcn("list", "out", "--status", "gone").stdout.splitlines() == missing
    assert len(fcn("list", "out").stdout.splitlines()) == 6
    done = fcn(*line, "--prune", "--json")
    assert "4 images: 0 done, 4 done before, 0 failed, 2 pruned" in done.stderr
    assert {r["image"] for r in done.records if r["status"] == "gone"} == {"b.png", "sub/deep/f.png"}
    for kind in ("masks", "color", "overlay"):
        assert stems(out, kind) == {"a", "c", "sub/d", "sub/e"}
        assert not (out / kind / "sub/deep").exists()
    rows = (out / "stats.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"a.png", "c.png", "sub/d.png", "sub/e.png"}
    assert json.loads((out / "summary.json").read_text())["totals"]["images"] == 4
    told = fcn(*line, "--prune").stderr
    assert "nothing to do" in told
    assert "gone" not in told + fcn(*line).stderr
    # The name is free: the image may come back.
    shutil.copy(tmp_path / "made/a.png", tmp_path / "made/b.png")
    assert "1 done, 4 done before" in fcn(*line, "--prune").stderr


def test_what_looks_like_a_disk_that_is_not_mounted_is_refused(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    before = tree(out)
    (tmp_path / "made").rename(tmp_path / "away")
    (tmp_path / "made").mkdir()
    line = ("segment", "made", *SMALL, "-o", "out")
    done = fcn(*line, "--prune", code=2)
    assert "holds no image" in done.stderr
    assert "--prune=force" in done.stderr
    shutil.copy(tmp_path / "away/a.png", tmp_path / "made/a.png")
    done = fcn(*line, "--prune", code=2)
    assert "5 of 6 images, more than half" in done.stderr
    assert tree(out) == before
    fcn(*line, "--prune=force")
    assert stems(out) == {"a"}
    (tmp_path / "made/a.png").unlink()
    assert "1 pruned" in fcn(*line, "--prune=force").stderr
    assert stems(out) == set()


def test_prune_takes_a_directory_and_knows_its_values(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    assert "needs a directory" in fcn("segment", "made/a.png", *SMALL, "-o", "out", "--prune", code=2).stderr
    assert "force" in fcn("segment", "made", *SMALL, "-o", "out", "--prune=all", code=2).stderr
    assert len(stems(out)) == 6


def test_images_elsewhere_and_of_another_directory_stay(
    fcn: Fcn, make_images: MakeImages, out: Path, tmp_path: Path
) -> None:
    make_images(["g.png", "h.png"], folder="other")
    fcn("segment", "other", *SMALL, "-o", "out")
    (tmp_path / "other/g.png").unlink()
    (tmp_path / "made/a.png").unlink()
    done = fcn("segment", "made", *SMALL, "-o", "out", "--prune")
    assert "1 pruned" in done.stderr
    assert stems(out) == {"b", "c", "sub/d", "sub/e", "sub/deep/f", "g", "h"}


@pytest.mark.long
def test_images_below_a_directory_that_cannot_be_listed_stay(
    make_images: MakeImages, out: Path, tmp_path: Path
) -> None:
    prefix = without_roots_rights(tmp_path)
    (tmp_path / "made/a.png").unlink()
    (tmp_path / "made/sub/d.png").unlink()
    (tmp_path / "made/sub").chmod(0)
    try:
        done = run_line(
            [*prefix, *command("segment", "made", *SMALL, "-o", "out", "--prune")], cwd=tmp_path, code=1
        )
    finally:
        (tmp_path / "made/sub").chmod(0o755)
    assert "1 pruned" in done.stderr
    assert stems(out) == {"b", "c", "sub/d", "sub/e", "sub/deep/f"}


def test_a_prune_that_is_killed_leaves_no_orphans(
    fcn: Fcn, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    (tmp_path / "made/b.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(OutputDirectory, "remove_with_directories", killed)
        with pytest.raises(Killed):
            fcn("segment", "made", *SMALL, "-o", "out", "--prune")
    assert "b" in stems(out)
    fcn("segment", "made", *SMALL, "-o", "out")
    for kind in ("masks", "color", "overlay"):
        assert "b" not in stems(out, kind)
    assert "b.png" not in {name for name, r in journal_of(out).items() if r["status"] != "gone"}


def test_a_dangling_link_is_not_gone(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    (tmp_path / "made/b.png").unlink()
    os.symlink("nowhere.png", tmp_path / "made/b.png")
    done = fcn("segment", "made", *SMALL, "-o", "out", "--prune", code=1)
    assert "pruned" not in done.stderr


def test_what_is_left_out_or_elsewhere_is_not_called_gone(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    """Excluded images, those of other inputs, and those of a disk that is not mounted."""
    line = ("segment", "made", *SMALL, "-o", "out")
    assert "gone" not in fcn(*line, "--exclude", "sub/**").stderr
    (tmp_path / "list").write_text("made/a.png\n")
    (tmp_path / "made/b.png").unlink()
    assert "gone" not in fcn("segment", "--files-from", "list", "--root", "made", *line[2:]).stderr
    assert "gone" not in fcn("segment", "made/sub", *SMALL, "-o", "other").stderr
    # Two inputs, one of them an empty directory where images were: it is named, also with --quiet.
    (tmp_path / "made/sub").rename(tmp_path / "away")
    (tmp_path / "made/sub").mkdir()
    told = fcn("segment", "made/sub", "made/a.png", *SMALL, "--root", "made", "-o", "out", "-q").stderr
    empty = f"{tmp_path / 'made/sub'}: this directory is empty; is its disk mounted?"
    assert told == f"fcn: {empty} 3 recorded images are from it\n"
    planned = fcn("segment", "made/sub", "made/a.png", *SMALL, "--root", "made", "-o", "out", "--dry-run")
    assert f"{empty} 3 recorded images are from it\n" in planned.stderr
    # One that never had any is no news to somebody who asked for quiet.
    (tmp_path / "new").mkdir()
    both = ("segment", "new", "made/a.png", *SMALL, "--root", "made", "-o", "out")
    assert fcn(*both, "-q").stderr == ""
    assert f"{tmp_path / 'new'}: this directory is empty" in fcn(*both).stderr


@pytest.mark.slow
def test_a_failure_that_was_about_no_image_goes_when_it_is_over(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """Of directories that can be listed now or are gone, of a dead link, and of a file of an earlier list."""
    made = make_images(["a.png", "locked/b.png", "hidden/c.png", "empty/d.png"])
    (made / "empty/d.png").unlink()
    (made / "dead.png").symlink_to("nowhere")
    for name in ("locked", "hidden", "empty"):
        (made / name).chmod(0)
    line = [*without_roots_rights(tmp_path), *command("segment", "made", *SMALL, "-o", "out")]
    run_line(line, cwd=tmp_path, code=1)
    make_images(["e.png"], folder="more")
    (tmp_path / "list").write_text("more/e.png\nmore/lost.png\n")
    fcn("segment", "--files-from", "list", *SMALL, "-o", "out", code=1)

    def failed() -> set[str]:
        paths = fcn("list", "out", "--status", "failed").stdout.splitlines()
        totals = json.loads((tmp_path / "out/summary.json").read_text())["totals"]
        assert totals["failed"] == len(paths)
        return {Path(path).name for path in paths}

    assert failed() == {"locked", "hidden", "empty", "dead.png", "lost.png"}
    # Nothing is new, yet what is over goes: one can be listed, one is gone, one link is.
    (made / "empty").chmod(0o700)
    (made / "hidden").rename(tmp_path / "elsewhere")
    (made / "dead.png").unlink()
    run_line(line, cwd=tmp_path, code=1)
    assert failed() == {"locked", "lost.png"}
    (made / "locked").chmod(0o700)
    assert "2 images: 1 done, 1 done before, 0 failed" in run_line(line, cwd=tmp_path).stderr
    assert failed() == {"lost.png"}
    # A list that no longer names what was not there.
    (tmp_path / "list").write_text("more/e.png\n")
    fcn("segment", "--files-from", "list", *SMALL, "-o", "out")
    assert failed() == set()
    assert fcn("report", "out").code == 0
    assert "0 failed" in fcn("status", "out").stdout
