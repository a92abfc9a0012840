"""Names and files that mean harm, or just are odd."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_cli.common.errors import RequestError
from fcn_cli.common.output_layout import output_file, output_type_names
from fcn_cli.inputs import collisions, decoder, formats, samples
from fcn_cli.inputs.discovery import InputRequest, discover

from ..conftest import (
    SAMPLES,
    SMALL,
    Fcn,
    MakeImages,
    exact_names,
    journal_of,
    run_process,
    stray_lines,
    tree,
)
from ..fuzz import bases

NAMES = [
    "new\nline.png",
    "carriage\rreturn.png",
    "tab\tand \x1b[31mred.png",
    "per%cent %s %d.png",
    "quote\"s'and,commas;.png",
    "$(reboot) `id` &.png",
    "emoji \U0001f408 \u202egnp.png",
    "-rf.png",
    "=cmd|' C'!A0.png",
    "a;=1+1.png",
    " leading and trailing .png",
    "dots....png",
    "a..png",
    "CON.png",
    "nul.tar.png",
    "back\\slash.png",
    "c:colon?.png",
    "sub/more../x.png",
    "x" * 251 + ".png",
    "e\u0301.png",
]
RAW = [b"bytes \xff\xfe.png", b"latin \xe9.png"]


def test_odd_names_stay_inside_and_round_trip(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(NAMES)
    for name in RAW:
        with open(os.path.join(os.fsencode(made), name), "wb") as file:
            file.write((made / "a..png").read_bytes())
    names = {*NAMES, *map(os.fsdecode, RAW)}
    before = tree(tmp_path)
    done = fcn("segment", "made", *SMALL, "-o", "out", "--json")
    assert {exact_names(record)["image"] for record in done.records} == names
    records = journal_of(tmp_path / "out")
    assert set(records) == names
    escaped = {os.fsencode(name).decode("utf-8", "backslashreplace") for name in names}
    with (tmp_path / "out/stats.csv").open(newline="", encoding="utf-8") as file:
        text = file.read()
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert {os.path.normpath(row["image"]) for row in rows} == escaped
    # Nothing that a spreadsheet runs, wherever a semicolon or a tab ends a cell.
    assert not re.search(r"^[=+@-]", text, re.MULTILINE)
    assert '"a;=1+1.png"' in text
    written = [name for record in records.values() for name in record["outputs"]]
    assert len(set(written)) == 2 * len(names)
    for record in records.values():
        with Image.open(made / record["image"]) as image:
            for name in record["outputs"]:
                with Image.open(tmp_path / "out" / name) as mask:
                    assert mask.size == image.size
    # Nothing was written anywhere else, and no message took more than its line.
    after = {name: data for name, data in tree(tmp_path).items() if not name.startswith("out/")}
    assert after == before
    assert stray_lines(done.stderr) == []
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr


def test_a_name_that_is_too_long_for_its_mask_fails_alone(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["x" * 251 + ".png", "ok.png"])
    (made / ".png").write_bytes((made / "ok.png").read_bytes())
    done = fcn("segment", "made", *SMALL, "-o", "out", "--keep-extension", code=1)
    records = journal_of(tmp_path / "out")
    assert {record["status"] for name, record in records.items() if name == "ok.png"} == {"ok"}
    assert [r["error"]["kind"] for r in records.values() if r["error"]] == ["OutputRefused"]
    # A name that is only a suffix is a hidden file.
    assert "1 hidden" in done.stderr


PARTS = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8).filter(
    lambda part: part not in {".", ".."}
)


@settings(max_examples=150)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8), st.booleans())
def test_whatever_the_names_no_two_outputs_meet_and_none_is_outside(names: list[str], keep: bool) -> None:
    """On names alone: listed files need not exist to be planned."""
    listed = sorted({f"/nowhere/{name}.png" for name in names})
    try:
        found = discover(InputRequest((), listed, "/nowhere"), output="/out", keep_extension=keep)
    except RequestError:
        return
    assert len(found.sources) + found.ignored.total() == len(listed)
    refused = {collision.refused for collision in collisions.find(found.sources)}
    written: set[str] = set()
    for source in set(found.sources) - refused:
        for kind in output_type_names():
            name = output_file(source.output, kind)
            inside = os.path.normpath(os.path.join("/out", name))
            assert inside.startswith(f"/out/{kind}/")
            assert ".." not in PurePosixPath(name).parts
            assert inside.casefold() not in written
            written.add(inside.casefold())


@pytest.mark.parametrize("name", ["../up.png", "made/../../up.png", "/etc/../up.png"])
def test_listed_names_cannot_leave_the_root(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, name: str
) -> None:
    make_images(["a.png"])
    (tmp_path / "list").write_text(f"made/a.png\n{name}\n")
    assert "not below" in fcn("segment", "--files-from", "list", *SMALL, "-o", "out", code=2).stderr
    assert not (tmp_path / "out").exists()


GREEDY = """
import os
from PIL import PngImagePlugin
real = PngImagePlugin.PngImageFile.load
def load(self):
    if os.path.basename(getattr(self.fp, "name", "") or "").startswith("greedy"):
        self.hoard = bytearray(4 << 30)
    return real(self)
PngImagePlugin.PngImageFile.load = load
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit on private memory")
def test_a_decoder_that_takes_too_much_memory_costs_its_image(
    make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "greedy.png", "z.png"])
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(GREEDY)
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    done = run_process(
        *("segment", "made", *SMALL, "-o", "out", "--json", "--max-image-pixels", "1000000"),
        code=1,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    kinds = {record["image"]: (record["error"] or {}).get("kind") for record in done.records}
    assert kinds == {"a.png": None, "greedy.png": "OutOfMemory", "z.png": None}


@pytest.mark.slow
def test_whole_images_of_every_kind_are_fine(fcn: Fcn, tmp_path: Path) -> None:
    """What ``make fuzz`` starts from: garbage in ICC and EXIF, 16 and 32 bits, NaN, animations, strips."""
    folder = tmp_path / "photos"
    folder.mkdir()
    whole = bases()
    for number, (suffix, data) in enumerate(whole):
        (folder / f"{number}{suffix}").write_bytes(data)
        (folder / f"wrong{number}{'.jpg' if suffix == '.png' else '.png'}").write_bytes(data)
    done = fcn("segment", "photos", *SMALL, "--keep-extension", "--json", "--write", "masks", code=1)
    assert len(done.records) == 2 * len(whole)
    # What has no signature cannot be told from its content.
    unsigned = {suffix for suffixes in formats._UNSIGNED.values() for suffix in suffixes}
    hidden = {f"wrong{number}.png" for number, (suffix, _) in enumerate(whole) if suffix in unsigned}
    assert {record["image"] for record in done.records if record["status"] != "ok"} == hidden


def test_32_bit_samples_are_scaled_over_the_whole_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In strips as in one: the least and the greatest sample of all, what is not finite being black."""
    monkeypatch.setattr(samples, "PART_PIXELS", 70)
    random = np.random.default_rng(0)
    values = random.normal(0, 1000, (40, 30)).astype(np.float32)
    values[7, 3], values[30, 2], values[31, 1] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "f.tif")
    decoded = decoder.decode_here(tmp_path / "f.tif")
    finite = np.isfinite(values)
    low, high = values[finite].min().astype(float), values[finite].max().astype(float)
    expected = np.rint(np.where(finite, (values.astype(float) - low) / (high - low), 0) * 255)
    assert np.array_equal(np.array(decoded.image)[..., 0], expected.astype(np.uint8))
    assert "3 that are not finite taken as black" in decoded.notes[0]
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "nan.tif")
    assert not np.array(decoder.decode_here(tmp_path / "nan.tif").image).any()


def test_a_mask_file_is_a_plain_png(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """What an image's file says beside its pixels does not reach its mask."""
    folder = make_images(["a.png"])
    with Image.open(SAMPLES / "grace_hopper.jpg") as opened:
        exif = Image.Exif()
        exif[0x010E] = "secret"
        opened.resize((60, 50)).save(folder / "b.jpg", exif=exif, icc_profile=b"secret profile")
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,color,overlay")
    for name, data in tree(tmp_path / "out").items():
        if name.endswith((".png", ".jpg")):
            assert b"secret" not in data
            assert Image.open(io.BytesIO(data)).info.keys() <= {
                "jfif",
                "jfif_version",
                "jfif_unit",
                "jfif_density",
            }
    assert json.loads((tmp_path / "out/classes.json").read_text())["0"]["name"] == "__background__"
