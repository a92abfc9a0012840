"""What is read of a line without JSON is what JSON says; nothing damaged is taken for whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.common.errors import Failure, FailureKind
from fcn_cli.common.output_layout import kind_names, output_file
from fcn_cli.outputs.json_text import to_base64, to_line
from fcn_cli.outputs.record import Record
from fcn_cli.outputs.record_line import RecordOutline, read_outline

TEXTS = st.one_of(
    st.sampled_from(["a.jpg", 'q"uote', "back\\slash", "é", "\udce9", "", "a, b", "a', '"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
)
COUNTS = st.integers(0, 10**19 - 1)
SIDES = st.none() | st.integers(0, 10**9 - 1)
FILES = st.builds(
    lambda kind, name: output_file(name, kind),
    st.sampled_from(kind_names()),
    st.sampled_from(
        ["a.png", "sub/b, c.png", 'q"uote.png', "é.png", "\udce9.png", ".hidden/a.png", "a/..b.png"]
    ),
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    names = tuple(draw(st.lists(FILES, max_size=3)))
    failed = draw(st.booleans())
    return Record(
        image=draw(TEXTS),
        source=draw(TEXTS),
        path=draw(TEXTS),
        status="failed" if failed else draw(st.sampled_from(["ok", "gone"])),
        fingerprint="f",
        size_bytes=draw(st.none() | COUNTS),
        mtime_ns=draw(st.none() | st.integers(-(2**63), 2**63)),
        width=draw(SIDES),
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


LEADS_OUT = [
    "/home/u/precious.png",
    "../precious.png",
    "masks/../../../precious.png",
    "masks/..",
    "masks/./a.png",
    "masks//a.png",
    "masks",
    "masks/",
    "settings.json",
    "report/images/00/a.png",
    "elsewhere/a.png",
    "masks/a.sh",
    "masks/a.jpg",
    "masks/a\0.png",
    "masks/\ud800.png",
    "",
]


@pytest.mark.parametrize("name", LEADS_OUT)
@pytest.mark.parametrize("status", ["ok", "gone", "failed"])
def test_a_name_that_leads_out_of_its_directory_damages_the_line(name: str, status: str) -> None:
    error = Failure(FailureKind.BROKEN, "…") if status == "failed" else None
    record = Record(
        "a.jpg", "a.jpg", "/a.jpg", status, "f", 1, 2, outputs=("masks/a.png",), output_bytes=(1,)
    )
    record.error = error
    value = record.as_json()
    assert describe(to_line(value).encode()) is not None
    assert describe(to_line({**value, "outputs": [name]}).encode()) is None
    # Beside a good one, and in base64.
    assert (
        describe(to_line({**value, "outputs": ["masks/a.png", name], "output_bytes": [1, 2]}).encode())
        is None
    )
    if "\ud800" not in name:
        coded = {**value, "output_names_bytes": [to_base64(name)]}
        assert describe(to_line(coded).encode()) is None


WRONG: dict[str, list[Any]] = {
    "image": ["a\0", "\ud800", 1, None],
    "path": ["/a\0", 1],
    "width": [-1, 10**9, True, 1.5, "1"],
    "classes": [{"256": 1}, {"-1": 1}, {"a": 1}, {"0": -1}, {"0": 1e999}, {"0": 10**19}, [], None],
    "outputs": ["masks/a.png", [1], [None], {}, 1],
    "output_bytes": [[], [1, 2], [-1], ["1"], [None]],
    "looks": [{"color": 1}, []],
    "mtime_ns": [1e30, "1", 10**19],
    "seconds": [float("nan"), float("inf"), "1", None],
    "mean_confidence": [float("nan"), "1"],
    "finished": [None, 1],
    "fingerprint": [None, 1],
    "notes": [[1], 1],
    "error": [1, [], {"kind": "TruncatedImage"}],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_field_of_another_type_or_beyond_its_bounds_damages_the_line(key: str) -> None:
    outputs = ("masks/a.png",)
    record = Record("a.jpg", "a.jpg", "/a.jpg", "ok", "f", 1, 2, 3, 4, {0: 12}, outputs, (1,))
    for wrong in WRONG[key]:
        assert describe(to_line({**record.as_json(), key: wrong}).encode()) is None, wrong


def test_a_line_that_is_nested_too_deeply_is_damaged() -> None:
    assert describe(b"[" * 200_000) is None


def describe(line: bytes) -> tuple[str, str, tuple[str, ...]] | None:
    try:
        outline = read_outline(line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return outline.image, outline.status, outline.outputs
