"""A second run does only what is missing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from fcn_cli.models.registry import BACKBONES

from ..conftest import SMALL, Fcn, MakeImages, journal_of, start_and_wait_for_records, tree

NAMES = [f"p{i}.png" for i in range(4)]
OFFICIAL = BACKBONES["efficientnet_lite0"].sha256[:8]


def changed(output: Path, before: dict[str, int]) -> set[str]:
    """Return the files whose modification time is not as before, apart from the lock's."""
    now = times(output)
    return {name for name in now if now[name] != before.get(name)}


def times(output: Path) -> dict[str, int]:
    return {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file() and not path.name.startswith(".fcn")
    }


@pytest.fixture
def out(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Path:
    make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out")
    return tmp_path / "out"


PROJECTIONS = {"manifest.jsonl", "stats.csv", "summary.json", "settings.json", "classes.json", "run.json"}


# What says when the last run ended, also when it had nothing to do.
LAST_RUN = {"summary.json", "run.json"}


def test_the_second_run_touches_only_what_says_when_it_ended(fcn: Fcn, out: Path) -> None:
    before = times(out)
    summary = json.loads((out / "summary.json").read_text())
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    assert changed(out, before) == LAST_RUN
    after = json.loads((out / "summary.json").read_text())
    assert after["totals"] == summary["totals"]
    assert (after["run"]["ok"], after["run"]["skipped"]) == (0, len(NAMES))
    assert after["run"]["end"] >= summary["run"]["end"]
    # How the images were computed is not lost.
    assert after["segmented"] == summary["segmented"]
    assert after["segmented"]["device"] == summary["run"]["device"]


def test_a_new_image_is_done_alone(fcn: Fcn, out: Path, make_images: MakeImages) -> None:
    make_images([*NAMES, "new.png"])
    # The helper wrote the others anew, with the same bytes: put their times back.
    for name, record in journal_of(out).items():
        os.utime(out.parent / "made" / name, ns=(record["mtime_ns"], record["mtime_ns"]))
    before = times(out)
    assert "1 done, 4 done before, 0 failed" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    assert changed(out, before) - PROJECTIONS == {"masks/new.png", "color/new.png"}


def test_a_deleted_mask_is_redone_alone(fcn: Fcn, out: Path) -> None:
    before = times(out)
    whole = tree(out / "masks")
    (out / "masks/p1.png").unlink()
    fcn("segment", "made", *SMALL, "-o", "out")
    assert changed(out, before) - PROJECTIONS == {"masks/p1.png", "color/p1.png"}
    assert tree(out / "masks") == whole


def test_a_cut_off_mask_is_redone(fcn: Fcn, out: Path) -> None:
    whole = tree(out / "masks")
    mask = out / "masks/p2.png"
    mask.write_bytes(mask.read_bytes()[:-5])
    fcn("segment", "made", *SMALL, "-o", "out")
    assert tree(out / "masks") == whole


def test_a_missing_kind_is_added_without_touching_the_others(fcn: Fcn, out: Path) -> None:
    before = times(out)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,color,overlay")
    assert changed(out, before) - PROJECTIONS == {f"overlay/{Path(name).stem}.jpg" for name in NAMES}
    assert journal_of(out)["p0.png"]["outputs"] == ["masks/p0.png", "color/p0.png", "overlay/p0.jpg"]
    before = times(out)
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out", "--write", "overlay").stderr
    assert changed(out, before) == LAST_RUN


def test_a_kind_is_added_through_the_network_when_the_mask_is_not_what_it_was(fcn: Fcn, out: Path) -> None:
    whole = tree(out / "masks")
    mask = out / "masks/p3.png"
    mask.write_bytes(b"x" * mask.stat().st_size)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "overlay,masks,color")
    assert (out / "overlay/p3.jpg").is_file()
    assert tree(out / "masks") == whole


def test_changed_settings_are_refused_by_name(fcn: Fcn, out: Path) -> None:
    before = times(out)
    small = SMALL[:-1]
    assert "--resize: 64 before, 80 now" in fcn("segment", "made", *small, "80", "-o", "out", code=2).stderr
    done = fcn("segment", "made", *SMALL, "--precision", "bf16", "--keep-extension", "-o", "out", code=2)
    assert "--precision: auto before, bf16 now" in done.stderr
    assert "--keep-extension" in done.stderr
    assert (
        "--backbone: efficientnet_lite0 before, resnet50 now"
        in fcn("segment", "made", "-o", "out", code=2).stderr
    )
    done = fcn("segment", "made", *SMALL, "--tile", "512", "--flip", "-o", "out", code=2)
    assert "--tile: not given before, 512 now" in done.stderr
    assert "--flip: off before, on now" in done.stderr
    assert "None" not in done.stderr
    torch.save(BACKBONES["efficientnet_lite0"].build(21).state_dict(), "mine.pth")
    hashed = hashlib.sha256(Path("mine.pth").read_bytes()).hexdigest()[:8]
    done = fcn("segment", "made", *SMALL, "--weights", "mine.pth", "-o", "out", code=2)
    assert f"official weights (sha256 {OFFICIAL}…) before, mine.pth (sha256 {hashed}…) now" in done.stderr
    assert changed(out, before) == set()
    done = fcn("segment", "made", *small, "80", "-o", "out", "--overwrite")
    assert "4 done, 0 failed" in done.stderr
    assert {record["fingerprint"] for record in journal_of(out).values()} == {
        json.loads((out / "settings.json").read_text())["fingerprint"]
    }


def test_after_overwrite_with_another_network_the_stats_are_of_that_network(
    fcn: Fcn, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "made/p0.png").unlink()
    torch.save(BACKBONES["efficientnet_lite0"].build(2).state_dict(), tmp_path / "two.pth")
    fcn("segment", "made", *SMALL, "-o", "out", "--weights", "two.pth", "--overwrite")
    rows = [row.split(",") for row in (out / "stats.csv").read_text().splitlines()[1:]]
    assert {row[0] for row in rows} == set(NAMES) - {"p0.png"}
    assert {row[4] for row in rows} <= {"class_0", "class_1"}


def test_a_changed_image_is_redone_and_one_that_broke_loses_its_old_mask(fcn: Fcn, out: Path) -> None:
    made = out.parent / "made"
    with (made / "p0.png").open("ab") as file:
        file.write(b"\0")
    (made / "p1.png").write_bytes(b"broken")
    done = fcn("segment", "made", *SMALL, "-o", "out", code=1)
    assert "1 done, 2 done before, 1 failed" in done.stderr
    assert not (out / "masks/p1.png").exists()
    assert not (out / "color/p1.png").exists()
    assert "p1.png" not in (out / "stats.csv").read_text()


@pytest.mark.long
def test_failed_stays_failed_until_it_changes_or_is_retried(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["good.png"])
    (made / "bad.png").write_bytes(b"no image")
    fcn("segment", "made", *SMALL, "-o", "out", code=1)
    lines = (tmp_path / "out/manifest.jsonl").read_bytes().count(b"\n")
    done = fcn("segment", "made", *SMALL, "-o", "out", code=1)
    assert "bad.png" in done.stderr
    assert (tmp_path / "out/manifest.jsonl").read_bytes().count(b"\n") == lines
    fcn("segment", "made", *SMALL, "-o", "out", "--retry-failed", code=1)
    assert (tmp_path / "out/manifest.jsonl").read_bytes().count(b"\n") == lines + 1
    (made / "bad.png").write_bytes((made / "good.png").read_bytes())
    fcn("segment", "made", *SMALL, "-o", "out")


def test_a_lost_summary_or_stats_is_rebuilt(fcn: Fcn, out: Path) -> None:
    whole = (out / "stats.csv").read_bytes()
    (out / "stats.csv").unlink()
    fcn("segment", "made", *SMALL, "-o", "out")
    assert (out / "stats.csv").read_bytes() == whole


def test_projections_older_than_the_journal_are_rebuilt(fcn: Fcn, out: Path, make_images: MakeImages) -> None:
    """As a run leaves them that is killed after its last record."""
    older = {name: (out / name).read_bytes() for name in ("stats.csv", "summary.json")}
    make_images([*NAMES, "new.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    for name, data in older.items():
        (out / name).write_bytes(data)
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    assert "new.png" in (out / "stats.csv").read_text()
    assert json.loads((out / "summary.json").read_text())["totals"]["images"] == 5


@pytest.mark.long
def test_a_torn_last_line_is_cut_off_and_its_image_redone(fcn: Fcn, out: Path) -> None:
    journal = out / "manifest.jsonl"
    whole = journal.read_bytes()
    for torn in (whole[:-1], whole[:-30], whole + b'{"image": "p0', whole + b"\0\0\0\n"):
        journal.write_bytes(torn)
        done = fcn("segment", "made", *SMALL, "-o", "out")
        assert "0 failed" in done.stderr or "nothing to do" in done.stderr
        assert set(journal_of(out)) == set(NAMES)
        whole = journal.read_bytes()


@pytest.mark.long
def test_a_journal_of_mostly_superseded_lines_is_rewritten(fcn: Fcn, out: Path) -> None:
    journal = out / "manifest.jsonl"
    journal.write_bytes(journal.read_bytes() * 30)
    fcn("segment", "made", *SMALL, "-o", "out")
    assert journal.read_bytes().count(b"\n") == 4
    fcn("segment", "made", *SMALL, "-o", "out", "--overwrite")
    # A line each that gives the old files up, and one that stands for the new ones.
    assert journal.read_bytes().count(b"\n") == 4 + 4 + 4


@pytest.mark.long
def test_kill_and_resume_is_as_if_nothing_happened(make_images: MakeImages, fcn: Fcn, tmp_path: Path) -> None:
    make_images([f"k{i:03}.png" for i in range(60)], folder="many", size=(90, 70))
    fcn("segment", "many", *SMALL, "-o", "whole")
    running = start_and_wait_for_records(tmp_path, 5, "many")
    running.kill()
    running.communicate()
    journal = tmp_path / "out/manifest.jsonl"
    assert journal.read_bytes().count(b"\n") < 60
    done = fcn("segment", "many", *SMALL, "-o", "out")
    assert "0 failed" in done.stderr
    for kind in ("masks", "color"):
        assert tree(tmp_path / "out" / kind) == tree(tmp_path / "whole" / kind)
    assert (tmp_path / "out/stats.csv").read_bytes() == (tmp_path / "whole/stats.csv").read_bytes()
    assert not list((tmp_path / "out").rglob(".fcn-*"))
