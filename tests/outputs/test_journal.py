"""What the journal survives: damage, names that are not UTF-8."""

from __future__ import annotations

import base64
import csv
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.common.errors import Failure, FailureKind
from fcn_cli.common.output_layout import is_output_file
from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.json_text import to_line
from fcn_cli.outputs.record import Record

from ..conftest import SMALL, Fcn, MakePhotos, journal_of, tree
from ..made_output import plain_record as record

NAMES = [f"p{i}.png" for i in range(4)]


@pytest.fixture
def out(fcn: Fcn, make_photos: MakePhotos, tmp_path: Path) -> Path:
    make_photos(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out")
    return tmp_path / "out"


@pytest.mark.long
@pytest.mark.parametrize(
    "damage", [b"garbage\n", b"\0" * 40 + b"\n", b'{"image": "p1.png", "source": "ma\n', b"{}\n"]
)
def test_a_damaged_line_costs_its_image_and_is_told_once(damage: bytes, fcn: Fcn, out: Path) -> None:
    journal = out / "manifest.jsonl"
    whole, masks = (out / "stats.csv").read_bytes(), tree(out / "masks")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b'"p1.png"' in lines[1]
    lines[1] = damage
    journal.write_bytes(b"".join(lines))
    done = fcn("segment", "made", *SMALL, "-o", "out", "-q")
    assert "manifest.jsonl: 1 damaged line dropped" in done.stderr
    assert set(journal_of(out)) == set(NAMES)
    assert (out / "stats.csv").read_bytes() == whole
    assert tree(out / "masks") == masks
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr


def test_many_damaged_lines_and_the_next_nights_are_quiet(fcn: Fcn, out: Path) -> None:
    journal = out / "manifest.jsonl"
    data = bytearray(journal.read_bytes())
    data[200:900] = os.urandom(700).replace(b"\n", b" ")
    journal.write_bytes(data)
    done = fcn("segment", "made", *SMALL, "-o", "out", "-q")
    assert "dropped" in done.stderr
    assert fcn("segment", "made", *SMALL, "-o", "out", "-q").stderr == ""


def test_an_older_record_does_not_stand_in_for_a_damaged_one(fcn: Fcn, out: Path) -> None:
    """Of two records of an image the second is damaged: the first describes files that are gone since."""
    fcn("segment", "made", *SMALL, "-o", "out", "--palette", "voc")
    journal = out / "manifest.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"p1.png"' in line)
    before_last = max(i for i, line in enumerate(lines[:last]) if b'"p1.png"' in line)
    for index in (before_last, last):
        lines[index] = lines[index].replace(b'"status"', b'"st\0tus"')
    journal.write_bytes(b"".join(lines))
    done = fcn("segment", "made", *SMALL, "-o", "out", "--palette", "hub", "-v")
    assert "1 to segment, 3 to complete" in done.stderr
    assert journal_of(out)["p1.png"]["looks"] == {"color": "hub"}
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr


def test_after_damage_that_names_no_image_files_that_are_newer_than_their_record_are_redone(
    fcn: Fcn, out: Path
) -> None:
    journal = out / "manifest.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines) + b"\0\0\0\0\n" + lines[3])
    later = time.time() + 60
    for name in ("p0.png", "p3.png"):
        os.utime(out / "color" / name, (later, later))
    done = fcn("segment", "made", *SMALL, "-o", "out", "-v")
    # p0 may have been written again under the damaged record; p3 has a record after it.
    assert "made/p0.png: done," in done.stderr
    assert "1 to segment, 0 to complete, 3 done before" in done.stderr


@pytest.mark.long
def test_names_that_are_not_utf8_are_escaped_and_kept(
    fcn: Fcn, make_photos: MakePhotos, tmp_path: Path
) -> None:
    made = make_photos(["a.png", "sub/b.png"])
    raw = b"caf\xe9 \xff.png"
    os.rename(os.fsencode(made / "a.png"), os.fsencode(made) + b"/" + raw)
    os.rename(os.fsencode(made / "sub"), os.fsencode(made) + b"/s\xfcb")
    done = fcn("segment", "made", *SMALL, "-o", "out", "--json")
    rows = list(csv.DictReader((tmp_path / "out/stats.csv").read_bytes().decode("utf-8").splitlines()))
    assert {row["image"] for row in rows} == {"caf\\xe9 \\xff.png", "s\\xfcb/b.png"}
    lines = (tmp_path / "out/manifest.jsonl").read_bytes().decode("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert b"\\ud" not in (tmp_path / "out/manifest.jsonl").read_bytes()
    assert {base64.b64decode(record["image_bytes"]) for record in records} == {raw, b"s\xfcb/b.png"}
    assert {record["image"] for record in done.records} == {row["image"] for row in rows}
    assert os.path.exists(os.fsencode(tmp_path / "out/masks") + b"/" + raw)
    assert "nothing to do" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    # The bytes are the key: the files of a photo that is gone are found.
    os.unlink(os.fsencode(made) + b"/" + raw)
    fcn("segment", "made", *SMALL, "-o", "out", "--prune")
    assert not os.path.exists(os.fsencode(tmp_path / "out/masks") + b"/" + raw)
    assert "caf" not in (tmp_path / "out/stats.csv").read_text()


names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name).map(os.fsdecode)
outputs_of_masks = names.map(lambda name: f"masks/{name}.png").filter(is_output_file)


@given(
    image=names,
    source=names,
    path=names,
    outputs=st.lists(outputs_of_masks, max_size=3, unique=True),
    kind=st.sampled_from(FailureKind),
    message=st.text(max_size=5),
    limit=st.none() | st.integers(0, 2**40),
)
def test_any_record_survives_its_line(
    image: str, source: str, path: str, outputs: list[str], kind: FailureKind, message: str, limit: int | None
) -> None:
    made = record(
        image,
        *outputs,
        source=source,
        path=path,
        status="failed",
        mtime_ns=2**62,
        classes={0: 5, 255: 1},
        looks={"color": "hub"},
        finished="2026-11-24T03:00:00Z",
        error=Failure(kind, message.encode("utf-8", "ignore").decode(), limit),
    )
    line = to_line(made.as_json())
    assert "\n" not in line
    assert line.isascii()
    json.loads(line)["image"].encode("utf-8")
    assert Record.from_line(line.encode()) == made


def test_records_after_a_torn_line_are_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([record("a")])
    journal.close()
    with (tmp_path / "manifest.jsonl").open("ab") as stream:
        stream.write(b'{"image": "torn", "source": "torn", "path')
    journal = Journal(tmp_path)
    assert list(journal) == [record("a")]
    journal.mend()
    journal.append([record("b"), record("c")])
    assert list(journal) == [record("a"), record("b"), record("c")]
    assert [journal.get(image) for image in "cba"] == [record("c"), record("b"), record("a")]
    journal.append([record("b")])
    assert journal.get("b") == record("b")
    journal.close()


def test_replay_is_the_last_record_of_each_image(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([record("a", "masks/a.png"), record("b", "masks/b.png")])
    journal.append([record("B", "masks/B.png")])
    journal.append([record("a", "masks/a.png", status="gone")])
    journal.end_appending()
    for one in (journal, Journal(tmp_path)):
        assert [record.image for record in one] == ["B"]
        assert one.owner("masks/b.png") == "B"
        assert one.owner("masks/a.png") is None
        assert one.get("a") is None
