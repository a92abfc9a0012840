"""``fcn verify``: every byte that is not as it was written is found, and named with what to do."""

from __future__ import annotations

import json
import random
import re
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fcn_cli.common import output_layout
from fcn_cli.outputs import verification
from fcn_cli.outputs.output_store import LocalStore
from fcn_cli.outputs.record import Record

from ..conftest import HELD, SMALL, Fcn, MakeImages, command, python_with, tree, wait_until
from ..made_output import blobs, make_output


def problems(fcn: Fcn) -> dict[str, str]:
    found = json.loads(fcn("verify", "out", "--json", code=1).stdout)
    return {one["file"]: one["damage"] for one in found["problems"]}


@pytest.mark.long
def test_one_flipped_byte_in_one_mask_of_500(fcn: Fcn, tmp_path: Path) -> None:
    output = make_output(tmp_path / "out", {f"p{i:03}.jpg": blobs(i, 24, 30) for i in range(500)})
    assert fcn("verify", "out").stdout == ""
    mask = output / "masks/p321.png"
    whole = mask.read_bytes()
    # The signature, the width, the checksum of the pixels, the very last byte, and any other one.
    pixels_crc = whole.index(b"IEND") - 5
    for place in [0, 19, pixels_crc, len(whole) - 1, random.randrange(len(whole))]:
        mask.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        lines = fcn("verify", "out", code=1).stdout.splitlines()
        assert len(lines) == 1, place
        assert lines[0].startswith("out/masks/p321.png: "), place
    mask.write_bytes(whole)
    assert "1000 files of 500 images checked: no problem" in fcn("verify", "out").stderr


@pytest.mark.long
def test_the_remedy_remedies(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images([f"p{i}.png" for i in range(5)])
    run = ("segment", "made", *SMALL, "-o", "out", "--write", "masks,color,overlay,confidence")
    fcn(*run)
    out = tmp_path / "out"
    before = {name: data for name, data in tree(out).items() if "/" in name}
    (out / "masks/p0.png").unlink()
    (out / "color/p1.png").write_bytes(b"short")
    overlay = (out / "overlay/p2.jpg").read_bytes()
    (out / "overlay/p2.jpg").write_bytes(overlay[: len(overlay) // 2].ljust(len(overlay), b"\0"))
    with Image.open(out / "confidence/p3.png") as image:
        size = (out / "confidence/p3.png").stat().st_size
        Image.new("L", image.size, 9).save(out / "confidence/p3.png")
    extra = size - (out / "confidence/p3.png").stat().st_size
    assert extra > 12
    data = (out / "confidence/p3.png").read_bytes()
    # An ancillary chunk makes it as long as it was.
    body = b"tEXt" + b"x\0".ljust(extra - 12, b"y")
    chunk = (extra - 12).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    (out / "confidence/p3.png").write_bytes(data[:33] + chunk + data[33:])
    found = problems(fcn)
    assert set(found) == {"masks/p0.png", "color/p1.png", "overlay/p2.jpg", "confidence/p3.png"}
    assert found["masks/p0.png"] == "missing"
    assert "5 bytes, its record says" in found["color/p1.png"]
    assert "cannot be decoded" in found["overlay/p2.jpg"]
    assert "mean confidence" in found["confidence/p3.png"]
    for line in fcn("verify", "out", code=1).stdout.splitlines():
        path, _, text = line.partition(": ")
        assert re.search(r"the same fcn segment command(, with --write \w+,)? makes it again$", text)
        if "delete it" in text:
            (tmp_path / path).unlink()
    fcn(*run)
    assert fcn("verify", "out").stdout == ""
    assert {name: data for name, data in tree(out).items() if "/" in name} == before
    # A kind that the last command did not ask for, and an image that is gone.
    fcn("segment", "made", *SMALL, "-o", "out")
    (out / "overlay/p2.jpg").unlink()
    (out / "masks/p1.png").unlink()
    (made / "p1.png").unlink()
    text = fcn("verify", "out", code=1).stdout
    assert "p2.jpg: missing; the same fcn segment command, with --write overlay, makes it again" in text
    assert f"p1.png: missing; its image is gone from {made}/p1.png" in text


@pytest.mark.long
def test_all_kinds_with_a_legend_and_a_report_are_right(
    fcn: Fcn, images: Path, make_images: MakeImages, tmp_path: Path
) -> None:
    kinds = ",".join(output_layout.output_type_names())
    fcn("segment", images, *SMALL, "-o", "out", "--write", kinds, "--legend", "--report")
    done = fcn("verify", "out")
    assert done.stdout == ""
    assert "no record" not in done.stderr
    assert (
        f"{len(output_layout.output_type_names()) * 4} files of 4 images checked: no problem" in done.stderr
    )
    # A legend does not excuse a picture that is smaller than its image.
    overlay = tmp_path / "out/overlay/chelsea.jpg"
    size = overlay.stat().st_size
    Image.new("RGB", (451, 299)).save(overlay)
    overlay.write_bytes(overlay.read_bytes() + bytes(size - overlay.stat().st_size))
    (line,) = fcn("verify", "out", code=1).stdout.splitlines()
    assert "451x299 pixels" in line


def test_pixels_and_records_that_differ(fcn: Fcn, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", {f"p{i}.jpg": blobs(i) for i in range(4)})
    journal = out / "manifest.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    first = next(iter(records[0]["classes"]))
    records[0]["classes"][first] += 1
    records[1]["width"] += 1
    (out / "masks/p2.png").write_bytes((out / "color/p2.png").read_bytes())
    records[2]["output_bytes"][0] = records[2]["output_bytes"][1]
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = problems(fcn)
    assert f"its record says {records[0]['classes'][first]}" in found["masks/p0.png"]
    assert f"pixels of class {first}" in found["color/p0.png"]
    assert found["masks/p1.png"] == found["color/p1.png"] == "60x48 pixels, its record says 61x48"
    assert found["masks/p2.png"] == "P pixels, masks has L"
    assert len(found) == 5
    # Of a damaged line nobody knows what it promised.
    journal.write_text("garbage\n")
    assert problems(fcn) == {"manifest.jsonl": "damaged lines: 1"}


def test_files_without_a_record_are_mentioned(fcn: Fcn, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", {"sub/a.jpg": blobs(1)})
    (out / "masks/sub/stray.png").touch()
    (out / "overlay").mkdir()
    (out / "overlay/old.jpg").touch()
    (out / "masks/.fcn-1-1.tmp").touch()
    assert "masks/sub/stray.png: belongs to no record" in fcn("verify", "out").stderr
    found = json.loads(fcn("verify", "out", "--json").stdout)
    assert found["orphans"] == [{"file": "masks/sub/stray.png"}, {"file": "overlay/old.jpg"}]


def test_what_a_run_changed_meanwhile_is_no_problem(
    fcn: Fcn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes a mask back after its record was read and before its file was: as --overwrite does."""
    out = make_output(tmp_path / "out", {"a.jpg": blobs(1), "b.jpg": blobs(2)})
    journal = out / "manifest.jsonl"
    record = json.loads(journal.read_text().splitlines()[0])
    real = verification.find_damage

    def find_damage(output: LocalStore, name: str, size: int, recorded: Record) -> str | None:
        if name == "masks/a.png":
            (out / name).unlink()
            with journal.open("a") as stream:
                stream.write(json.dumps({**record, "outputs": ["color/a.png"], "output_bytes": [1]}) + "\n")
        return real(output, name, size, recorded)

    monkeypatch.setattr(verification, "find_damage", find_damage)
    assert set(problems(fcn)) == {"color/a.png"}


@pytest.mark.long
def test_while_a_run_is_going_on(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """It writes files again, and files before their records: neither is a problem, and it is said."""
    make_images(["a.png", "held.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    stray = tmp_path / "out/masks/stray.png"
    stray.touch()
    assert "stray.png: belongs to no record" in fcn("verify", "out").stderr
    line = command("segment", "made", *SMALL, "-o", "out", "--overwrite", "-j", "1")
    running = subprocess.Popen(
        line, cwd=tmp_path, env=python_with(HELD, tmp_path), stderr=subprocess.DEVNULL, text=True
    )
    wait_until((tmp_path / "opened").exists, running)
    done = fcn("verify", "out")
    assert f"a run is in progress (process {running.pid}" in done.stderr
    assert "only what was recorded before this check is checked" in done.stderr
    assert "belongs to no record" not in done.stderr
    found = json.loads(fcn("verify", "out", "--json", "-q").stdout)
    assert (found["running"], found["problems"], found["orphans"]) == (True, [], [])
    # What is wrong is found meanwhile, too.
    kept = (tmp_path / "out/masks/held.png").read_bytes()
    (tmp_path / "out/masks/held.png").write_bytes(kept[:-1])
    assert "masks/held.png" in fcn("verify", "out", code=1).stdout
    (tmp_path / "go").touch()
    assert running.wait(timeout=60) == 0
    done = fcn("verify", "out")
    assert "a run is going on" not in done.stderr
    assert "stray.png: belongs to no record" in done.stderr
    assert json.loads(fcn("verify", "out", "--json").stdout)["running"] is False


def test_what_is_no_output_directory(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"])
    assert "made: not an output directory" in fcn("verify", "made", code=2).stderr
