"""An image whose time changed and whose content did not is not done again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fcn_cli import __version__

from ..conftest import SMALL, Fcn, MakeImages, command, journal_of, python_with, run_line, run_process, tree

LINE = ("segment", "made", *SMALL, "-o", "out")

NO_TORCH = """
import sys
sys.modules["torch"] = None
"""


def without(journal: Path, *keys: str) -> None:
    """Take keys out of all records, as 0.2 wrote them."""
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [{key: value for key, value in record.items() if key not in keys} for record in records]
    journal.write_text("".join(json.dumps(record) + "\n" for record in kept))


@pytest.mark.long
def test_another_time_is_recorded_and_nothing_is_segmented(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png", "sub/c.png"])
    (made / "broken.png").write_bytes((made / "a.png").read_bytes()[:300])
    fcn(*LINE, "--write", "masks", code=1)
    before, written = tree(tmp_path / "out/masks"), journal_of(tmp_path / "out")
    for name in ("a.png", "sub/c.png", "broken.png"):
        os.utime(made / name, (1e9, 1e9))
    plan = fcn(*LINE, "--write", "masks", "--dry-run")
    assert [line.split("\t") for line in plan.stdout.splitlines()] == [
        ["skip", "a.png", "done before; only its time changed"],
        ["skip", "b.png", "done before"],
        ["failed", "broken.png", written["broken.png"]["error"]["message"]],
        ["skip", "sub/c.png", "done before; only its time changed"],
    ]
    assert journal_of(tmp_path / "out") == written
    line = [*command(*LINE), "--write", "masks", "--json"]
    done = run_line(line, cwd=tmp_path, code=1, env=python_with(NO_TORCH, tmp_path))
    assert "3 images have a new modification time: comparing the content" in done.stderr
    assert [(record["status"], record["skipped"]) for record in done.records] == [
        ("ok", True), ("ok", True), ("ok", True), ("failed", True)
    ]  # fmt: skip
    renewed = journal_of(tmp_path / "out")
    assert {name: record["mtime_ns"] for name, record in renewed.items()} == {
        name: (made / name).stat().st_mtime_ns for name in written
    }
    for name, record in renewed.items():
        assert {**record, "mtime_ns": written[name]["mtime_ns"]} == written[name]
    assert tree(tmp_path / "out/masks") == before
    # Another kind is made from the mask; the time is not read again.
    again = fcn(*LINE, "--write", "masks,color", code=1)
    assert "another time" not in again.stderr
    assert set(tree(tmp_path / "out/color")) == {"a.png", "b.png", "sub/c.png"}


@pytest.mark.long
def test_a_copy_elsewhere_without_its_times_is_known_by_its_content(
    make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png"])
    for path in made.iterdir():
        os.utime(path, (1e9, 1e9))
    run_process(*LINE, cwd=tmp_path)
    shutil.copytree(made, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(made)
    done = run_process(
        "segment", "copy", *SMALL, "-o", "out", cwd=tmp_path, env=python_with(NO_TORCH, tmp_path)
    )
    assert "nothing to do" in done.stderr
    assert {record["path"] for record in journal_of(tmp_path / "out").values()} == {
        str(tmp_path / "copy/a.png"), str(tmp_path / "copy/b.png")
    }  # fmt: skip


@pytest.mark.long
def test_other_bytes_of_the_same_size_and_records_without_a_hash_are_done_again(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png", "c.png"])
    fcn(*LINE)
    data = (made / "a.png").read_bytes()
    # The last byte of a PNG's end chunk is of its checksum.
    (made / "a.png").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(made / "b.png", (1e9, 1e9))
    plan = fcn(*LINE, "--dry-run").stdout.splitlines()
    assert [line.split("\t")[0] for line in plan] == ["segment", "skip", "skip"]
    assert plan[0].endswith("\tthe image changed")
    without(tmp_path / "out/manifest.jsonl", "content", "version")
    assert "2 done, 1 done before" in fcn(*LINE).stderr
    os.utime(made / "b.png", (2e9, 2e9))
    assert "nothing to do" in fcn(*LINE).stderr


@pytest.mark.long
def test_a_failure_of_an_older_version_is_tried_once_more(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])
    (made / "empty.png").touch()
    (made / "text.png").write_text("no image")
    fcn(*LINE, code=1)
    journal = tmp_path / "out/manifest.jsonl"
    without(journal, "content", "version")
    plan = fcn(*LINE, "--dry-run").stdout.splitlines()
    assert [line.split("\t")[0] for line in plan] == ["skip", "segment", "segment"]
    # It was told before, so nothing new is to be said of it.
    assert fcn(*LINE, "-q", code=1).stderr == ""
    assert {name: r.get("version") for name, r in journal_of(tmp_path / "out").items()} == {
        "a.png": None, "empty.png": __version__, "text.png": __version__
    }  # fmt: skip
    lines = journal.read_bytes()
    fcn(*LINE, code=1)
    assert journal.read_bytes() == lines
    journal.write_text(journal.read_text().replace(f'"version": "{__version__}"', '"version": "0.2.0"'))
    plan = fcn(*LINE, "--dry-run").stdout.splitlines()
    assert [line.split("\t")[0] for line in plan] == ["skip", "segment", "segment"]
