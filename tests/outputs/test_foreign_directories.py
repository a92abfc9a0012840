"""What somebody else put into a directory stays as it is: a run, a report or an export there is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fcn_cli.outputs.bucket_store import BucketStore
from fcn_cli.outputs.request import OutputRequest
from tests.conftest import SMALL, Fcn, MakeImages, journal_of

from .memory_bucket import install

HERE = (*SMALL, "--workers", "0")
FOREIGN = {
    "a file": {"notes.txt": "mine"},
    "masks": {"masks/a.png": "mine"},
    "settings": {"settings.json": '{"editor": "mine"}'},
    "settings in a list": {"settings.json": "[1]"},
    "damaged settings": {"settings.json": "{"},
    "a manifest": {"manifest.jsonl": '{"image": "a.wav", "text": "mine"}\n'},
    "a manifest of parts": {"manifest.1-of-2.jsonl": '{"audio": "a.wav"}\n'},
    "an empty folder": {"folder/.keep": ""},
    "a report": {"report.html": "<p>mine</p>"},
    "much": {"settings.json": '{"mine": 1}', "classes.json": "[]", "run.json": "{}", "summary.json": "{}"},
}


def put(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return name → mode, time of change in nanoseconds, and content of all there is."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.mark.long
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_run_into_what_is_not_ours_is_refused(
    fcn: Fcn, make_images: MakeImages, content: dict[str, str], tmp_path: Path
) -> None:
    images, out = make_images(["a.png"]), tmp_path / "out"
    put(out, content)
    before = state_of(out)
    for options in (
        (),
        ("--overwrite",),
        ("--dry-run",),
        ("--shard", "1/2"),
        ("--watch",),
        ("--report", "--prune"),
    ):
        done = fcn("segment", images, *HERE, "-o", "out", *options, code=2)
        assert "out" in done.stderr.splitlines()[-1]
        assert any(text in done.stderr for text in ("that fcn did not write", "not written by fcn"))
        assert "give a" in done.stderr or "move it away" in done.stderr
        assert state_of(out) == before
    fcn("merge", "out", code=2)
    assert state_of(out) == before


@pytest.mark.long
def test_what_does_not_count(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    images, out = make_images(["a.png"]), tmp_path / "out"
    put(out, {".DS_Store": "", ".git/config": "", "lost+found/x": ""})
    # The log is opened before anything is known of the directory.
    (out / "logs").mkdir()
    done = fcn("segment", images, *HERE, "-o", "out", "--log-file", "out/logs/today")
    assert "1 done" in done.stderr
    # A fresh one, with the log itself.
    (tmp_path / "new").mkdir()
    assert "1 done" in fcn("segment", images, *HERE, "-o", "new", "--log-file", "new/log").stderr


@pytest.mark.long
def test_what_is_ours_stays_ours(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    images = make_images(["a.png"])
    fcn("segment", images, *HERE, "-o", "done")
    lines = (tmp_path / "done/manifest.jsonl").read_text()

    def without(*names: str) -> Path:
        out = tmp_path / "-".join(["out", *names])
        shutil.copytree("done", out)
        put(out, {"notes.txt": "mine"})
        for name in names:
            (out / name).unlink()
        return out

    run = ("segment", images, *HERE)
    for names in (
        (),
        ("settings.json",),
        (".fcn.lock",),
        ("manifest.jsonl",),
        ("settings.json", ".fcn.lock"),
    ):
        out = without(*names)
        assert "a.png" in fcn(*run, "-o", out, "--dry-run").stdout
        fcn(*run, "-o", out)
        assert list(journal_of(out)) == ["a.png"]
        assert (out / "notes.txt").read_text() == "mine"
    # Only a later record can be read, and the settings cannot.
    out = without("run.json", ".fcn.lock")
    put(out, {"settings.json": "{", "manifest.jsonl": f"damaged\n{lines}"})
    fcn(*run, "-o", out)
    # Another shard begins in this moment.
    for name in ("run.2-of-2.json", "manifest.2-of-2.jsonl"):
        put(tmp_path / "shards", {".fcn.lock.2-of-2": "", name: ""})
    fcn(*run, "-o", "shards", "--shard", "1/2")
    # 0.1.0 wrote schema 1: that is what is said.
    put(
        tmp_path / "old",
        {"settings.json": '{"fcn_settings": 1}', "masks/b.png": "", "manifest.jsonl": "{}\n"},
    )
    assert "schema 1" in fcn(*run, "-o", "old", code=2).stderr
    fcn(*run, "-o", "old", "--overwrite")


def test_a_place_in_a_bucket(monkeypatch: pytest.MonkeyPatch, make_images: MakeImages, fcn: Fcn) -> None:
    bucket = install(monkeypatch)
    images = make_images(["a.png"])
    store = OutputRequest("s3://results/out").store
    assert isinstance(store, BucketStore)
    for name, data in (("deep/in/notes.txt", b"mine"), ("settings.json", b"{}"), ("manifest.jsonl", b"{}\n")):
        bucket.objects = {f"results/out/{name}": (data, 1), "results/outside": (b"", 1)}
        before = dict(bucket.objects)
        for option in ("--overwrite", "--dry-run"):
            done = fcn("segment", images, *SMALL, "-o", "s3://results/out", option, code=2)
            assert "that fcn did not write" in done.stderr or "not written by fcn" in done.stderr
        assert bucket.objects == before
    bucket.objects = {"results/out/.keep": (b"", 1), "results/outside": (b"", 1)}
    fcn("segment", images, *SMALL, "-o", "s3://results/out", "--dry-run")


@pytest.mark.long
def test_a_report_goes_nowhere_else(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    images, out = make_images(["a.png"]), tmp_path / "out"
    fcn("segment", images, *HERE, "-o", "out")
    for content in (
        {"report.html": "<p>mine</p>"},
        {"report/chapter.tex": "mine"},
        {"report/page-1/x": "mine"},
    ):
        put(out, content)
        before = state_of(out)
        for line in (("report", "out"), ("segment", images, *HERE, "-o", "out", "--report")):
            done = fcn(*line, code=2)
            assert "not written by fcn" in done.stderr
            assert "move it away" in done.stderr
            assert state_of(out) == before
        name = next(iter(content)).partition("/")[0]
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    fcn("report", "out")
    # Again, and after a kill before there was a page.
    fcn("report", "out")
    (out / "report.html").unlink()
    fcn("report", "out")


@pytest.mark.long
def test_a_report_of_an_evaluation_goes_nowhere_else(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    images = make_images(["a.png"])
    fcn("segment", images, *HERE, "-o", "out")
    line = ("evaluate", images, "out/masks", "--predictions", "out", "--report", "found")
    for content in (
        {"notes.txt": "mine"},
        {"evaluation.json": "mine"},
        {"report.html": "mine"},
        {"report/a": ""},
    ):
        put(tmp_path / "found", content)
        before = state_of(tmp_path / "found")
        assert "not" in fcn(*line, code=2).stderr
        assert state_of(tmp_path / "found") == before
        shutil.rmtree("found")
    put(tmp_path / "found", {".DS_Store": ""})
    fcn(*line)
    put(tmp_path / "found", {"notes.txt": "mine"})
    fcn(*line)
    for name in ("notes.txt", "report.html"):
        (tmp_path / "found" / name).unlink()
    fcn(*line)


@pytest.mark.long
def test_an_export_replaces_exports_only(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    fcn("segment", make_images(["a.png"]), *HERE, "-o", "out")
    put(tmp_path, {"mine.json": '{"images": []}', "mine/a.txt": "mine"})
    os.mkfifo("pipe.json")
    for format_name, name in (
        ("coco", "mine.json"),
        ("coco", "pipe.json"),
        ("voc", "mine"),
        ("yolo", "mine"),
    ):
        before = state_of(tmp_path / "mine"), (tmp_path / "mine.json").read_bytes()
        done = fcn("export", "out", "--format", format_name, "-o", name, "--overwrite", code=2)
        assert "give a" in done.stderr
        assert (state_of(tmp_path / "mine"), (tmp_path / "mine.json").read_bytes()) == before
    for format_name, name in (("coco", "new.json"), ("voc", "new")):
        export = ("export", "out", "--format", format_name, "-o", name)
        fcn(*export)
        fcn(*export, code=2)
        fcn(*export, "--overwrite")
    assert json.loads(Path("new.json").read_text())["images"]
