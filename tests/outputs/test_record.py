"""A record survives its line, and nothing damaged is taken for whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fcn_cli.common.errors import Failure, FailureKind
from fcn_cli.common.output_layout import is_output_file, output_file, output_type_names
from fcn_cli.outputs.json_text import to_base64, to_line
from fcn_cli.outputs.record import Record

from ..made_output import plain_record

TEXTS = st.one_of(
    st.sampled_from(["a.jpg", 'q"uote', "back\\slash", "é", "\udce9", "", "a, b", "a', '"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
)
COUNTS = st.integers(0, 2**63 - 1)
SIDES = st.none() | st.integers(0, 10**9 - 1)
TEXTS_OF_UTF8 = TEXTS.filter(lambda text: "\udce9" not in text)
FILES = st.builds(
    lambda kind, name: output_file(name, kind),
    st.sampled_from(output_type_names()),
    st.sampled_from(
        ["a.png", "sub/b, c.png", 'q"uote.png', "é.png", "\udce9.png", ".hidden/a.png", "a/..b.png"]
    ),
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    names = draw(st.lists(FILES, max_size=3))
    failed = draw(st.booleans())
    return plain_record(
        draw(TEXTS),
        *names,
        source=draw(TEXTS),
        path=draw(TEXTS),
        status="failed" if failed else draw(st.sampled_from(["ok", "gone"])),
        size_bytes=draw(st.none() | COUNTS),
        mtime_ns=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        width=draw(SIDES),
        classes=draw(st.dictionaries(st.integers(0, 255), COUNTS, max_size=3)),
        looks=draw(st.dictionaries(TEXTS_OF_UTF8, TEXTS_OF_UTF8, max_size=2)),
        mean_confidence=draw(st.none() | st.floats(0, 1)),
        seconds=round(draw(st.floats(0, 1e9)), 3),
        notes=tuple(draw(st.lists(TEXTS_OF_UTF8, max_size=2))),
        error=Failure(FailureKind.BROKEN, draw(TEXTS_OF_UTF8)) if failed else None,
        content=draw(st.none() | TEXTS_OF_UTF8),
        version=draw(st.none() | TEXTS_OF_UTF8),
    )


@given(records(), st.data())
def test_a_record_is_read_whole_or_is_damaged(record: Record, data: st.DataObject) -> None:
    line = to_line(record.as_json()).encode()
    assert Record.from_line(line) == record
    # A few bytes that are lost, doubled or changed.
    place = data.draw(st.integers(0, len(line)))
    damaged = line[:place] + data.draw(st.binary(max_size=3)) + line[place + data.draw(st.integers(0, 9)) :]
    try:
        read = Record.from_line(damaged)
    except ValueError:
        return
    assert all(map(is_output_file, read.outputs))
    assert len(read.outputs) == len(read.output_bytes)
    again = replace(read, seconds=round(read.seconds, 3))
    assert Record.from_line(to_line(again.as_json()).encode()) == again


def test_every_key_but_the_later_ones_has_to_be_there() -> None:
    value = plain_record("a.jpg", "masks/a.png").as_json()
    for key in value:
        line = to_line({name: one for name, one in value.items() if name != key}).encode()
        assert is_whole(line) == (key in {"etag", "content", "version"}), key


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
    value = plain_record("a.jpg", "masks/a.png", status=status, error=error).as_json()
    assert is_whole(to_line(value).encode())
    assert not is_whole(to_line({**value, "outputs": [name]}).encode())
    # Beside a good one, and in base64.
    beside = {**value, "outputs": ["masks/a.png", name], "output_bytes": [1, 2]}
    assert not is_whole(to_line(beside).encode())
    if "\ud800" not in name:
        coded = {**value, "outputs": ["masks/a\\xe9.png"], "output_names_bytes": [to_base64(name)]}
        assert not is_whole(to_line(coded).encode())


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
    "error": [1, [], {"kind": "TruncatedImage"}, {"kind": "BrokenImage", "message": "", "limit": 10**30}],
    "status": ["done", 1, None],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_field_of_another_type_or_beyond_its_bounds_damages_the_line(key: str) -> None:
    value = plain_record("a.jpg", "masks/a.png", width=3, height=4, classes={0: 12}).as_json()
    for wrong in WRONG[key]:
        assert not is_whole(to_line({**value, key: wrong}).encode()), wrong


def test_a_line_that_is_nested_too_deeply_is_damaged() -> None:
    assert not is_whole(b"[" * 200_000)
    whole = to_line(plain_record("a.jpg").as_json()).encode()
    assert not is_whole(whole.replace(b"{", b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b", ", 1))


def is_whole(line: bytes) -> bool:
    try:
        Record.from_line(line)
    except ValueError:
        return False
    return True
