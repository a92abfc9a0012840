"""What is read of a line without JSON is what JSON says; nothing damaged is taken for whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.common.errors import Failure, FailureKind
from fcn_cli.outputs.json_text import to_line
from fcn_cli.outputs.record import Record
from fcn_cli.outputs.record_line import RecordOutline, read_outline

TEXTS = st.one_of(
    st.sampled_from(["a.jpg", 'q"uote', "back\\slash", "é", "\udce9", "", "a, b", "a', '"]),
    st.text(max_size=5),
)
COUNTS = st.integers(0, 2**63)


@st.composite
def records(draw: st.DrawFn) -> Record:
    names = tuple(draw(st.lists(TEXTS, max_size=3)))
    failed = draw(st.booleans())
    return Record(
        image=draw(TEXTS),
        source=draw(TEXTS),
        path=draw(TEXTS),
        status="failed" if failed else draw(st.sampled_from(["ok", "gone"])),
        fingerprint="f",
        size_bytes=draw(st.none() | COUNTS),
        mtime_ns=draw(st.none() | st.integers(-(2**63), 2**63)),
        width=draw(st.none() | COUNTS),
        classes=draw(st.dictionaries(st.integers(0, 255), COUNTS, max_size=3)),
        outputs=names,
        output_bytes=tuple(range(len(names))),
        looks=draw(st.dictionaries(TEXTS, TEXTS, max_size=2)),
        mean_confidence=draw(st.none() | st.floats(0, 1)),
        seconds=draw(st.floats(0, 1e9)),
        notes=tuple(draw(st.lists(TEXTS, max_size=2))),
        error=Failure(FailureKind.BROKEN, draw(TEXTS)) if failed else None,
        content=draw(st.none() | TEXTS),
        version=draw(st.none() | TEXTS),
    )


@pytest.mark.long
@given(records(), st.data())
def test_an_outline_is_what_json_says(record: Record, data: st.DataObject) -> None:
    line = to_line(record.as_json()).encode()
    assert describe(line) == (record.image, record.status, record.outputs)
    # A few bytes that are lost, doubled or changed.
    place = data.draw(st.integers(0, len(line)))
    damaged = line[:place] + data.draw(st.binary(max_size=3)) + line[place + data.draw(st.integers(0, 9)) :]
    try:
        whole = Record.from_json(json.loads(damaged))
    except (ValueError, KeyError, TypeError, AttributeError):
        assert describe(damaged) is None
    else:
        assert describe(damaged) == (whole.image, whole.status, whole.outputs)


def test_a_plain_line_needs_no_json() -> None:
    outputs = ("masks/a.png", "color/a.png")
    record = Record("a.jpg", "p/a.jpg", "/p/a.jpg", "ok", "f", 1, 2, 3, 4, {0: 1, 8: 11}, outputs, (1, 2))
    line = to_line(record.as_json()).encode() + b"\n"
    assert read_outline(line) == RecordOutline("a.jpg", "ok", outputs)
    # As 0.2 wrote it.
    older = {key: value for key, value in record.as_json().items() if key not in {"content", "version"}}
    assert read_outline(to_line(older).encode() + b"\n") == RecordOutline("a.jpg", "ok", outputs)


def describe(line: bytes) -> tuple[str, str, tuple[str, ...]] | None:
    try:
        outline = read_outline(line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return outline.image, outline.status, outline.outputs
