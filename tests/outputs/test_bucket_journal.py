"""The journal of an object store: in parts, whatever ends the run, and whoever else writes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fcn_cli.common.errors import OutputLost
from fcn_cli.common.shard import Shard
from fcn_cli.common.stores import StoreObject
from fcn_cli.inputs.discovery import Source
from fcn_cli.outputs import bucket_journal
from fcn_cli.outputs.bucket_journal import Grouping
from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.json_text import to_line
from fcn_cli.outputs.record import Record, Written, begin, finish, gone

from .memory_bucket import Killed, MemoryBucket, install

EVERY_ONE = Grouping(3600, 1)
MARK = "0123456789abcdef"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    return install(monkeypatch)


def record(name: str, version: int = 0, *, only_mask: bool = False) -> Record:
    source = Source(f"{name}.png", f"/photos/{name}.png", f"photos/{name}.png", f"{name}.png", 10, 20)
    sizes = {f"masks/{name}.png": 100 + version}
    if not only_mask:
        sizes[f"color/{name}.png"] = 200 + version
    return done(source, sizes, version)


def done(source: Source, sizes: dict[str, int], version: int) -> Record:
    written = Written(8, 6, {0: 48}, sizes, {}, None, version)
    return replace(finish(begin(source, MARK), written), finished="2026-11-24T03:00:00Z")


def records_of(bucket: MemoryBucket, shard: Shard | None = None) -> list[Record]:
    with contextlib.closing(Journal(bucket.store(), shard)) as journal:
        return list(journal)


def parts_of(bucket: MemoryBucket) -> list[str]:
    return [name for name in bucket.names("bucket/out") if name.startswith("manifest.parts/")]


def append(bucket: MemoryBucket, groups: Sequence[Sequence[Record]], grouping: Grouping = EVERY_ONE) -> None:
    with contextlib.closing(Journal(bucket.store(grouping=grouping))) as journal:
        journal.consolidate()
        for group in groups:
            journal.append(group)
        journal.end_appending()


def test_a_journal_ends_as_one_object(bucket: MemoryBucket) -> None:
    groups = [[record("a"), record("b")], [record("c")], [record("a", 1)]]
    append(bucket, groups)
    lines = bucket.names("bucket/out")["manifest.jsonl"].splitlines()
    assert len(lines) == 4
    assert parts_of(bucket) == []
    assert records_of(bucket) == [record("a", 1), record("b"), record("c")]
    version = bucket.etag("bucket/out/manifest.jsonl")
    append(bucket, [[record("d")]])
    assert ("create", f"bucket/out/manifest.parts/{version}-0001.jsonl") in bucket.log
    assert parts_of(bucket) == []
    assert records_of(bucket) == [record("a", 1), record("b"), record("c"), record("d")]


def test_nothing_is_written_where_nothing_is_appended(bucket: MemoryBucket) -> None:
    append(bucket, [[record("a")]])
    before = len(bucket.log)
    append(bucket, [])
    assert len(bucket.log) == before


def test_two_processes_never_write_one_journal(bucket: MemoryBucket) -> None:
    first, second = Journal(bucket.store(grouping=EVERY_ONE)), Journal(bucket.store(grouping=EVERY_ONE))
    first.append([record("a")])
    with pytest.raises(OutputLost, match="another run has written it"):
        second.append([record("b")])
    # And never again, even where the number would be free.
    with pytest.raises(OutputLost):
        second.append([record("b", 1)])
    first.close()
    second.close()
    assert records_of(bucket) == [record("a")]


def test_a_part_whose_acknowledgement_was_lost_is_known_for_ones_own(bucket: MemoryBucket) -> None:
    create = MemoryBucket.create

    def twice(path: str, data: bytes) -> str | None:
        create(bucket, path, data)
        return create(bucket, path, data)

    bucket.create = twice  # type: ignore[method-assign]
    append(bucket, [[record("a")], [record("b")]])
    assert records_of(bucket) == [record("a"), record("b")]


def test_records_wait_for_others_but_not_where_files_are_to_be_changed(bucket: MemoryBucket) -> None:
    journal = Journal(bucket.store(grouping=Grouping(3600, 3)))
    journal.append([record("a")])
    journal.append([record("b")])
    assert not parts_of(bucket)
    assert journal.get("a.png") == record("a")
    journal.append([record("c")])
    assert records_of(bucket) == [record("a"), record("b"), record("c")]
    journal.append([record("d")])
    assert len(records_of(bucket)) == 3
    # A record that takes a file back is there before the file is written again, and all before it.
    journal.append([record("a", only_mask=True)])
    assert records_of(bucket) == [record("a", only_mask=True), *map(record, "bcd")]
    journal.append([record("a", 1)])
    assert records_of(bucket) == [record("a", only_mask=True), *map(record, "bcd")]
    journal.append([gone(record("b"))])
    assert records_of(bucket) == [record("a", 1), *map(record, "cd")]
    assert len(parts_of(bucket)) == 1
    journal.close()


def test_records_wait_no_longer_than_asked(bucket: MemoryBucket) -> None:
    journal = Journal(bucket.store(grouping=Grouping(0.05, 1000)))
    journal.append([record("a")])
    deadline = time.monotonic() + 10
    while not parts_of(bucket):
        assert time.monotonic() < deadline
    journal.close()


def test_what_a_late_write_met_is_said_by_the_next_one(bucket: MemoryBucket) -> None:
    def refuse() -> None:
        raise PermissionError(13, "denied")

    journal = Journal(bucket.store(grouping=Grouping(0.05, 1000)))
    bucket.before_write = refuse
    journal.append([record("a")])
    home = journal._home
    deadline = time.monotonic() + 10
    while home._failure is None:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
    with pytest.raises(PermissionError):
        journal.append([record("b")])
    with pytest.raises(PermissionError):
        journal.end_appending()
    journal.close()


def test_an_unreadable_line_and_a_clock_that_is_ahead_cost_no_record_and_no_request(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether files are newer than their records was asked once, by one request for each."""
    bucket.clock = lambda: time.time() + 5
    records = [record(f"p{number:03}") for number in range(200)]
    append(bucket, [records])
    for one in records:
        for name, size in one.output_sizes().items():
            bucket.write(f"bucket/out/{name}", b"x" * size)
    whole = bucket.names("bucket/out")["manifest.jsonl"]
    bucket.write("bucket/out/manifest.jsonl", whole + b"\0\0\0\n")
    asked: list[str] = []

    def info(path: str) -> StoreObject | None:
        asked.append(path)
        return MemoryBucket.info(bucket, path)

    monkeypatch.setattr(bucket, "info", info)
    bucket.reads = 0
    with contextlib.closing(Journal(bucket.store())) as journal:
        assert list(journal) == records
        assert (journal.index.damaged, journal.index.unknown) == (1, 1)
        journal.consolidate()
        assert list(journal) == records
    assert bucket.names("bucket/out")["manifest.jsonl"] == whole
    assert (bucket.reads, len(asked)) == (1, 1)


def test_many_parts_stay_few_objects(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    line = len(to_line(record("p0000").as_json())) + 1
    monkeypatch.setattr(bucket_journal, "PART_BYTES", 10 * line)
    journal = Journal(bucket.store(grouping=EVERY_ONE))
    for number in range(102):
        journal.append([record(f"p{number:04}")])
        assert len(parts_of(bucket)) == number // 10 + 1
    journal.index.close()
    bucket.reads = 0
    assert [found.image for found in records_of(bucket)] == [f"p{number:04}.png" for number in range(102)]
    assert bucket.reads == 11
    append(bucket, [[record("z")]])
    assert len(records_of(bucket)) == 103
    assert parts_of(bucket) == []


def test_a_write_that_hangs_past_the_end_of_its_lease_changes_nothing(bucket: MemoryBucket) -> None:
    """A whole journal whose put arrives when the successor has written more."""
    append(bucket, [[record("z")]])
    first = Journal(bucket.store(grouping=EVERY_ONE))
    first.append([record("a")])
    first.append([record("b")])
    hung = threading.Event(), threading.Event()

    def hang() -> None:
        bucket.before_write = lambda: None
        hung[0].set()
        # Without the bucket's lock, which others need meanwhile.
        bucket._mutex.release()
        hung[1].wait(30)
        bucket._mutex.acquire()

    bucket.before_write = hang
    errors: list[BaseException] = []

    def end() -> None:
        try:
            first.end_appending()
        except OutputLost as error:
            errors.append(error)

    thread = threading.Thread(target=end)
    thread.start()
    assert hung[0].wait(30)
    append(bucket, [[record("c")]])
    hung[1].set()
    thread.join(30)
    assert [type(error) for error in errors] == [OutputLost]
    assert records_of(bucket) == [*map(record, "abcz")]


def test_a_late_part_of_another_version_does_not_count(bucket: MemoryBucket) -> None:
    first = Journal(bucket.store(grouping=EVERY_ONE))
    first.append([record("a")])
    append(bucket, [[record("b")]])
    # The killed run's next part arrives now.
    bucket.write(
        "bucket/out/manifest.parts/new-0002.jsonl", to_line(record("a", 7).as_json()).encode() + b"\n"
    )
    assert records_of(bucket) == [record("a"), record("b")]
    append(bucket, [[record("c")]])
    assert parts_of(bucket) == []
    assert records_of(bucket) == [record("a"), record("b"), record("c")]
    first.index.close()


def test_parts_of_0_2_are_read_and_merged(bucket: MemoryBucket) -> None:
    """They follow any version of the object; a range holds others, an empty one what the object has."""
    append(bucket, [[record("a")]])

    def part(name: str, *records: Record) -> None:
        data = b"".join(to_line(one.as_json()).encode() + b"\n" for one in records)
        bucket.write(f"bucket/out/manifest.parts/{name}.jsonl", data)

    part("00000001-00000003")
    part("00000002", record("a", 9))
    part("00000004-00000005", record("b"), record("c"))
    part("00000004", record("b"))
    part("00000006", record("a", 1))
    expected = [record("b"), record("c"), record("a", 1)]
    assert sorted(records_of(bucket), key=str) == sorted(expected, key=str)
    append(bucket, [[record("d")]])
    assert parts_of(bucket) == []
    assert sorted(records_of(bucket), key=str) == sorted([*expected, record("d")], key=str)


NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.tuples(NAMES, st.sampled_from(["whole", "mask", "gone", "moved"])), min_size=1, max_size=6
)


def made(step: tuple[str, str], number: int) -> Record:
    name, what = step
    if what == "gone":
        return gone(record(name, number))
    if what == "moved":
        # Another image takes the files over.
        source = Source(f"{name}.jpg", f"/photos/{name}.jpg", f"{name}.jpg", f"{name}.png", 10, 20)
        return done(source, {f"masks/{name}.png": number}, number)
    return record(name, number, only_mask=what == "mask")


def replayed(records: Sequence[Record]) -> dict[str, Record]:
    """Return what counts after so many records, by the rules of docs/output.md."""
    result: dict[str, Record] = {}
    for one in records:
        result.pop(one.image, None)
        if one.status == "gone":
            continue
        for image, other in list(result.items()):
            if {*other.outputs} & {*one.outputs}:
                del result[image]
        result[one.image] = one
    return result


@settings(max_examples=60)
@given(
    runs=st.lists(STEPS, min_size=1, max_size=3),
    kills=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=3, max_size=3),
    grouped=st.integers(1, 3),
)
def test_a_kill_at_any_write_loses_the_last_group_at_most(
    runs: list[list[tuple[str, str]]], kills: list[tuple[int, bool]], grouped: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bucket = install(patch)
        history: list[Record] = []
        for number, (steps, (kill, after)) in enumerate(zip(runs, kills, strict=False)):
            new = [made(step, 10 * number + place) for place, step in enumerate(steps)]
            bucket.kill_at(kill, after=after)
            ended = False
            try:
                append(bucket, [[one] for one in new], Grouping(3600, grouped))
                ended = True
            except Killed:
                pass
            bucket.kill_at(0, after=False)
            for timer in _timers():
                timer.cancel()
            found = {one.image: one for one in records_of(bucket)}
            possible = [replayed([*history, *new[:count]]) for count in range(len(new) + 1)]
            assert found in (possible[-1:] if ended else possible)
            # The history that counts goes on from what is there.
            history = [*history, *new[: len(possible) - 1 - possible[::-1].index(found)]]
        append(bucket, [[record("z")]])
        assert {one.image: one for one in records_of(bucket)} == replayed([*history, record("z")])
        assert parts_of(bucket) == []


def _timers() -> Iterator[threading.Timer]:
    return (thread for thread in threading.enumerate() if isinstance(thread, threading.Timer))
