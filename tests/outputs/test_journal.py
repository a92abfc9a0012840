"""What the journal survives: damage, names that are not UTF-8."""

from __future__ import annotations

import base64
import csv
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.common.errors import Failure, FailureKind
from fcn_cli.common.output_layout import is_output_file
from fcn_cli.outputs.journal import Journal, JournalSnapshot
from fcn_cli.outputs.json_text import to_line
from fcn_cli.outputs.record import Record

from ..conftest import SMALL, Fcn, MakeImages, command, journal_of, python_with, tree
from ..made_output import plain_record as record

NAMES = [f"p{i}.png" for i in range(4)]


@pytest.fixture
def out(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Path:
    make_images(NAMES)
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


def test_after_damage_that_names_no_image_older_records_stand_and_verify_finds_the_files(
    fcn: Fcn, out: Path
) -> None:
    """No record of the second palette can be read; the disk's clock is ahead, which says nothing."""
    before = (out / "manifest.jsonl").read_bytes()
    later = time.time() + 3600
    for name in NAMES:
        os.utime(out / "color" / name, (later, later))
    fcn("segment", "made", *SMALL, "-o", "out", "--palette", "voc")
    (out / "manifest.jsonl").write_bytes(before + b"\0\0\0\0\n" * 8)
    told = "out/color/p1.png: the colours are not those of the palette hub"
    assert told in fcn("verify", "out", code=1).stdout
    done = fcn("segment", "made", *SMALL, "-o", "out", "-q")
    assert "8 damaged lines dropped; the image of 8 is unknown: an earlier record is used" in done.stderr
    assert "fcn verify finds what does not match" in done.stderr
    assert (out / "manifest.jsonl").read_bytes() == before
    for line in fcn("verify", "out", code=1).stdout.splitlines():
        assert "the colours are not those" in line
        assert "delete it" in line
        (out.parent / line.partition(":")[0]).unlink()
    assert "4 done, 0 failed" in fcn("segment", "made", *SMALL, "-o", "out").stderr
    fcn("verify", "out")


def test_the_image_of_a_damaged_line_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    whole = to_line(record("caf\udce9.jpg").as_json()).encode()
    (tmp_path / "manifest.jsonl").write_bytes(whole + b"\n" + whole.replace(b"status", b"st\0tus") + b"\n")
    journal = Journal(tmp_path)
    assert (journal.index.damaged, journal.index.unknown, len(journal)) == (1, 0, 0)
    journal.close()


KILLED = """
import os, signal
real = os.replace
def replace(old, new):
    if str(new).endswith("manifest.jsonl"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(old, new)
os.replace = replace
"""


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="signals as Unix has them")
@pytest.mark.parametrize("next_run", [(), ("--shard", "1/2")])
def test_the_next_run_removes_what_a_killed_one_left_of_a_new_journal(
    next_run: tuple[str, ...], fcn: Fcn, out: Path, tmp_path: Path
) -> None:
    whole = (out / "manifest.jsonl").read_bytes()
    (out / "manifest.jsonl").write_bytes(whole + b"{}\n")
    run = ("segment", "made", *SMALL, "-o", "out")
    killed = subprocess.run(
        command(*run),
        cwd=tmp_path,
        env=python_with(KILLED, tmp_path),
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = out.glob(".fcn-*.tmp")
    assert left.read_bytes() == whole
    fcn(*run, *next_run)
    assert not list(out.glob(".fcn-*"))
    assert len(fcn("list", "out").stdout.splitlines()) == len(NAMES)


@pytest.mark.long
def test_names_that_are_not_utf8_are_escaped_and_kept(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "sub/b.png"])
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
    # The bytes are the key: the files of an image that is gone are found.
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
    journal.consolidate()
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


IMAGES = st.sampled_from(["a.jpg", "b.jpg", "masks/x.png", "caf\udce9.jpg"])
OUTPUTS = st.sampled_from(["masks/x.png", "masks/X.png", "color/x.png", "masks/y.png"])


@st.composite
def records(draw: st.DrawFn) -> Record:
    names = draw(st.lists(OUTPUTS, max_size=3, unique=True))
    status = draw(st.sampled_from(["ok", "ok", "ok", "failed", "gone"]))
    return record(draw(IMAGES), *names, status=status, seconds=float(draw(st.integers(0, 9))))


Line = Record | tuple[Record] | None
"""A line: whole, damaged after the name of its image, or of nobody knows which image."""


def as_line(line: Line) -> bytes:
    if line is None:
        return b"garbage\n"
    if isinstance(line, Record):
        return to_line(line.as_json()).encode() + b"\n"
    return to_line(line[0].as_json()).encode()[:-20] + b"\n"


def counted(lines: Iterable[Line]) -> dict[str, Record]:
    """Return the records that count, by the rules of docs/output.md."""
    result: dict[str, Record] = {}
    for line in lines:
        one: Record | None = line[0] if isinstance(line, tuple) else line
        if one is None:
            continue
        result.pop(one.image, None)
        if isinstance(line, tuple) or one.status == "gone":
            continue
        for image, other in list(result.items()):
            if {*map(str.lower, other.outputs)} & {*map(str.lower, one.outputs)}:
                del result[image]
        result[one.image] = one
    return result


def check(journal: Journal, expected: dict[str, Record]) -> None:
    assert list(journal) == [expected[image] for image in sorted(expected)]
    assert len(journal) == len(expected)
    for image in ("a.jpg", "b.jpg", "masks/x.png", "caf\udce9.jpg"):
        assert journal.get(image) == expected.get(image)
        assert (image in journal.index) == (image in expected)
    owners = {name.lower(): one.image for one in expected.values() for name in one.outputs}
    for name in ("masks/x.png", "masks/X.png", "color/x.png", "masks/y.png"):
        assert journal.owner(name) == owners.get(name.lower())
    bare = sorted(image for image, one in expected.items() if not one.outputs)
    assert [one.image for one in journal.index.without_files()] == bare
    others, more = journal.index.beside(["a.jpg"], 1)
    left = [image for image in expected if image != "a.jpg"]
    assert (len(others), more) == (min(1, len(left)), len(left) > 1)


LINES = st.lists(records() | records().map(lambda one: (one,)) | st.none(), max_size=9)


@given(LINES, st.booleans(), st.lists(LINES, max_size=2), st.lists(records(), max_size=5))
def test_all_readers_agree_on_the_records_that_count(
    lines: list[Line], torn: bool, of_shards: list[list[Line]], more: list[Record]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        (output / "settings.json").write_text('{"fcn_settings": 2}')
        (output / "manifest.jsonl").write_bytes(b"".join(map(as_line, lines)) + b"{" * torn)
        for number, shard in enumerate(of_shards, start=1):
            path = output / f"manifest.{number}-of-2.jsonl"
            path.write_bytes(b"".join(map(as_line, shard)) + b"{" * torn)
        everything = [*lines, *(line for shard in of_shards for line in shard)]
        expected = counted(everything)
        with JournalSnapshot(output) as snapshot:
            assert {one.image: one for one in snapshot} == expected
            assert len(snapshot) == len(expected)
            assert snapshot.damaged == sum(not isinstance(line, Record) for line in everything)
        journal = Journal(output)
        check(journal, expected)
        journal.consolidate()
        check(journal, expected)
        for place, one in enumerate(more):
            journal.append([one])
            check(journal, counted([*everything, *more[: place + 1]]))
        journal.close()
        journal = Journal(output)
        check(journal, counted([*everything, *more]))
        assert journal.index.damaged == 0
        journal.close()


def test_a_snapshot_stays_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"fcn_settings": 2}')
    path = tmp_path / "manifest.jsonl"
    line = to_line(record("a.jpg", status="failed").as_json()) + "\n"
    path.write_text(line)
    with JournalSnapshot(tmp_path) as snapshot:
        current = [snapshot.is_current]
        with path.open("a") as stream:
            stream.write(line.replace("a.jpg", "b.jpg"))
        assert [*current, snapshot.is_current] == [True, False]
        assert [one.image for one in snapshot] == ["a.jpg"]
        # As a run does that drops superseded lines.
        path.with_suffix(".new").write_text(line.replace("a.jpg", "c.jpg"))
        path.with_suffix(".new").replace(path)
        assert len(snapshot) == 1
        assert [one.image for one in snapshot] == ["a.jpg"]
