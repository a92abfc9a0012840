"""A bad file costs itself: one record, one line, and the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn_cli.runs import segment
from fcn_cli.runs.plan import Plan, make_plan

from ..conftest import (
    SAMPLES,
    SMALL,
    Fcn,
    MakeImages,
    command,
    exact_names,
    journal_of,
    run_line,
    without_roots_rights,
)
from ..made_output import make_output
from ..terminal import on_a_terminal


def claimed_png(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def mixed(make_images: MakeImages, tmp_path: Path) -> Path:
    """Five good images and seven files that each fail in their own way."""
    folder = make_images([f"good{i}.png" for i in range(5)])
    jpeg = (SAMPLES / "grace_hopper.jpg").read_bytes()
    (folder / "bad_truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "bad_not_an_image.png").write_bytes(b"Dear diary, this is a text.\n")
    (folder / "bad_empty.webp").write_bytes(b"")
    (folder / "bad_fifo.jpg").touch()
    (folder / "bad_fifo.jpg").unlink()
    os.mkfifo(folder / "bad_fifo.jpg")
    (folder / "bad_vanished.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "bad_bomb.png").write_bytes(claimed_png(60000, 60000))
    Image.open(folder / "good0.png").resize((700, 700)).save(folder / "bad_limit.png")
    return folder


EXPECTED = {
    "bad_truncated.jpg": "TruncatedImage",
    "bad_not_an_image.png": "NotAnImage",
    "bad_empty.webp": "EmptyFile",
    "bad_fifo.jpg": "NotAFile",
    "bad_vanished.jpg": "NotFound",
    "bad_bomb.png": "TooManyPixels",
    "bad_limit.png": "TooManyPixels",
}


def test_five_good_and_seven_bad_files(fcn: Fcn, mixed: Path, tmp_path: Path) -> None:
    done = fcn("segment", "made", *SMALL, "--max-image-pixels", "400000", "-o", "out", "--json", code=1)
    records = journal_of(tmp_path / "out")
    assert {name: record["error"]["kind"] for name, record in records.items() if record["error"]} == EXPECTED
    assert sum(record["status"] == "ok" for record in records.values()) == 5
    assert {record["image"]: record["status"] for record in done.records} == {
        name: record["status"] for name, record in records.items()
    }
    for name in EXPECTED:
        lines = [line for line in done.stderr.splitlines() if name in line]
        assert len(lines) == 1, lines
        assert lines[0].startswith("fcn: no mask for")
    run = json.loads((tmp_path / "out/summary.json").read_text())["run"]
    assert (run["images"], run["ok"], run["skipped"], run["failed"]) == (12, 5, 0, 7)
    assert len(list((tmp_path / "out/masks").iterdir())) == 5
    assert "Warning" not in done.stderr


def test_every_failure_is_counted_when_there_are_many(fcn: Fcn, make_images: MakeImages) -> None:
    folder = make_images(["good.png"])
    for index in range(13):
        (folder / f"bad{index:02}.png").write_bytes(b"?")
    done = fcn("segment", "made", *SMALL, code=1)
    assert done.stderr.count("no mask for") == 10
    assert "and 3 more" in done.stderr
    assert "14 images: 1 done, 13 failed" in done.stderr


@pytest.mark.long
def test_an_unreadable_file(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["good.png", "secret.png"])
    (folder / "secret.png").chmod(0)
    arguments = [*without_roots_rights(tmp_path), *command("segment", "made", *SMALL)]
    done = run_line(arguments, code=1, cwd=tmp_path)
    assert "secret.png: cannot be read (Permission denied)" in done.stderr
    assert journal_of(tmp_path / "fcn_output")["good.png"]["status"] == "ok"


@pytest.mark.long
def test_fail_fast_stops_and_keeps_what_is_done(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images([f"g{i:02}.png" for i in range(30)])
    (folder / "g15b.png").write_bytes(b"?")
    done = fcn("segment", "made", *SMALL, "--fail-fast", "-o", "out", code=5)
    assert "--fail-fast" in done.stderr
    run = json.loads((tmp_path / "out/summary.json").read_text())["run"]
    assert run["failed"] == 1
    assert run["not_reached"] > 0
    assert run["ok"] > 0
    assert run["ok"] + run["failed"] + run["not_reached"] == run["images"] == 31
    assert len(list((tmp_path / "out/masks").iterdir())) == run["ok"]
    fcn("segment", "made", *SMALL, "-o", "out", code=1)


def test_one_that_vanishes_between_the_plan_and_the_read(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = make_images([f"p{i}.png" for i in range(3)])

    def make(*arguments: Any) -> Plan:
        # The one moment that counts.
        made = make_plan(*arguments)
        (folder / "p1.png").unlink()
        return made

    monkeypatch.setattr(segment, "make_plan", make)
    done = fcn("segment", "made", *SMALL, code=1)
    assert "p1.png: no such file" in done.stderr
    assert journal_of(tmp_path / "fcn_output")["p1.png"]["error"]["kind"] == "NotFound"


def test_odd_names_stay_on_one_line_and_round_trip(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["good.png"])
    names = [b"new\nline.png", b"bell\x07.png", b"latin\xe9.png", "schön 😀.png".encode(), b"100%s.png"]
    for name in names:
        path = os.path.join(os.fsencode(tmp_path / "made"), name)
        Path(os.fsdecode(path)).write_bytes((tmp_path / "made/good.png").read_bytes())
    bad = os.fsdecode(b"bad\nname\xff.png")
    (tmp_path / "made" / bad).write_bytes(b"?")
    done = fcn("segment", "made", *SMALL, "--json", "-o", "out", code=1)
    assert {os.fsencode(exact_names(record)["image"]) for record in done.records} == {
        *names,
        b"good.png",
        os.fsencode(bad),
    }
    for name in names:
        assert os.path.exists(os.path.join(os.fsencode(tmp_path / "out/masks"), name))
        escaped = name.decode("utf-8", "backslashreplace").encode()
        assert escaped in (tmp_path / "out/stats.csv").read_bytes()
    assert sum("bad\\nname" in line for line in done.stderr.splitlines()) == 1
    fcn("segment", "made", *SMALL, "-o", "out", code=1)


@pytest.mark.long
def test_no_name_steers_a_terminal(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escape codes in names of images, directories, classes, options and files come out escaped."""
    evil = "\x1b]0;owned\x07\x9b31m\r\u202e"
    images = make_images([f"{evil}/{evil}.png", f"{evil}2.png"])
    (images / f"{evil}3.png").write_bytes(b"?")
    out, run = f"out{evil}", ("segment", images, *SMALL, "--workers", "0")
    # A carriage return would end a name here.
    names = [f"{evil}{number}".replace("\r", "") for number in range(21)]
    (tmp_path / "names").write_text("\n".join(names))
    lines: list[tuple[str | Path, ...]] = [
        (*run, "-o", out, "--class-names", "names", "-v", "--log-file", f"log{evil}", "--report"),
        (*run, "-o", out, "--class-names", "names", "--dry-run"),
        (*run, "-o", out, "--dry-run", "--json", "--resize", "32"),
        (*run, "-o", out, "--weights", evil),
        (*run, "-o", evil, "--palette", evil),
        (*run, "-o", str(images)),
        ("segment", f"{evil}.png", "-o", out),
        ("segment", "--files-from", evil, "-o", out),
        ("segment", evil, f"--{evil}", "-o", out),
        ("status", out),
        ("verify", out),
        ("report", out),
        ("export", out, "--format", "yolo", "-o", f"yolo{evil}"),
        ("export", out, "--format", evil, "-o", "x"),
        ("evaluate", images, f"{out}/masks", "--predictions", out, "--report", f"found{evil}"),
        ("compare", out, "other"),
        ("info",),
        ("weights", "list"),
        ("weights", evil),
        (evil,),
    ]
    other = make_output(tmp_path / "other", {f"{evil}/{evil}.png": np.zeros((48, 60), np.uint8)})
    settings = json.loads((other / "settings.json").read_text())
    (other / "settings.json").write_text(json.dumps({**settings, "labels": {evil: evil}}))
    monkeypatch.setenv("FCN_WEIGHTS_DIR", f"/{evil}")
    monkeypatch.setenv("OMP_WAIT_POLICY", evil)
    first = Path(out, "masks", f"{evil}2.png")
    for line in lines:
        if line[0] == "compare":
            shutil.copy(tmp_path / out / "classes.json", other)
        done = fcn(*line, code=None)
        assert done.code != 70, done
        for character in "\x1b\x07\x9b\r\u202e":
            assert character not in done.stdout + done.stderr, line
        if first.exists() and line[0] == "status":
            first.write_bytes(b"damaged")
    assert "\x1b" not in (tmp_path / f"log{evil}").read_text()
    assert Path(out, "report.html").exists()
    # A pipe gets the bytes of the names, a terminal does not.
    assert evil in fcn("list", out).stdout
    for end in ((), ("-0",)):
        shown = on_a_terminal(command("list", out, *end), 80, cwd=tmp_path, environment={})
        assert not set("\x1b\x07\x9b\u202e") & set(shown)
        assert "\\x1b]0;owned" in shown


@pytest.mark.long
def test_all_done_before_but_one_failed_is_not_success(fcn: Fcn, make_images: MakeImages) -> None:
    (make_images(["good.png"]) / "bad.png").write_bytes(b"?")
    fcn("segment", "made", *SMALL, code=1)
    done = fcn("segment", "made", *SMALL, code=1)
    assert "2 images: 0 done, 1 done before, 1 failed" in done.stderr
