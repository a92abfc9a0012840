"""Records follow their files, in order, however long each file takes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from fcn_cli.common.errors import Failure, FailureKind, ImageError, OutputLost
from fcn_cli.common.label_map import Segmentation, read_label_map
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.discovery import Source
from fcn_cli.outputs import record, write_queue
from fcn_cli.outputs.directory import OutputDirectory
from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.looks import LookRequest
from fcn_cli.outputs.record import Record
from fcn_cli.outputs.write_queue import Outcome, WriteQueue

from ..conftest import journal_of, wait_until

KINDS = ("masks", "color")
FINGERPRINT = "0123456789abcdef"


def source(name: str) -> Source:
    return Source(f"{name}.png", f"/photos/{name}.png", f"photos/{name}.png", f"{name}.png", 10, 20)


def segmentation(index: int = 1) -> Segmentation:
    return Segmentation(np.full((6, 8), index, np.uint8), precision="fp32")


class Queue:
    """A write queue on a directory, and what it told of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = Journal(root)
        self.folder = OutputDirectory(root, LookRequest().resolve(None))
        self.finished: list[Record] = []
        self.writes = WriteQueue(
            self.folder, self.journal, lambda outcome: self.finished.append(outcome.record), DecodeOptions()
        )

    def add(self, name: str, index: int = 1) -> None:
        self.writes.add(source(name), record.begin(source(name), FINGERPRINT), segmentation(index), KINDS)

    def images(self) -> list[str]:
        return [done.image.removesuffix(".png") for done in self.finished]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def test_records_come_in_order_after_their_files(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    write = OutputDirectory.write

    def first_is_slow(folder: OutputDirectory, output: str, *rest: object) -> object:
        if output == "a.png":
            assert go.wait(20)
        return write(folder, output, *rest)  # type: ignore[arg-type]

    appended: list[list[str]] = []
    append = Journal.append

    def watched(journal: Journal, records: Iterable[Record]) -> None:
        listed = list(records)
        for one in listed:
            for name, size in one.output_sizes().items():
                assert (queue.root / name).stat().st_size == size
        appended.append([one.image for one in listed])
        append(journal, listed)

    monkeypatch.setattr(OutputDirectory, "write", first_is_slow)
    monkeypatch.setattr(Journal, "append", watched)
    with queue.writes as writes:
        for name in "abc":
            queue.add(name)
        failure = Failure(FailureKind.BROKEN, "broken")
        writes.add_outcome(Outcome(record.finish(record.begin(source("d"), FINGERPRINT), failure)))
        writes.commit()
        # The failed image waits for its turn too.
        assert appended == []
        go.set()
        writes.commit(everything=True)
    assert [image for images in appended for image in images] == ["a.png", "b.png", "c.png", "d.png"]
    assert queue.images() == ["a", "b", "c", "d"]
    assert [done.status for done in queue.finished] == ["ok", "ok", "ok", "failed"]
    assert queue.finished[3].error == failure
    done = journal_of(queue.root)["a.png"]
    assert (done["width"], done["height"], done["classes"]) == (8, 6, {"1": 48})
    assert done["outputs"] == ["masks/a.png", "color/a.png"]


@pytest.mark.parametrize("bound", [{"_MAX_WAITING_IMAGES": 2}, {"_MAX_WAITING_BYTES": 2 * 48}])
def test_a_commit_waits_only_beyond_the_bounds(
    bound: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bound.items():
        monkeypatch.setattr(write_queue, name, value)
    queue, go = Queue(tmp_path), threading.Event()
    write = OutputDirectory.write

    def slow(*arguments: object) -> object:
        assert go.wait(20)
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputDirectory, "write", slow)
    with queue.writes as writes:
        queue.add("a")
        queue.add("b")
        writes.commit()
        assert queue.finished == []
        queue.add("c")
        threading.Timer(0.1, go.set).start()
        writes.commit()
        assert go.is_set()
        assert (queue.root / "color/a.png").exists()
        writes.commit(everything=True)
    assert queue.images() == ["a", "b", "c"]


def test_a_kind_that_cannot_be_added_leaves_the_earlier_record_and_files(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queue.writes as writes:
        queue.add("a", 3)
        writes.commit(everything=True)
        before = (queue.root / "manifest.jsonl").read_bytes()
        earlier = queue.journal.get("a.png")
        assert earlier is not None

        def refused(*_: object) -> None:
            raise ImageError(FailureKind.OUTPUT_REFUSED, "refused")

        monkeypatch.setattr(OutputDirectory, "write", refused)
        # The image is read by another path than the recorded one: that is what a message names.
        other = Source("a.png", "/link/a.png", "link/a.png", "a.png", 10, 20)
        writes.add(other, earlier, segmentation(3), ["overlay"], completes=True)
        writes.commit(everything=True)
    failed = queue.finished[-1]
    assert (failed.status, failed.source, failed.outputs, failed.classes) == (
        "failed",
        "link/a.png",
        (),
        {},
    )
    assert failed.error == Failure(FailureKind.OUTPUT_REFUSED, "refused")
    assert (queue.root / "manifest.jsonl").read_bytes() == before
    assert (read_label_map(queue.root / "masks/a.png") == 3).all()


def test_what_is_retracted_is_in_no_record_until_it_is_written_again(queue: Queue) -> None:
    with queue.writes as writes:
        queue.add("a")
        writes.commit(everything=True)
        writes.retract([(source("a"), ["color"])])
        writes.commit(everything=True)
        assert journal_of(queue.root)["a.png"]["outputs"] == ["masks/a.png"]
        rest = queue.journal.get("a.png")
        assert rest is not None
        writes.add(source("a"), rest, segmentation(), ["color"])
        writes.commit(everything=True)
    assert journal_of(queue.root)["a.png"]["outputs"] == ["masks/a.png", "color/a.png"]


def test_no_file_is_written_again_before_the_record_of_it_is_retracted(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's thread is slow; the writers wait for it, and only for that."""
    append, write = Journal.append, OutputDirectory.write
    go, events = threading.Event(), list[str]()

    def slow(journal: Journal, records: Iterable[Record]) -> None:
        assert go.wait(20)
        append(journal, records)
        events.append("append")

    def watched(folder: OutputDirectory, image: Source, *rest: object) -> object:
        events.append(f"write {image.output}")
        return write(folder, image, *rest)  # type: ignore[arg-type]

    with queue.writes as writes:
        queue.add("a")
        writes.commit(everything=True)
        monkeypatch.setattr(Journal, "append", slow)
        monkeypatch.setattr(OutputDirectory, "write", watched)
        queue.add("b")
        writes.retract([(source("a"), KINDS), (source("c"), KINDS)])
        queue.add("a", 2)
        wait_until(lambda: events)
        assert events == ["write b.png"]
        assert (read_label_map(queue.root / "masks/a.png") == 1).all()
        go.set()
        writes.commit(everything=True)
    assert events[:3] == ["write b.png", "append", "write a.png"]
    assert journal_of(queue.root)["a.png"]["classes"] == {"2": 48}


def test_what_becomes_ready_during_an_append_goes_into_one_more(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal.append
    go, appended = threading.Event(), list[int]()

    def slow(journal: Journal, records: Iterable[Record]) -> None:
        listed = list(records)
        appended.append(len(listed))
        assert go.wait(20)
        append(journal, listed)

    monkeypatch.setattr(Journal, "append", slow)
    with queue.writes as writes:
        for name in "abcdef":
            queue.add(name)
            wait_until(lambda name=name: (queue.root / f"color/{name}.png").exists())  # type: ignore[misc]
            while not appended:
                writes.commit()
            writes.commit()
        # Nobody waited for the journal meanwhile, and nobody was told of what is not in it.
        assert appended == [1]
        assert queue.finished == []
        go.set()
        writes.commit(everything=True)
    assert appended == [1, 5]
    assert queue.images() == list("abcdef")


def test_a_journal_that_cannot_be_written_is_told_by_the_next_commit(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Journal, "append", full)
    with queue.writes as writes:
        queue.add("a")
        with pytest.raises(OutputLost, match="no space left"):
            writes.commit(everything=True)
    assert queue.finished == []


def test_leaving_by_an_exception_drops_what_has_not_begun(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    begun: list[str] = []

    def slow(folder: OutputDirectory, output: str, *_: object) -> dict[str, int]:
        begun.append(output)
        assert go.wait(20)
        return {}

    def left() -> None:
        with queue.writes:
            for name in "abcdefgh":
                queue.add(name)
            threading.Timer(0.1, go.set).start()
            raise KeyboardInterrupt

    monkeypatch.setattr(OutputDirectory, "write", slow)
    with pytest.raises(KeyboardInterrupt):
        left()
    assert 1 <= len(begun) <= 4
    assert queue.finished == []
    assert not (queue.root / "manifest.jsonl").exists()
