"""Output directories that somebody else prepared: names in records and links lead nowhere outside of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..conftest import SMALL, Fcn, MakeImages, tree

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes as Unix has them")

HOUR = 3600


class Outside:
    """A directory that nobody may touch, beside the output directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sub").mkdir(parents=True)
        for name in ("precious.txt", "a.png", "sub/a.png", "core.js", ".fcn-1-12345678-1.tmp"):
            (folder / name).write_text("what somebody needs\n")
        # Old enough for any sweep.
        for path in [*folder.rglob("*"), folder]:
            os.utime(path, (path.stat().st_mtime - 100 * HOUR,) * 2)
        self._before = self._now()

    def _now(self) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for path in [self.folder, *self.folder.rglob("*")]:
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = status.st_mode, status.st_mtime_ns, content
        return found

    def check(self) -> None:
        assert self._now() == self._before


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "outside")


@pytest.fixture
def out(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Path:
    """Return an output directory of two images."""
    made = make_images(["a.png", "b.png"])
    fcn("segment", made, *SMALL, "-o", "out")
    return tmp_path / "out"


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def append(out: Path, record: dict[str, Any]) -> None:
    with (out / "manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(record) + "\n")


@pytest.mark.long
def test_names_in_records_lead_nowhere_else(fcn: Fcn, out: Path, outside: Outside) -> None:
    whole = tree(out / "masks")
    first, second = lines(out)
    names = [
        str(outside.folder / "precious.txt"),
        str(outside.folder / "a.png"),
        "masks/../../outside/a.png",
        "../outside/a.png",
        "masks/sub/../../../outside/sub/a.png",
    ]
    for number, name in enumerate(names):
        record = {**first, "image": f"gone{number}.png", "outputs": [name], "output_bytes": [20]}
        append(out, {**record, "status": "gone"})
        # As the issue has it, without the name of an image.
        append(out, {"status": "gone", "outputs": [name]})
        append(out, {**record, "image": f"ok{number}.png"})
    append(out, {**second, "outputs": [names[1]], "output_bytes": [20]})
    damaged = len(names) * 3 + 1
    # All commands read the journal.
    assert fcn("list", "out").stdout.splitlines() == [first["path"]]
    checked = fcn("verify", "out", code=1)
    assert f"manifest.jsonl: damaged lines: {damaged}" in checked.stdout
    fcn("report", "out")
    fcn("export", "out", "--format", "coco", "-o", "coco.json")
    outside.check()
    # The image whose record was damaged is done again.
    done = fcn("segment", "made", *SMALL, "-o", "out", "--prune")
    assert f"{damaged} damaged" in done.stderr
    assert "2 images: 1 done, 1 done before, 0 failed" in done.stderr
    outside.check()
    assert tree(out / "masks") == whole
    fcn("verify", "out")


@pytest.mark.long
def test_a_directory_of_masks_that_is_a_link_is_neither_read_nor_written(
    fcn: Fcn, out: Path, outside: Outside
) -> None:
    record = lines(out)[0]
    shutil.rmtree(out / "masks")
    (out / "masks").symlink_to(outside.folder)
    # An image below a folder that the link's target lacks, and a record of a file in the target.
    (out.parent / "made/new").mkdir()
    shutil.copy(out.parent / "made/a.png", out.parent / "made/new/c.png")
    append(out, {**record, "image": "sub/gone.png", "outputs": ["masks/sub/a.png"], "output_bytes": [20]})
    damage = "is a link; fcn never reads or writes through links"
    assert damage in fcn("verify", "out", code=1).stdout
    fcn("report", "out")
    for options in ((), ("--prune",), ("--palette", "voc"), ("--overwrite",)):
        done = fcn("segment", "made", *SMALL, "-o", "out", *options, code=1)
        assert damage in done.stderr
        outside.check()
    assert not lines(out)[-1]["outputs"]


def _link(path: Path, outside: Outside) -> None:
    path.symlink_to(outside.folder / "precious.txt")


def _dangling(path: Path, outside: Outside) -> None:
    path.symlink_to(outside.folder / "new")


def _pipe(path: Path, _: Outside) -> None:
    os.mkfifo(path)


@pytest.mark.long
@pytest.mark.parametrize("make", [_link, _dangling, _pipe])
@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.1-of-2.jsonl"])
def test_a_journal_that_is_no_file_is_refused(
    fcn: Fcn, out: Path, outside: Outside, name: str, make: Callable[[Path, Outside], None]
) -> None:
    (out / name).unlink(missing_ok=True)
    make(out / name, outside)
    reason = "not a regular file" if make is _pipe else "it is a link, which fcn does not follow here"
    for arguments in (("list", "out"), ("verify", "out"), ("report", "out")):
        assert f"its journal cannot be read ({reason})" in fcn(*arguments, code=2).stderr
    for options in ((), ("--shard", "1/2"), ("--prune",), ("--overwrite",)):
        done = fcn("segment", "made", *SMALL, "-o", "out", *options, code=5)
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) < 4
    outside.check()


@pytest.mark.parametrize("make", [_link, _dangling, _pipe])
def test_a_lock_that_is_no_file_is_refused(
    fcn: Fcn, out: Path, outside: Outside, make: Callable[[Path, Outside], None]
) -> None:
    (out / ".fcn.lock").unlink(missing_ok=True)
    make(out / ".fcn.lock", outside)
    done = fcn("segment", "made", *SMALL, "-o", "out", code=5)
    assert "not a regular file" in done.stderr or "it is a link" in done.stderr
    outside.check()


@pytest.mark.long
def test_temporary_files_behind_links_and_of_others_stay(fcn: Fcn, out: Path, outside: Outside) -> None:
    (out / "linked").symlink_to(outside.folder)
    (out / "masks/linked").symlink_to(outside.folder)
    (out / ".fcn-1-12345678-1.tmp").symlink_to(outside.folder / "precious.txt")
    kept = [".fcn-notes.tmp", ".fcn-1-12345678-x.tmp", "masks/.fcn-my file.tmp"]
    for name in (*kept, ".fcn-1-12345678-2.tmp", "masks/.fcn-1-12345678-3.tmp"):
        (out / name).write_text("…")
    (out / ".fcn.holder.json").write_text("{}")
    fcn("segment", "made", *SMALL, "-o", "out")
    outside.check()
    left = {str(path.relative_to(out)) for path in out.rglob(".fcn-*") if not path.is_symlink()}
    assert {name for name in left if "linked" not in name} == set(kept)


@pytest.mark.slow
def test_a_line_without_an_end_needs_no_memory(fcn: Fcn, out: Path) -> None:
    size = (out / "manifest.jsonl").stat().st_size
    with (out / "manifest.jsonl").open("r+b") as journal:
        journal.truncate(size + (6 << 30))
    assert len(fcn("list", "out").stdout.splitlines()) == 2
    fcn("segment", "made", *SMALL, "-o", "out")
    assert (out / "manifest.jsonl").stat().st_size == size
    # In the middle it costs the image that its first field names.
    with (out / "manifest.jsonl").open("ab") as journal:
        journal.write(b'{"image": "b.png", "source": "' + b"x" * (3 << 20) + b'"}\n')
    assert "1 damaged line" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    fcn("verify", "out")


def _age(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        old = path.lstat().st_mtime - 100 * HOUR
        os.utime(path, (old, old), follow_symlinks=False)


@pytest.mark.long
def test_a_report_deletes_and_writes_nothing_behind_links_and_nothing_of_others(
    fcn: Fcn, out: Path, outside: Outside
) -> None:
    fcn("report", "out")
    report = out / "report"
    page = next(report.glob("page-*"))
    pictures = {path.name for path in report.rglob("images/*/*")}
    # Directories of earlier pages: a link, and a directory with a file of ours, one of others, and links.
    (report / "page-0123456789abcdef").symlink_to(outside.folder)
    old = report / "page-00000000000000ff"
    old.mkdir()
    for name in ("core.js", "photos-0.js", ".fcn-1-12345678-1.tmp", "notes.txt"):
        (old / name).write_text("…")
    (old / "table.js").symlink_to(outside.folder / "core.js")
    # Pictures: a directory that is a link, one that the page needs, and an old one that is a link.
    first, second = sorted({name[:2] for name in pictures})[:2]
    behind = outside.folder.parent / "behind"
    shutil.move(report / "images" / first, behind)
    (report / "images" / first).symlink_to(behind)
    unneeded = f"{second}{'0' * 18}-s.jpg"
    (behind / f"{first}{'0' * 18}-s.jpg").write_text("…")
    (report / "images" / second / unneeded).symlink_to(outside.folder / "a.png")
    (report / "images" / second / "keep.jpg").write_text("…")
    (report / "images" / second / f"{second}{'1' * 18}-s.jpg").write_text("…")
    _age(report)
    _age(behind)
    before = tree(behind)
    done = fcn("report", "out", code=5)
    assert f"report/images/{first} is a link" in done.stderr
    assert tree(behind) == before
    (report / "images" / first).unlink()
    fcn("report", "out")
    outside.check()
    assert tree(behind) == before
    assert sorted(path.name for path in old.iterdir()) == ["notes.txt", "table.js"]
    left = {path.name for path in (report / "images" / second).iterdir()} - pictures
    assert left == {unneeded, "keep.jpg"}
    # Its own directory has a name that nobody can foresee, and that of the page before is gone.
    (new,) = (found for found in report.glob("page-*") if not found.is_symlink() and found != old)
    assert new != page
    assert not page.exists()


@pytest.mark.parametrize("make", [_link, _dangling])
def test_a_log_file_below_the_output_directory_is_no_link(
    fcn: Fcn, out: Path, outside: Outside, make: Callable[[Path, Outside], None]
) -> None:
    make(out / "run.log", outside)
    done = fcn("segment", "made", *SMALL, "-o", "out", "--log-file", "out/run.log", code=2)
    assert "--log-file out/run.log: cannot be written (it is a link, which fcn" in done.stderr
    outside.check()
    # Elsewhere it may be one, as in /var/log.
    (out.parent / "run.log").symlink_to(out.parent / "real.log")
    fcn("segment", "made", *SMALL, "-o", "out", "--log-file", "run.log")
    assert "nothing to do" in (out.parent / "real.log").read_text()


WRONG: tuple[tuple[str, tuple[str, ...], Any], ...] = (
    ("summary.json", ("segmented",), 1),
    ("summary.json", ("run",), []),
    ("summary.json", ("run", "refused"), "x"),
    ("summary.json", ("run", "refused"), [1]),
    ("summary.json", ("run", "versions", "python"), "\ud800"),
    ("summary.json", ("run", "images_per_second"), float("inf")),
    ("settings.json", ("labels",), {}),
    ("settings.json", ("labels", "scales"), {"x": [1]}),
    ("run.json", ("kinds",), [{}]),
    ("run.json", ("journal_bytes",), 10**30),
    ("run.json", ("end",), None),
    ("classes.json", ("5",), {"color": "x", "name": 1}),
)


@pytest.mark.long
def test_values_of_other_types_are_as_missing_ones(fcn: Fcn, out: Path) -> None:
    for name, keys, wrong in WRONG:
        value = content = json.loads((out / name).read_text())
        for key in keys[:-1]:
            value = value[key]
        before, value[keys[-1]] = value.get(keys[-1]), wrong
        (out / name).write_text(json.dumps(content))
        for line in (("status", "out"), ("list", "out", "--class", "1"), ("report", "out")):
            assert fcn(*line, code=None).code in {0, 1, 2}, (name, keys, wrong)
        assert fcn("segment", "made", *SMALL, "-o", "out", "--dry-run", code=None).code in {0, 2}
        value[keys[-1]] = before
        (out / name).write_text(json.dumps(content))


@pytest.mark.long
def test_a_shard_whose_run_file_is_damaged_counts_as_missing(fcn: Fcn, out: Path) -> None:
    for shard in ("1/2", "2/2"):
        fcn("segment", "made", *SMALL, "-o", "new", "--shard", shard)
    assert not (out.parent / "new/manifest.1-of-2.jsonl").exists()
    path = out.parent / "new/run.1-of-2.json"
    whole = json.loads(path.read_text())
    for key, wrong in (("seconds", "x"), ("stage_seconds", {"network": []}), ("refused", 1), ("ok", None)):
        path.write_text(json.dumps({**whole, "summary": {**whole["summary"], key: wrong}}))
        assert "1 of 2 shards have not finished: 1/2" in fcn("merge", "new", code=1).stderr
