"""A journal read as a stream has the records that a run reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.journal_snapshot import JournalSnapshot
from fcn_cli.outputs.json_text import to_line

from ..made_output import plain_record

IMAGES = st.sampled_from(["a.jpg", "b.jpg", "masks/x.png", "caf\udce9.jpg"])
OUTPUTS = st.sampled_from(["masks/x.png", "masks/X.png", "color/x.png", "masks/y.png", "masks/re.png"])
UNKNOWN = "2001-01-01T00:00:00Z"


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line of a journal: a record, or a damaged one whose image can be told or not."""
    outputs = tuple(draw(st.lists(OUTPUTS, max_size=3, unique=True)))
    status = draw(st.sampled_from(["ok", "ok", "ok", "failed", "gone"]))
    record = plain_record(draw(IMAGES), *outputs, status=status, finished=UNKNOWN)
    whole = to_line(record.as_json()).encode()
    damage = draw(st.sampled_from(["", "", "", "", "cut", "garbage"]))
    return {"": whole, "cut": whole[:-20], "garbage": b"garbage"}[damage]


@given(st.lists(lines(), max_size=12), st.booleans(), st.lists(st.lists(lines(), max_size=6), max_size=2))
def test_a_snapshot_is_what_a_run_reads(
    journal: list[bytes], torn: bool, of_shards: list[list[bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        (output / "settings.json").write_text('{"fcn_settings": 2}')
        (output / "manifest.jsonl").write_bytes(b"".join(line + b"\n" for line in journal) + b"{" * torn)
        for number, more in enumerate(of_shards, start=1):
            path = output / f"manifest.{number}-of-2.jsonl"
            path.write_bytes(b"".join(line + b"\n" for line in more) + b"{" * torn)
        # One file is younger than every record: whatever wrote it, its record may be lost.
        (output / "masks").mkdir()
        (output / "masks/re.png").touch()
        with JournalSnapshot(output) as snapshot:
            records = list(snapshot)
        assert sorted(records, key=lambda record: record.image) == list(Journal(output))
        assert [record.image for record in snapshot.__class__(output)] == [r.image for r in records]


def test_a_snapshot_stays_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"fcn_settings": 2}')
    path = tmp_path / "manifest.jsonl"
    record = plain_record("a.jpg", status="failed")
    line = to_line(record.as_json()) + "\n"
    path.write_text(line)
    with JournalSnapshot(tmp_path) as snapshot:
        with path.open("a") as stream:
            stream.write(line.replace("a.jpg", "b.jpg"))
        assert [record.image for record in snapshot] == ["a.jpg"]
        # As a run does that drops superseded lines.
        path.with_suffix(".new").write_text(line.replace("a.jpg", "c.jpg"))
        path.with_suffix(".new").replace(path)
        assert len(snapshot) == 1
        assert [record.image for record in snapshot] == ["a.jpg"]
