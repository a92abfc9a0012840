"""`--prune` removes what belongs to photos that are gone, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fcn_cli.outputs.directory import OutputDirectory

from ..conftest import SMALL, Fcn, MakePhotos, command, journal_of, run_line, tree, without_roots_rights

NAMES = ["a.png", "b.png", "c.png", "sub/d.png", "sub/e.png", "sub/deep/f.png"]


@pytest.fixture
def out(fcn: Fcn, make_photos: MakePhotos, tmp_path: Path) -> Path:
    make_photos(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,color,overlay")
    return tmp_path / "out"


def stems(output: Path, kind: str = "masks") -> set[str]:
    return {name.rpartition(".")[0] for name in tree(output / kind)}


def test_photos_that_are_gone_lose_their_outputs_and_records(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    (tmp_path / "made/b.png").unlink()
    shutil.rmtree(tmp_path / "made/sub/deep")
    line = ("segment", "made", *SMALL, "-o", "out")
    plan = fcn(*line, "--prune", "--dry-run").stdout.splitlines()
    assert [row for row in plan if row.startswith("prune")] == [
        "prune\tb.png\tits photo is gone",
        "prune\tsub/deep/f.png\tits photo is gone",
    ]
    assert len(stems(out)) == 6
    # Without --prune they stay.
    assert "nothing to do" in fcn(*line).stderr
    assert len(stems(out)) == 6
    done = fcn(*line, "--prune", "--json")
    assert "4 images: 0 done, 4 done before, 0 failed, 2 pruned" in done.stderr
    assert {r["image"] for r in done.records if r["status"] == "gone"} == {"b.png", "sub/deep/f.png"}
    for kind in ("masks", "color", "overlay"):
        assert stems(out, kind) == {"a", "c", "sub/d", "sub/e"}
        assert not (out / kind / "sub/deep").exists()
    rows = (out / "stats.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"a.png", "c.png", "sub/d.png", "sub/e.png"}
    assert json.loads((out / "summary.json").read_text())["totals"]["images"] == 4
    assert "nothing to do" in fcn(*line, "--prune").stderr
    # The name is free: the photo may come back.
    shutil.copy(tmp_path / "made/a.png", tmp_path / "made/b.png")
    assert "1 done, 4 done before" in fcn(*line, "--prune").stderr


def test_what_looks_like_a_disk_that_is_not_mounted_is_refused(fcn: Fcn, out: Path, tmp_path: Path) -> None:
    before = tree(out)
    (tmp_path / "made").rename(tmp_path / "away")
    (tmp_path / "made").mkdir()
    line = ("segment", "made", *SMALL, "-o", "out")
    done = fcn(*line, "--prune", code=2)
    assert "holds no photo" in done.stderr
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


def test_photos_elsewhere_and_of_another_directory_stay(
    fcn: Fcn, make_photos: MakePhotos, out: Path, tmp_path: Path
) -> None:
    make_photos(["g.png", "h.png"], folder="other")
    fcn("segment", "other", *SMALL, "-o", "out")
    (tmp_path / "other/g.png").unlink()
    (tmp_path / "made/a.png").unlink()
    done = fcn("segment", "made", *SMALL, "-o", "out", "--prune")
    assert "1 pruned" in done.stderr
    assert stems(out) == {"b", "c", "sub/d", "sub/e", "sub/deep/f", "g", "h"}


@pytest.mark.long
def test_photos_below_a_directory_that_cannot_be_listed_stay(
    make_photos: MakePhotos, out: Path, tmp_path: Path
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
