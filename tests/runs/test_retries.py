"""Which failures the next run tries again, and which of them it still talks about."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from ..conftest import (
    HELD,
    SMALL,
    Fcn,
    MakeImages,
    command,
    journal_of,
    python_with,
    run_line,
    tree,
    without_roots_rights,
)


@pytest.mark.long
def test_an_image_without_permission_is_done_when_it_has_it(make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "secret.png"])
    (made / "secret.png").chmod(0)
    prefix = without_roots_rights(tmp_path)
    line = [*prefix, *command("segment", "made", *SMALL, "-o", "out")]
    done = run_line(line, cwd=tmp_path, code=1)
    assert "Permission denied" in done.stderr
    # The size and time stay as they were: only the mode changes.
    (made / "secret.png").chmod(0o644)
    done = run_line(line, cwd=tmp_path)
    assert "1 done, 1 done before, 0 failed" in done.stderr


DYING = """
import os, signal
from PIL import PngImagePlugin
real = PngImagePlugin.PngImageFile.load
def load(self):
    if "killer" in str(getattr(self.fp, "name", "")) and not os.path.exists(os.environ["TOUCH"] + "/well"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "slow" in str(getattr(self.fp, "name", "")) and not os.path.exists(os.environ["TOUCH"] + "/well"):
        import time
        time.sleep(60)
    return real(self)
PngImagePlugin.PngImageFile.load = load
"""


@pytest.mark.slow
def test_decoders_that_died_or_took_too_long_are_tried_again(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "killer.png", "slow.png"])
    environment = python_with(DYING, tmp_path)
    line = command("segment", "made", *SMALL, "-o", "out", "--decode-timeout", "1")
    run_line(line, cwd=tmp_path, code=1, env=environment)
    errors = {name: record["error"] for name, record in journal_of(tmp_path / "out").items()}
    assert errors["killer.png"]["kind"] == "DecoderDied"
    assert errors["slow.png"]["kind"] == "DecoderHung"
    assert errors["slow.png"]["limit"] == 1.0
    (tmp_path / "well").touch()
    done = run_line(line, cwd=tmp_path, env=environment)
    assert "2 done, 1 done before, 0 failed" in done.stderr


@pytest.mark.long
def test_a_vanished_listed_image_is_tried_again(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "b.png"])
    (tmp_path / "list").write_text("made/a.png\nmade/b.png\n")
    (made / "b.png").rename(tmp_path / "b.png")
    fcn("segment", "--files-from", "list", *SMALL, code=1)
    (tmp_path / "b.png").rename(made / "b.png")
    assert "1 done, 1 done before" in fcn("segment", "--files-from", "list", *SMALL).stderr


@pytest.mark.long
def test_listed_images_that_vanish_keep_what_was_written_of_them(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """A disk that is not mounted must not cost the masks of its images."""
    made = make_images(["a.png", "b.png"])
    (tmp_path / "list").write_text("made/a.png\nmade/b.png\n")
    line = ("segment", "--files-from", "list", *SMALL, "-o", "out")
    fcn(*line)
    before = {name: data for name, data in tree(tmp_path / "out").items() if "/" in name}
    records = journal_of(tmp_path / "out")
    made.rename(tmp_path / "elsewhere")
    said = "no mask for made/a.png: no such file (or a broken link); its earlier outputs are kept"
    assert said in fcn(*line, "--quiet", code=1).stderr
    assert fcn(*line, "--quiet", code=1).stderr == ""
    assert "2 images: 0 done, 2 failed" in fcn(*line, "--overwrite", code=1).stderr
    after = tree(tmp_path / "out")
    assert {name: after.get(name) for name in before} == before
    assert journal_of(tmp_path / "out") == records
    (tmp_path / "elsewhere").rename(made)
    assert "nothing to do" in fcn(*line).stderr


@pytest.mark.long
def test_a_raised_limit_is_met_again_and_a_lowered_one_is_not(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])
    Image.new("RGB", (200, 100)).save(tmp_path / "made/large.png")
    few = ("--max-image-pixels", "10000")
    fcn("segment", "made", *SMALL, "-o", "out", *few, code=1)
    error = journal_of(tmp_path / "out")["large.png"]["error"]
    assert (error["kind"], error["limit"]) == ("TooManyPixels", 10000)
    lines = (tmp_path / "out/manifest.jsonl").read_bytes()
    for limit in ("10000", "5000"):
        fcn("segment", "made", *SMALL, "-o", "out", "--max-image-pixels", limit, code=1)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == lines
    assert "1 done" in fcn("segment", "made", *SMALL, "-o", "out", "--max-image-pixels", "20000").stderr


def test_content_failures_are_not_tried_again(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "cut.png"])
    (made / "empty.png").touch()
    (made / "text.png").write_text("no image")
    (made / "cut.png").write_bytes((made / "cut.png").read_bytes()[:300])
    fcn("segment", "made", *SMALL, "-o", "out", code=1)
    lines = (tmp_path / "out/manifest.jsonl").read_bytes()
    plan = fcn("segment", "made", *SMALL, "-o", "out", "--dry-run").stdout
    assert [line.split("\t")[0] for line in plan.splitlines()] == ["skip", "failed", "failed", "failed"]
    fcn("segment", "made", *SMALL, "-o", "out", code=1)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == lines


@pytest.mark.long
def test_quiet_tells_of_a_failure_once(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png"])
    (made / "bad.png").write_bytes(b"no image")
    line = ("segment", "made", *SMALL, "-o", "out", "-q")
    assert "bad.png" in fcn(*line, code=1).stderr
    assert fcn(*line, code=1).stderr == ""
    assert "bad.png" in fcn(*line[:-1], code=1).stderr
    # Another failure is new; so is a change of the image that leaves it broken.
    (made / "worse.png").write_bytes(b"nor this")
    errors = fcn(*line, code=1).stderr
    assert "worse.png" in errors
    assert "bad.png" not in errors
    (made / "bad.png").write_bytes(b"still no image")
    errors = fcn(*line, code=1).stderr
    assert "bad.png" in errors
    assert "worse.png" not in errors


@pytest.mark.slow
def test_quiet_is_quiet_about_a_failure_that_was_tried_again(make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "secret.png"])
    (made / "secret.png").chmod(0)
    line = [*without_roots_rights(tmp_path), *command("segment", "made", *SMALL, "-o", "out", "-q")]
    assert "secret.png" in run_line(line, cwd=tmp_path, code=1).stderr
    assert run_line(line, cwd=tmp_path, code=1).stderr == ""
    # It is tried, all the same.
    (made / "secret.png").chmod(0o600)
    assert run_line(line, cwd=tmp_path).stderr == ""
    assert journal_of(tmp_path / "out")["secret.png"]["status"] == "ok"


NO_TORCH = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise RuntimeError("torch is imported")
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.slow
def test_images_that_fail_again_do_not_load_the_network(make_images: MakeImages, tmp_path: Path) -> None:
    """What still cannot be opened or listed needs no PyTorch, what still cannot be decoded no weights."""
    made = make_images(["a.png", "secret.png", "held.png", "locked/b.png"])
    (made / "secret.png").chmod(0)
    (made / "locked").chmod(0)
    roots = without_roots_rights(tmp_path)
    line = [*command("segment", "made", *SMALL, "-o", "out", "--workers", "1", "-v")]
    hang = ["--decode-timeout", "1"]
    site = python_with(HELD, tmp_path)
    first = run_line([*roots, *line, *hang], cwd=tmp_path, code=1, env=site)
    assert "4 images: 4 to segment" in first.stderr
    # What is said of the network once it is loaded.
    assert "efficientnet_lite0 on cpu" in first.stderr
    second = run_line([*roots, *line, *hang], cwd=tmp_path, code=1, env=site).stderr
    assert "4 images: 1 to segment, 0 to complete, 1 done before, 2 failed before and unchanged" in second
    assert "4 images: 0 done, 1 done before, 3 failed" in second
    assert "efficientnet_lite0 on cpu" not in second
    # Without the one whose decoder hangs, nothing is imported.
    (made / "held.png").unlink()
    (tmp_path / "site/sitecustomize.py").write_text(NO_TORCH)
    third = run_line([*roots, *line], cwd=tmp_path, code=1, env=site).stderr
    assert "3 images: 0 to segment, 0 to complete, 1 done before, 2 failed before and unchanged" in third
    # One that can be decoded now is.
    (made / "secret.png").chmod(0o600)
    (made / "locked").chmod(0o700)
    (tmp_path / "site/sitecustomize.py").write_text("")
    last = run_line([*roots, *line], cwd=tmp_path, env=site).stderr
    assert "3 images: 2 done, 1 done before, 0 failed" in last
    records = journal_of(tmp_path / "out")
    assert {name: record["status"] for name, record in records.items()} == {
        "a.png": "ok",
        "secret.png": "ok",
        "locked/b.png": "ok",
        "held.png": "failed",
        "locked": "gone",
    }


@pytest.mark.long
def test_records_say_what_auto_became_and_a_change_of_it_is_told(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    records = journal_of(tmp_path / "out")
    assert {(record["device"], record["precision"]) for record in records.values()} == {("cpu", "fp32")}
    journal = tmp_path / "out/manifest.jsonl"
    journal.write_text(
        journal.read_text().replace('"device": "cpu"', '"device": "cuda:0"').replace('"fp32"', '"bf16"')
    )
    with (tmp_path / "made/a.png").open("ab") as file:
        file.write(b"\0")
    done = fcn("segment", "made", *SMALL, "-o", "out", "-q")
    assert "this run computes on cpu in fp32; existing masks: 1 on cuda in bf16" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_list_is_nothing_to_do(fcn: Fcn, tmp_path: Path) -> None:
    (tmp_path / "list").touch()
    done = fcn("segment", "--files-from", "list", *SMALL)
    assert "nothing to do" in done.stderr
    assert not (tmp_path / "fcn_output").exists()
    line = command("segment", "--files-from", "-", *SMALL)
    done2 = subprocess.run(line, cwd=tmp_path, input=b"", capture_output=True, check=False)
    assert done2.returncode == 0, done2.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_names_the_images_and_why(
    as_json: bool, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png", "c.png", "taken.gif"])
    (tmp_path / "made/bad.png").write_bytes(b"?")
    fcn("segment", "made", *SMALL, "-o", "out", code=1)
    make_images(["new\tone.png", "taken.png"])
    with (tmp_path / "made/b.png").open("ab") as file:
        file.write(b"\0")
    (tmp_path / "out/masks/c.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    more = ["--json"] if as_json else []
    done = fcn("segment", "made", *SMALL, "-o", "out", "--dry-run", *more)
    if as_json:
        rows = [(r["action"], r["image"], r["reason"]) for r in done.records]
        assert {r["path"] for r in done.records} >= {str(tmp_path / "made/a.png")}
    else:
        rows = [tuple(line.split("\t")) for line in done.stdout.splitlines()]  # type: ignore[misc]
    tab = "\t" if as_json else "\\t"
    assert [(action, image) for action, image, _ in rows] == [
        ("skip", "a.png"),
        ("segment", "b.png"),
        ("failed", "bad.png"),
        ("segment", "c.png"),
        ("segment", f"new{tab}one.png"),
        ("skip", "taken.gif"),
        ("refused", "taken.png"),
    ]
    reasons = {image: reason for _, image, reason in rows}
    assert reasons["b.png"] == "the image changed"
    assert "masks/c.png is missing or damaged" in reasons["c.png"]
    assert "not an image" in reasons["bad.png"]
    assert reasons[f"new{tab}one.png"] == "new"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    more_kinds = fcn("segment", "made/a.png", *SMALL, "-o", "out", "--write", "overlay", "--dry-run").stdout
    assert more_kinds == "add\ta.png\toverlay missing\n"


def test_verbose_and_the_log_file_have_a_line_for_every_image_worked_on(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png"])
    (tmp_path / "made/bad.png").write_bytes(b"?")
    for again in (False, True):
        log = tmp_path / f"log{again}"
        done = fcn("segment", "made", *SMALL, "-o", "out", "-v", "--log-file", log, code=1)
        for text in (done.stderr, log.read_text()):
            for name in ("a.png", "b.png"):
                lines = [line for line in text.splitlines() if f"made/{name}: " in line]
                assert [": done, 6" in line for line in lines] == ([] if again else [True])
            assert "2 done before" in text or not again
            assert text.count("no mask for made/bad.png: not an image") == 1
    assert json.loads((tmp_path / "out/summary.json").read_text())["run"]["failed"] == 1
