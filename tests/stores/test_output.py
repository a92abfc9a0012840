"""An output directory in a bucket: killed, resumed, shared, cut off; nothing is ever readable in part."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcn_cli.common.shard import Shard
from fcn_cli.outputs.bucket_store import open_store
from tests.conftest import (
    HELD,
    SMALL,
    Finished,
    MakeImages,
    command,
    python_with,
    run_process,
    tree,
    wait_until,
)
from tests.outputs.test_bucket_output import check_records, durable
from tests.runs.test_shards import MERGED, do_share
from tests.s3_server import SECRET, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.long]

OUT = "s3://results/a run/out"
# Parts come often, so that a run of seconds has several.
FAST_PARTS = """
from fcn_cli.outputs.bucket_journal import Grouping
Grouping.__init__.__defaults__ = (0.1, 4)
"""
# Images take their time, so that a kill meets a run in the middle.
SLOWLY = """
import time
from fcn_cli.inputs import decoder
_decode_with = decoder.decode_with
def _slowly(*arguments, **options):
    time.sleep(0.5)
    return _decode_with(*arguments, **options)
decoder.decode_with = _slowly
"""
SHORT_LOCKS = """
from fcn_cli.outputs.lease import LeaseTimes
LeaseTimes.__init__.__defaults__ = (0.5, 3.0)
"""


def results(s3: S3Server) -> dict[str, bytes]:
    return {key.removeprefix("a run/out/"): data for key, data in s3.objects("results", "a run/out/").items()}


def start(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("segment", *arguments, *SMALL, "-o", OUT),
        cwd=cwd,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def segment(*arguments: str | Path, cwd: Path, code: int = 0, **options: Any) -> Finished:
    done = run_process("segment", *arguments, *SMALL, "-o", OUT, cwd=cwd, code=code, **options)
    assert SECRET not in done.stdout + done.stderr
    return done


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = running.communicate(timeout=120)
    assert SECRET not in errors
    assert "Traceback" not in errors
    return running.returncode, errors


class Reader(threading.Thread):
    """Lists the bucket again and again, and decodes every object that is new, until it is told to stop."""

    def __init__(self, s3: S3Server) -> None:
        super().__init__()
        self._s3 = s3
        self._over = threading.Event()
        self._seen: set[tuple[str, str]] = set()
        self.mask_counts: set[int] = set()
        self.decoded = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.05):
            listed = self._s3.client.list_objects_v2(Bucket="results", Prefix="a run/out/").get(
                "Contents", []
            )
            for item in listed:
                key, version = item["Key"], (item["Key"], item["ETag"])
                if version in self._seen:
                    continue
                self._seen.add(version)
                try:
                    self._read(key, self._s3.client.get_object(Bucket="results", Key=key)["Body"].read())
                except self._s3.client.exceptions.NoSuchKey:
                    # A part that was put together with others between the list and the reading.
                    continue
                except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
                    self.problems.append(f"{key}: {error!r}")
                self.decoded += 1
            self.mask_counts.add(sum("/masks/" in item["Key"] for item in listed))

    def _read(self, name: str, data: bytes) -> None:
        if name.endswith((".png", ".jpg")):
            with Image.open(io.BytesIO(data)) as image:
                image.load()
            assert name.endswith(".jpg") or data.endswith(b"IEND\xaeB`\x82")
        elif name.endswith(".jsonl"):
            assert not data or data.endswith(b"\n")
            for line in data.splitlines():
                json.loads(line)
        elif name.endswith(".json"):
            json.loads(data)

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def compared(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what does not depend on where the images are and when they were done."""
    changing = {"source", "path", "finished", "seconds", "mtime_ns", "etag", "content"}
    return {key: value for key, value in record.items() if key not in changing}


def test_a_run_between_buckets_is_killed_and_resumed_and_no_object_is_ever_partial(
    s3: S3Server, make_images: MakeImages, tmp_path: Path
) -> None:
    names = [f"{'sub [1]/' * (i % 2)}p #{i:02} ü%.png" for i in range(24)]
    made = make_images(names, size=(200, 150))
    kinds = ("--write", "masks,color,overlay")
    run_process("segment", made, *SMALL, *kinds, "-o", "local", cwd=tmp_path)
    s3.put("photos", {f"set 1/{name}": data for name, data in tree(made).items()})
    env = python_with(FAST_PARTS, tmp_path)
    (tmp_path / "slow").mkdir()
    slowly = python_with(FAST_PARTS + SLOWLY, tmp_path / "slow")
    with Reader(s3) as reader:
        running = start("s3://photos/set 1", *kinds, cwd=tmp_path, env=slowly)
        wait_until(lambda: len(list_records(s3)) >= 8, running, 120)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        killed = results(s3)
        recorded = check_records(killed)
        assert 8 <= recorded < 24
        assert "manifest.jsonl" not in killed
        assert killed[".fcn.lock.1"]
        # The lock of a dead process of this machine is taken over at once.
        segment("s3://photos/set 1", *kinds, cwd=tmp_path, env=env)
    assert not reader.problems
    # It looked at the bucket while there were some masks, and not yet all; and read all that it found.
    assert len({count for count in reader.mask_counts if 0 < count < 24}) >= 3
    assert reader.decoded > 3 * 24
    objects = results(s3)
    summary = json.loads(objects["summary.json"])
    assert summary["run"]["skipped"] == recorded
    local = tree(tmp_path / "local")
    for name, data in local.items():
        if name.startswith(("masks/", "color/", "overlay/")) or name in {"stats.csv", "classes.json"}:
            assert objects[name] == data, name
    assert check_records(objects) == 24
    expected = {
        record["image"]: compared(record) for record in map(json.loads, local["manifest.jsonl"].splitlines())
    }
    assert {record["image"]: compared(record) for record in durable(objects)} == expected
    assert summary["totals"] == json.loads(local["summary.json"])["totals"]
    assert not {name for name in objects if name.startswith("manifest.parts")}
    assert {name: data for name, data in objects.items() if name.startswith(".fcn")} == {".fcn.lock.2": b""}


def list_records(s3: S3Server) -> list[dict[str, Any]]:
    try:
        return durable({name: data for name, data in results(s3).items() if name.startswith("manifest")})
    except s3.client.exceptions.NoSuchKey:
        return []


@pytest.fixture
def held(
    request: pytest.FixtureRequest, s3: S3Server, make_images: MakeImages, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """A run with two images done, and one in hand until the file ``go`` is there; its lock expires soon."""
    make_images(["a.png", "b.png", "held.png"])
    env = python_with(HELD + FAST_PARTS + getattr(request, "param", SHORT_LOCKS), tmp_path)
    running = start("made", "--batch-size", "1", cwd=tmp_path, env=env)
    wait_until(lambda: (tmp_path / "opened").exists() and len(list_records(s3)) >= 2, running, 120)
    yield running
    if running.poll() is None:
        running.kill()
        running.communicate()


def test_two_runs_never_work_at_once(
    held: subprocess.Popen[str], s3: S3Server, make_images: MakeImages, tmp_path: Path
) -> None:
    refused = segment("made", cwd=tmp_path, code=4)
    assert f"{OUT}: another run is writing there (process {held.pid} on" in refused.stderr
    # The lock is refreshed, so it never expires; whoever waits, waits for the end.
    time.sleep(4)
    waiting = start("made", "--wait", "120", cwd=tmp_path)
    assert waiting.stderr is not None
    assert "waiting for another run" in waiting.stderr.readline()
    (tmp_path / "go").touch()
    assert ended(held)[0] == 0
    code, errors = ended(waiting)
    assert code == 0
    assert "all 3 images were done before" in errors


def test_the_lock_of_a_run_killed_elsewhere_expires(
    held: subprocess.Popen[str], s3: S3Server, tmp_path: Path
) -> None:
    held.kill()
    held.communicate()
    key = "a run/out/.fcn.lock.1"
    lock = json.loads(s3.client.get_object(Bucket="results", Key=key)["Body"].read())
    lock["process_table"], lock["host"] = "another machine", "elsewhere"
    s3.put("results", {key: json.dumps(lock).encode()})
    (tmp_path / "go").touch()
    refused = segment("made", cwd=tmp_path, code=4)
    assert "another run is writing there" in refused.stderr
    assert "holds it for 10 more minutes" in refused.stderr
    (tmp_path / "short").mkdir()
    segment("made", "--wait", "90", cwd=tmp_path, env=python_with(SHORT_LOCKS, tmp_path / "short"))
    assert check_records(results(s3)) == 3
    assert json.loads(results(s3)["summary.json"])["run"]["skipped"] == 2


def test_a_paused_run_whose_lock_was_taken_over_stops(
    held: subprocess.Popen[str], s3: S3Server, tmp_path: Path
) -> None:
    held.send_signal(signal.SIGSTOP)
    (tmp_path / "short").mkdir()
    env = python_with(SHORT_LOCKS, tmp_path / "short")
    (tmp_path / "go").touch()
    segment("made", "--wait", "90", cwd=tmp_path, env=env)
    before = results(s3)
    held.send_signal(signal.SIGCONT)
    code, errors = ended(held)
    assert code == 5
    assert "this run has lost its lock" in errors
    assert results(s3) == before
    assert check_records(before) == 3


def authenticate(s3: S3Server, after: bytes) -> None:
    """Make the server refuse its users from now on, or never."""
    request = urllib.request.Request(f"{s3.url}/moto-api/reset-auth", data=after, method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request).close()


@pytest.mark.parametrize("held", [""], indirect=True, ids=["usual-lock"])
def test_access_that_is_denied_in_the_middle_ends_the_run(
    held: subprocess.Popen[str], s3: S3Server, tmp_path: Path
) -> None:
    authenticate(s3, b"0")
    try:
        (tmp_path / "go").touch()
        code, errors = ended(held)
        refused = segment("made", cwd=tmp_path, code=5)
    finally:
        authenticate(s3, b"inf")
    assert code == 5
    assert len([line for line in errors.splitlines() if "access denied" in line]) == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "access denied" in refused.stderr
    segment("made", cwd=tmp_path)
    assert check_records(results(s3)) == 3


class Forwarder:
    """A port that leads to the server until it is closed."""

    def __init__(self, url: str) -> None:
        self._address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            shut(each)

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            there = socket.create_connection(self._address)
            self._open += [here, there]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        shut(one)
        shut(other)


def shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def test_a_server_that_goes_away_ends_the_run_and_the_next_one_continues(
    s3: S3Server, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png", "held.png"])
    forwarder = Forwarder(s3.url)
    env = {**python_with(HELD + FAST_PARTS, tmp_path), "AWS_ENDPOINT_URL": forwarder.url}
    running = start("made", "--batch-size", "1", cwd=tmp_path, env=env)
    wait_until(lambda: (tmp_path / "opened").exists() and len(list_records(s3)) >= 2, running, 120)
    forwarder.close()
    (tmp_path / "go").touch()
    code, errors = ended(running)
    assert code == 5
    assert len([line for line in errors.splitlines() if "no connection to the server" in line]) == 1
    segment("made", cwd=tmp_path)
    assert check_records(results(s3)) == 3
    assert json.loads(results(s3)["summary.json"])["run"]["skipped"] == 2


def test_a_missing_bucket_and_missing_credentials_are_said_in_one_line(
    s3: S3Server, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(["a.png"])
    for target, text in (("s3://nowhere/out", "no such bucket"), (OUT, "no credentials were found")):
        done = run_process("segment", "made", *SMALL, "-o", target, cwd=tmp_path, code=5)
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert not s3.objects("results")


def test_shards_of_two_processes_leave_what_one_local_run_leaves(
    s3: S3Server, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images([f"p{number:02}.png" for number in range(12)])
    run_process("segment", "made", *SMALL, "-o", "local", cwd=tmp_path)
    running = [start("made", "--shard", f"{index}/2", cwd=tmp_path) for index in (1, 2)]
    assert [ended(each)[0] for each in running] == [0, 0]
    objects = results(s3)
    local = tree(tmp_path / "local")
    for name, data in local.items():
        if name.startswith(("masks/", "color/")) or name == "stats.csv":
            assert objects[name] == data, name
    assert check_records(objects) == 12
    assert not [name for name in objects if "-of-" in name and not name.startswith(("run.", ".fcn.lock."))]
    assert not any(data for name, data in objects.items() if name.startswith(".fcn.lock."))


def test_64_shards_begin_and_end_at_once(s3: S3Server) -> None:
    """Without a network: what is tested is who may work, and who merges."""
    count = 64
    store_of = {shard: open_store(OUT) for shard in Shard(1, count).all()}
    begun = threading.Barrier(count)

    def work(shard: Shard) -> str:
        return do_share(store_of[shard], shard, f"{shard.index}.png", begun=begun.wait)

    with ThreadPoolExecutor(count) as threads:
        ends = list(threads.map(work, store_of))
    assert [end for end in ends if end.startswith(MERGED)]
    objects = results(s3)
    assert len(durable(objects)) == count == len(objects["manifest.jsonl"].splitlines())
    assert not [name for name in objects if name.startswith("manifest.") and name != "manifest.jsonl"]
    assert json.loads(objects["summary.json"])["run"]["shards"] == count
    assert not any(data for name, data in objects.items() if name.startswith(".fcn"))


def test_6_commands_for_shards_at_once(s3: S3Server, make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"p{number:02}.png" for number in range(12)])
    running = [
        start("made", "--shard", f"{index}/6", "--threads", "1", cwd=tmp_path) for index in range(1, 7)
    ]
    ends = [ended(each) for each in running]
    assert [code for code, _ in ends] == [0] * 6
    assert [text for _, text in ends if "is the last one to finish; merged: 12 done" in text]
    assert check_records(results(s3)) == 12
