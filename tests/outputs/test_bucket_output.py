"""`--output s3://…` with a bucket in memory: what a local run writes, in an order that survives a kill."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcn_cli.outputs.bucket_journal import Grouping
from fcn_cli.outputs.lease import LeaseTimes
from fcn_cli.outputs.request import OutputRequest

from ..conftest import SMALL, Fcn, MakeImages, tree
from .memory_bucket import Killed, MemoryBucket, install

OUT = "s3://bucket/out"
FAST = (*SMALL, "--workers", "0")
NAMES = ["a.png", "sub/b #1.png", "sub/ü?[x]%.png", "d.png"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    return install(monkeypatch)


def durable(objects: dict[str, bytes]) -> list[dict[str, Any]]:
    """Return the records that a reader who knows only docs/output.md finds."""
    # S3's ETag of an object that is put in one piece.
    version = hashlib.md5(objects["manifest.jsonl"]).hexdigest() if "manifest.jsonl" in objects else "new"
    numbers = {}
    for name in objects:
        if match := re.fullmatch(rf"manifest\.parts/{version}-(\d+)\.jsonl", name):
            numbers[name] = int(match[1])
    parts = (objects[name] for name in sorted(numbers, key=numbers.__getitem__))
    data = objects.get("manifest.jsonl", b"") + b"".join(parts)
    return [json.loads(line) for line in data.splitlines()]


def check_records(objects: dict[str, bytes]) -> int:
    """Check that all files of all last records are there, whole, and as recorded; return their number."""
    last = {record["image"]: record for record in durable(objects)}
    for record in last.values():
        if record["status"] != "ok":
            continue
        for name, size in zip(record["outputs"], record["output_bytes"], strict=True):
            assert len(objects[name]) == size, name
            if name.startswith(("masks/", "color/")):
                with Image.open(io.BytesIO(objects[name])) as image:
                    image.load()
                    histogram = {str(index): count for index, count in enumerate(image.histogram()) if count}
                assert histogram == record["classes"], name
    return len(last)


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in {"finished", "seconds"}}


def assert_as_local(objects: dict[str, bytes], local: Path, *, resumed: bool = False) -> None:
    """Check that a bucket has what a local run wrote, but for times, and how the last run computed."""
    expected = tree(local)
    for name in (".fcn.lock", "run.json"):
        expected.pop(name, None)
    locks = [name for name in objects if name.startswith(".fcn.lock.")]
    assert [objects[name] for name in locks] == [b""]
    found = {name: data for name, data in objects.items() if name not in {"run.json", *locks}}
    assert found.keys() == expected.keys()
    for name in expected:
        if name.startswith(("masks/", "color/", "overlay/")) or name in {"stats.csv", "classes.json"}:
            assert found[name] == expected[name], name
    for name in ("manifest.jsonl",):
        lines = [
            {json.loads(line)["image"]: json.loads(line) for line in data[name].splitlines()}
            for data in (found, expected)
        ]
        assert {k: untimed(v) for k, v in lines[0].items()} == {k: untimed(v) for k, v in lines[1].items()}
    summaries = [json.loads(data["summary.json"]) for data in (found, expected)]
    assert summaries[0]["totals"] == summaries[1]["totals"]
    assert resumed or summaries[0]["run"].keys() == summaries[1]["run"].keys()
    assert json.loads(found["settings.json"]) == json.loads(expected["settings.json"])


@pytest.mark.long
def test_a_bucket_gets_what_a_directory_gets(bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages) -> None:
    made = make_images(NAMES)
    (made / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    kinds = ("--write", "masks,color,overlay")
    fcn("segment", made, *FAST, *kinds, "-o", "local", code=1)
    done = fcn("segment", made, *FAST, *kinds, "-o", OUT, code=1)
    assert done.stderr.splitlines()[-1].endswith("see s3://bucket/out")
    assert_as_local(bucket.names("bucket/out"), Path("local"))
    assert check_records(bucket.names("bucket/out")) == 5
    assert json.loads(bucket.names("bucket/out")["run.json"])["exit_code"] == 1
    # What a copy of it holds, the commands for directories know.
    copy = bucket.copy_to("bucket/out", Path("copy"))
    fcn("verify", copy)
    fcn("status", copy, code=1)


@pytest.mark.slow
@pytest.mark.long
def test_every_file_is_there_before_its_record(
    bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Grouping.__init__, "__defaults__", (0.0, 1))
    make_images(NAMES)
    checked = []
    bucket.after_write = lambda: checked.append(check_records(bucket.names("bucket/out")))
    fcn("segment", "made", *FAST, "-o", OUT)
    # Another look retracts the records first.
    fcn("segment", "made", *FAST, "-o", OUT, "--palette", "voc")
    fcn("segment", "made", *FAST, "-o", OUT, "--overwrite", "--resize", "48")
    (Path("made") / "d.png").unlink()
    fcn("segment", "made", *FAST, "-o", OUT, "--resize", "48", "--prune")
    assert max(checked) == 4
    assert {name for name in bucket.names("bucket/out") if "d." in name} == set()
    assert check_records(bucket.names("bucket/out")) == 4


@pytest.mark.long
def test_what_is_done_is_left_as_it_is(bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages) -> None:
    make_images(NAMES)
    fcn("segment", "made", *FAST, "-o", OUT)
    before = bucket.names("bucket/out")
    again = fcn("segment", "made", *FAST, "-o", OUT)
    assert "nothing to do: all 4 images were done before" in again.stderr
    after = bucket.names("bucket/out")
    last_run = {"run.json", "summary.json", ".fcn.lock.1", ".fcn.lock.2"}
    assert {name: data for name, data in after.items() if name not in last_run} == {
        name: data for name, data in before.items() if name not in last_run
    }
    # A file that is missing or has another size is made again.
    del bucket.objects["bucket/out/masks/a.png"]
    bucket.write("bucket/out/color/d.png", b"short")
    assert fcn("segment", "made", *FAST, "-o", OUT, "--dry-run").stdout.count("skip") == 2
    fcn("segment", "made", *FAST, "-o", OUT)
    assert bucket.names("bucket/out")["masks/a.png"] == before["masks/a.png"]
    assert bucket.names("bucket/out")["color/d.png"] == before["color/d.png"]
    fcn("segment", "made", *FAST, "-o", OUT, "--resize", "48", code=2)


@pytest.mark.slow
@pytest.mark.long
def test_shards_leave_what_one_run_leaves(bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages) -> None:
    make_images(NAMES)
    fcn("segment", "made", *FAST, "-o", "local")
    fcn("segment", "made", *FAST, "-o", OUT, "--shard", "1/2")
    assert "manifest.1-of-2.jsonl" in bucket.names("bucket/out")
    fcn("segment", "made", *FAST, "-o", OUT, "--shard", "2/2")
    objects = bucket.names("bucket/out")
    assert {name: data for name, data in objects.items() if name.startswith(("masks", "color", "stats"))} == {
        name: data
        for name, data in tree(Path("local")).items()
        if name.startswith(("masks", "color", "stats"))
    }
    assert not [name for name in objects if name.startswith(("manifest.1", "manifest.2"))]
    assert not any(data for name, data in objects.items() if name.startswith(".fcn"))
    assert check_records(objects) == 4
    assert json.loads(objects["summary.json"])["run"]["shards"] == 2
    assert "merged: 4 images: 4 done" in fcn("merge", OUT).stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_run_whose_lock_was_taken_over_stops_and_can_be_continued(
    bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LeaseTimes.__init__, "__defaults__", (0.01, 600.0))
    make_images(NAMES)
    lock = "bucket/out/.fcn.lock.2"

    def another_takes_it() -> None:
        if bucket.log[-1][1].startswith("bucket/out/masks/"):
            bucket.after_write = lambda: None
            bucket.objects[lock] = b'{"token": "another"}', int(time.time() * 1e9)
            monkeypatch.setattr("fcn_cli.outputs.lease._CERTAIN_SHARE", 0)

    bucket.after_write = another_takes_it
    stopped = fcn("segment", "made", *FAST, "-o", OUT, code=5)
    assert "s3://bucket/out/.fcn.lock.1: this run has lost its lock" in stopped.stderr
    assert lock in bucket.objects
    assert "summary.json" not in bucket.names("bucket/out")
    monkeypatch.setattr("fcn_cli.outputs.lease._CERTAIN_SHARE", 0.9)
    assert "another run is writing there" in fcn("segment", "made", *FAST, "-o", OUT, code=4).stderr
    bucket.objects[lock] = b"", int(time.time() * 1e9)
    fcn("segment", "made", *FAST, "-o", OUT)
    assert check_records(bucket.names("bucket/out")) == 4


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "access denied"), "cannot be written (access denied)"),
        (
            ConnectionError(111, "no connection to the server"),
            "cannot be written (no connection to the server)",
        ),
    ],
)
def test_a_store_that_refuses_in_the_middle_ends_the_run(
    bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages, error: OSError, text: str
) -> None:
    make_images(NAMES)

    def refuse() -> None:
        if any(path.startswith("bucket/out/masks/") for _, path in bucket.log):
            raise error

    bucket.before_write = refuse
    ended = fcn("segment", "made", *FAST, "-o", OUT, code=5)
    assert text in ended.stderr
    assert all(line.startswith("fcn: ") for line in ended.stderr.splitlines())
    bucket.before_write = lambda: None
    # Its lock could not be removed.
    bucket.clock = lambda: time.time() + 601
    fcn("segment", "made", *FAST, "-o", OUT)
    assert check_records(bucket.names("bucket/out")) == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("segment", "made", "-o", "https://host/out"), "https:// is for input only"),
        (("segment", "made", "-o", "memory://out"), "it is lost when the process ends"),
        (("segment", "made", "-o", "sftp://host/out"), "cannot write to sftp://"),
        (("segment", "made", "-o", "s3://"), "has no bucket"),
        (("segment", "made", "-o", OUT, "--report"), "--report: a report needs a local directory"),
        (("segment", "made", "-o", OUT, "--watch"), "--watch needs a local --output"),
        (("status", OUT), "needs a local directory"),
        (("verify", OUT), "needs a local directory"),
        (("report", OUT), "needs a local directory"),
        (("list", OUT), "needs a local directory"),
        (("export", OUT, "--format", "voc", "-o", "x"), "needs a local directory"),
        (("export", "made", "--format", "voc", "-o", OUT), "needs a local directory"),
        (("merge", OUT), "not an output directory of fcn"),
    ],
)
def test_what_a_url_cannot_be_used_for_is_refused_in_one_line(
    bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages, arguments: tuple[str, ...], text: str
) -> None:
    make_images(["a.png"])
    refused = fcn(*arguments, code=2)
    assert text in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not bucket.log


@pytest.mark.slow
@pytest.mark.long
def test_a_key_that_is_too_long_costs_its_image_only(
    bucket: MemoryBucket, fcn: Fcn, make_images: MakeImages
) -> None:
    make_images(["a.png", f"{'d' * 230}/b.png"])
    far = f"s3://bucket/{'/'.join(['x' * 200] * 4)}"
    ended = fcn("segment", "made", *FAST, "-o", far, code=1)
    assert "a key has at most 1024 bytes" in ended.stderr
    assert len([path for path in bucket.objects if "/masks/" in path]) == 1


def test_a_request_takes_no_driver_to_other_processes(bucket: MemoryBucket) -> None:
    request = OutputRequest(OUT, ("masks",))
    assert str(request.store) == OUT
    assert pickle.loads(pickle.dumps(request)) == request
    assert "store" not in vars(pickle.loads(pickle.dumps(request)))
    assert request.store is request.store
    assert str(OutputRequest("file:///tmp/x").store) == "/tmp/x"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("after", [False, True])
def test_a_run_killed_at_any_write_is_continued(
    bucket: MemoryBucket,
    fcn: Fcn,
    make_images: MakeImages,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    monkeypatch.setattr(Grouping.__init__, "__defaults__", (3600.0, 2))
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: None)
    make_images(NAMES)
    arguments = ("segment", "made", *FAST, "-o", OUT, "--overwrite", "--palette")
    fcn(*arguments, "hub")
    fcn("segment", "made", *FAST, "-o", "local")
    for run, kill in enumerate(range(1, 200, 3 if after else 4), 1):
        # Sometimes into an empty bucket, sometimes with another look, which retracts records.
        if run % 2:
            bucket.objects.clear()
        bucket.kill_at(kill, after=after)
        try:
            fcn(*arguments, "hub" if run % 2 else "voc")
        except Killed:
            pass
        else:
            break
        finally:
            bucket.kill_at(0, after=False)
            for timer in threading.enumerate():
                if isinstance(timer, threading.Timer):
                    timer.cancel()
        check_records(bucket.names("bucket/out"))
        # The dead run's lock expires.
        bucket.clock = partial(later, 3600 * run)
        fcn("segment", "made", *FAST, "-o", OUT)
        assert_as_local(bucket.names("bucket/out"), Path("local"), resumed=True)
    assert kill > 20


def later(seconds: float) -> float:
    return time.time() + seconds
