"""`fcn segment --watch`: images are segmented when they are whole, once for each of their versions."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn_cli.common import signals
from fcn_cli.common.errors import NameCollision, RequestError
from fcn_cli.common.signals import Interrupted
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.inputs import decoder
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.discovery import InputRequest
from fcn_cli.models.request import ModelRequest, ResolvedModel
from fcn_cli.models.weights import LoadedModel, WeightsFile
from fcn_cli.outputs.record import Record
from fcn_cli.outputs.request import OutputRequest
from fcn_cli.runs.plan import Plan
from fcn_cli.runs.report import Summary
from fcn_cli.runs.request import PredictionRequest, ResumeOptions, SegmentRequest
from fcn_cli.runs.watch import watch

from ..conftest import (
    HELD,
    SMALL,
    Fcn,
    MakeImages,
    command,
    journal_of,
    python_with,
    run_process,
    tree,
    untimed,
    wait_until,
)

WITHOUT_WATCHFILES = "import sys\nsys.modules['watchfiles'] = None\n"
SETTLE = 0.15


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[tuple[Record, bool]] = []
        self.texts: list[str] = []
        self.batches: list[Summary] = []

    def planned(self, plan: Plan) -> None:
        pass

    def done_before(self, records: Iterable[Record | None]) -> None:
        self.records += ((record, True) for record in records if record is not None)

    def finished(self, record: Record, *, skipped: bool) -> None:
        self.records.append((record, skipped))

    def pruned(self, record: Record) -> None:
        self.texts.append(f"pruned {record.image}")

    def batch_done(self, batch: Summary) -> None:
        self.batches.append(batch)

    def downloading(self, done: int, total: int | None) -> None:
        pass

    def warn(self, text: str) -> None:
        self.texts.append(text)

    def note(self, text: str) -> None:
        self.texts.append(text)

    def detail(self, text: str) -> None:
        self.texts.append(text)

    def waiting(self) -> None:
        pass

    def limited_by(self, stage: str | None) -> None:
        pass

    def of(self, image: str) -> list[str]:
        """Return what became of an image, in order: ok or failed, and skipped if an earlier run did it."""
        return [
            f"{record.status}, skipped" if skipped else record.status
            for record, skipped in list(self.records)
            if record.image == image
        ]

    def wait_for(self, image: str, count: int = 1) -> None:
        wait_until(lambda: len(self.of(image)) >= count)

    def wait_for_text(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in list(self.texts)))


@pytest.fixture
def ending_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in signals.ENDING_SIGNALS}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


Watch = Callable[..., tuple[Summary, Seen]]


@pytest.fixture
def watching(ending_signals: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Watch ``made`` in this process while a thread does something there and then sends SIGTERM."""
    monkeypatch.chdir(tmp_path)

    def run(
        act: Callable[[Seen], None],
        *inputs: str,
        output: str = "out",
        side: int = 64,
        fail_fast: bool = False,
        ends_by_itself: bool = False,
        **resume: Any,
    ) -> tuple[Summary, Seen]:
        seen = Seen()
        problems: list[BaseException] = []
        over = threading.Event()

        def scenario() -> None:
            try:
                act(seen)
            except BaseException as error:  # noqa: BLE001 - it is the test's
                problems.append(error)
            if ends_by_itself:
                over.wait(30)
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

        request = SegmentRequest(
            InputRequest(inputs or ("made",)),
            OutputRequest(output),
            PredictionRequest(
                ModelRequest("efficientnet_lite0"), DecodeOptions(side, 0), InferenceOptions(kernels="torch")
            ),
            ResumeOptions(**resume),
            fail_fast=fail_fast,
        )
        thread = threading.Thread(target=scenario)
        # As a process has it when a watch begins.
        signals.handle()
        with contextlib.suppress(Interrupted), signals.raised():
            thread.start()
            try:
                summary = watch(request, seen, settle=SETTLE)
            finally:
                over.set()
                thread.join()
        assert not problems, problems
        return summary, seen

    return run


def put(image: Path, target: Path) -> None:
    """Bring an image whole into a directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(image, target.with_name(f".{target.name}"))
    target.with_name(f".{target.name}").rename(target)


@pytest.mark.long
def test_images_that_come_change_and_go(
    watching: Watch, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(["a.png"])
    more = make_images(["b.png", "c.png", "d.png"], folder="more")
    loaded = []
    real = ResolvedModel.load

    def load(model: ResolvedModel, file: WeightsFile) -> LoadedModel:
        loaded.append(1)
        return real(model, file)

    monkeypatch.setattr(ResolvedModel, "load", load)

    def act(seen: Seen) -> None:
        seen.wait_for("a.png")
        (more / "b.png").rename(made / "b.png")
        put(more / "c.png", made / "new/deep/c.png")
        seen.wait_for("b.png")
        seen.wait_for("new/deep/c.png")
        # Another image of the same size in bytes: only its time says so.
        status = (made / "a.png").stat()
        data = (more / "d.png").read_bytes()
        (made / "a.png").write_bytes(data.ljust(status.st_size, b"\0")[: status.st_size])
        os.utime(made / "a.png", ns=(0, status.st_mtime_ns - 10**9))
        seen.wait_for("a.png", 2)
        (made / "b.png").unlink()
        (made / "new").rename(made / "renamed")
        seen.wait_for("renamed/deep/c.png")

    summary, seen = watching(act)
    assert (summary.exit_code, summary.total, summary.done, summary.failed) == (0, 4, 4, 0)
    assert loaded == [1]
    assert seen.of("a.png") == ["ok", "ok"]
    assert seen.of("b.png") == seen.of("new/deep/c.png") == ["ok"]
    # What is deleted keeps its outputs.
    assert set(tree(tmp_path / "out/masks")) == {"a.png", "b.png", "new/deep/c.png", "renamed/deep/c.png"}
    rows = (tmp_path / "out/stats.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == set(tree(tmp_path / "out/masks"))
    run = json.loads((tmp_path / "out/summary.json").read_text())["run"]
    assert (run["images"], run["ok"], run["not_reached"], run["device"]) == (4, 4, 0, "cpu")
    assert any(line.startswith("watching made") for line in seen.texts)


def test_the_projections_are_written_while_the_watch_is_idle(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])

    def act(seen: Seen) -> None:
        def written() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return bool(json.loads((tmp_path / "out/summary.json").read_text())["run"]["ok"] == 1)
            return False

        wait_until(written)
        assert "a.png" in (tmp_path / "out/stats.csv").read_text()

    watching(act)


@pytest.mark.long
def test_the_status_of_a_watch_counts_each_image_once(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    """One that failed and is then completed, one that is replaced, and one that comes to fail."""
    made = make_images(["a.png", "c.png"])
    more = make_images(["a.png", "b.png"], folder="more", size=(70, 50))
    (made / "b.png").write_bytes(b"?")
    statuses: list[str] = []

    def look(seen: Seen, **records: int) -> None:
        for name, count in records.items():
            seen.wait_for(f"{name}.png", count)
        statuses.append(run_process("status", "out", code=4, cwd=tmp_path).stdout)

    def act(seen: Seen) -> None:
        look(seen, a=1, b=1, c=1)
        put(more / "b.png", made / "b.png")
        look(seen, b=2)
        put(more / "a.png", made / "a.png")
        (made / "c.png").write_bytes(b"???")
        look(seen, a=2, c=2)

    watching(act)
    lines = [text.splitlines()[1:] for text in statuses]
    assert lines == [
        ["3 images: 2 done, 1 failed"],
        ["3 images: 3 done, 0 failed"],
        ["3 images: 2 done, 1 failed"],
    ]


@pytest.mark.long
def test_a_failed_image_is_tried_again_only_when_it_changes(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])
    good = (made / "a.png").read_bytes()
    for name in ("cut.png", "gone.png", "bad.png"):
        (made / name).write_bytes(good[: len(good) // 2])

    def act(seen: Seen) -> None:
        for name in ("a.png", "cut.png", "gone.png", "bad.png"):
            seen.wait_for(name)
        for number in range(3):
            put(made / "a.png", made / f"more{number}.png")
            seen.wait_for(f"more{number}.png")
        assert seen.of("cut.png") == ["failed"]
        (made / "cut.png").write_bytes(good)
        (made / "gone.png").unlink()
        seen.wait_for("cut.png", 2)

    summary, seen = watching(act)
    assert seen.of("cut.png") == ["failed", "ok"]
    assert seen.of("bad.png") == seen.of("gone.png") == ["failed"]
    # gone.png is no failure any more: there is no such image.
    assert [record.image for record in summary.failures] == ["bad.png"]
    assert (summary.exit_code, summary.total, summary.done) == (1, 6, 5)


@pytest.mark.long
def test_a_name_that_is_taken_is_refused_once_until_it_is_free(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])
    image = make_images(["a.bmp", "x.png", "y.png", "z.png"], folder="more")

    def act(seen: Seen) -> None:
        seen.wait_for("a.png")
        put(image / "a.bmp", made / "a.bmp")
        seen.wait_for("a.bmp")
        for name in ("x.png", "y.png"):
            put(image / name, made / name)
            seen.wait_for(name)
        assert seen.of("a.bmp") == ["failed"]
        # An image goes, but not the one that has the name: nobody is told again.
        (made / "x.png").unlink()
        put(image / "z.png", made / "z.png")
        seen.wait_for("z.png")
        assert seen.of("a.bmp") == ["failed"]
        (made / "a.png").unlink()
        seen.wait_for("a.bmp", 2)

    summary, seen = watching(act)
    assert seen.of("a.bmp") == ["failed", "ok"]
    refused = next(record for record, _ in seen.records if record.image == "a.bmp")
    assert refused.error is not None
    assert "rename one" in refused.error.message
    assert summary.exit_code == 0
    assert not summary.refused


@pytest.mark.long
def test_names_that_clash_stop_a_watch_only_at_its_start(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "a.bmp"])
    with pytest.raises(NameCollision):
        watching(lambda _seen: None, ends_by_itself=True)
    shutil.rmtree(made)
    made.mkdir()
    images = make_images(["b.png", "b.bmp"], folder="more")

    def act(seen: Seen) -> None:
        seen.wait_for_text("watching")
        # The first batch passes without an image; these come when nobody is there to rename them.
        time.sleep(3 * SETTLE)
        for name in ("b.png", "b.bmp"):
            (images / name).rename(made / name)
        seen.wait_for("b.bmp")
        seen.wait_for("b.png")

    _, seen = watching(act)
    assert sorted(seen.of("b.bmp") + seen.of("b.png")) == ["failed", "ok"]


@pytest.mark.long
def test_overwrite_and_retries_are_for_what_is_there_at_the_start_and_once(
    watching: Watch, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png"])
    (made / "bad.png").write_bytes(b"?")
    fcn("segment", "made", *SMALL, "-o", "out", code=1)

    def act(seen: Seen) -> None:
        for name in ("a.png", "b.png", "bad.png"):
            seen.wait_for(name)
        # Away and back unchanged: it is done, and stays failed.
        for name in ("b.png", "bad.png"):
            (made / name).rename(tmp_path / name)
        put(made / "a.png", made / "c.png")
        seen.wait_for("c.png")
        for name in ("b.png", "bad.png"):
            (tmp_path / name).rename(made / name)
            seen.wait_for(name, 2)

    with pytest.raises(RequestError, match="--resize: 64 before, 48 now"):
        watching(lambda _seen: None, side=48, ends_by_itself=True)
    _, seen = watching(act, side=48, overwrite=True)
    assert seen.of("a.png") == ["ok"]
    assert seen.of("b.png") == ["ok", "ok, skipped"]
    assert seen.of("bad.png") == ["failed", "failed, skipped"]
    _, seen = watching(lambda seen: seen.wait_for("bad.png"), side=48, retry_failed=True)
    assert seen.of("bad.png") == ["failed"]
    assert seen.of("a.png") == ["ok, skipped"]


@pytest.mark.long
def test_overwrite_allows_other_settings_before_there_is_an_image(
    watching: Watch, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    (made / "a.png").rename(tmp_path / "a.png")

    def act(seen: Seen) -> None:
        seen.wait_for_text("watching")
        time.sleep(3 * SETTLE)
        (tmp_path / "a.png").rename(made / "a.png")
        seen.wait_for("a.png")

    _, seen = watching(act, side=48, overwrite=True)
    assert seen.of("a.png") == ["ok"]
    assert journal_of(tmp_path / "out")["a.png"]["fingerprint"] == seen.records[0][0].fingerprint


@pytest.mark.long
def test_prune_removes_what_goes_but_not_what_a_lost_disk_takes_along(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images([f"{name}.png" for name in "abcdef"])

    def act(seen: Seen) -> None:
        seen.wait_for("f.png")
        (made / "a.png").unlink()
        seen.wait_for_text("pruned a.png")
        for name in "bcde":
            (made / f"{name}.png").unlink()
        seen.wait_for_text("nothing is pruned: --prune would remove 4 of 5 images, more than half")
        put(made / "f.png", made / "g.png")
        seen.wait_for("g.png")

    summary, seen = watching(act, prune="careful")
    assert set(tree(tmp_path / "out/masks")) == {f"{name}.png" for name in "bcdefg"}
    assert (summary.pruned, summary.done, summary.total) == (1, 6, 6)
    assert sum(line.startswith("nothing is pruned") for line in seen.texts) == 1


@pytest.mark.long
def test_a_watch_counts_what_its_directories_have_in_the_journal(
    watching: Watch, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """Not what is recorded of others; what is done and gone counts, a failure that is gone does not."""
    made = make_images(["a.png", "b.png"])
    (made / "bad.png").write_bytes(b"?")
    make_images(["o.png", "p.png"], folder="other")
    fcn("segment", "made", "--kernels", "torch", *SMALL, "-o", "out", code=1)
    fcn("segment", "other", "--kernels", "torch", *SMALL, "-o", "out")
    (made / "b.png").unlink()
    (made / "bad.png").unlink()
    time.sleep(1.1)  # Records have whole seconds.

    def act(seen: Seen) -> None:
        seen.wait_for("a.png")
        put(tmp_path / "other/o.png", made / "c.png")
        seen.wait_for("c.png")
        assert run_process("status", "out", code=4, cwd=tmp_path).stdout.splitlines()[1:] == [
            "3 images: 3 done, 0 failed"
        ]

    summary, _ = watching(act)
    counts = (summary.exit_code, summary.total, summary.done, summary.skipped, summary.failed)
    assert counts == (0, 3, 1, 2, 0)
    assert summary.totals.images == 3


@pytest.mark.long
def test_a_directory_that_goes_and_comes_back(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])
    make_images(["o.png"], folder="other")

    def act(seen: Seen) -> None:
        seen.wait_for("made/a.png")
        made.rename(tmp_path / "away")
        seen.wait_for_text("made: this directory is gone")
        put(tmp_path / "away/a.png", tmp_path / "other/p.png")
        seen.wait_for("other/p.png")
        (tmp_path / "away").rename(made)
        put(made / "a.png", made / "b.png")
        seen.wait_for("made/b.png")

    summary, seen = watching(act, "made", "other", prune="careful")
    assert sum("this directory is gone" in line for line in seen.texts) == 1
    assert sum("this directory is back" in line for line in seen.texts) == 1
    assert set(tree(tmp_path / "out/masks")) == {"made/a.png", "made/b.png", "other/o.png", "other/p.png"}
    assert (summary.exit_code, summary.total, summary.done) == (0, 4, 4)


@pytest.mark.long
def test_an_output_directory_inside_the_watched_one(
    watching: Watch, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png"])

    def act(seen: Seen) -> None:
        seen.wait_for("a.png")
        for name in ("b.png", "c.png"):
            put(made / "a.png", made / name)
            seen.wait_for(name)

    _, seen = watching(act, output="made/out")
    assert [record.image for record, _ in seen.records] == ["a.png", "b.png", "c.png"]


@pytest.mark.long
def test_what_changes_or_goes_before_it_is_decoded_is_no_failure(
    watching: Watch, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(["a.png", "b.png"])
    final = make_images(["x.png", "y.png"], folder="more", size=(40, 30)) / "y.png"
    real = decoder.decode_with

    def decode(path: Any, *limits: Any) -> Any:
        name = Path(path).name
        if name == "a.png" and not (tmp_path / "touched").exists():
            (tmp_path / "touched").touch()
            decoded = real(path, *limits)
            # In the same file, as a copy does it, while the decoder is at work.
            (made / "a.png").write_bytes(final.read_bytes())
            return decoded
        if name == "b.png":
            (made / "b.png").unlink(missing_ok=True)
        return real(path, *limits)

    monkeypatch.setattr(decoder, "decode_with", decode)
    summary, seen = watching(lambda seen: seen.wait_for("a.png"))
    assert seen.of("a.png") == ["ok"]
    assert seen.of("b.png") == []
    record = journal_of(tmp_path / "out")["a.png"]
    assert (record["width"], record["height"]) == Image.open(final).size
    assert record["size_bytes"] == final.stat().st_size
    assert list(journal_of(tmp_path / "out")) == ["a.png"]
    assert (summary.exit_code, summary.total, summary.done) == (0, 1, 1)


@pytest.mark.long
def test_fail_fast_ends_the_watch(watching: Watch, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png"])

    def act(seen: Seen) -> None:
        seen.wait_for("a.png")
        (made / "bad.png").write_bytes(b"?")
        seen.wait_for("bad.png")

    summary, _ = watching(act, fail_fast=True, ends_by_itself=True)
    assert summary.exit_code == 5
    assert "--fail-fast" in str(summary.stopped)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("made", "--dry-run"), "--watch and --dry-run exclude each other"),
        (("--files-from", "list"), "not a list (--files-from)"),
        (("made", "--files-from", "list"), "not a list (--files-from)"),
        (("-",), "'-' reads one image from stdin"),
        (("made/a.png",), "made/a.png: --watch takes directories"),
        (("made/*.png",), "made/*.png: --watch takes directories"),
        (("nowhere",), "nowhere: --watch takes directories"),
        (("done",), "output directory of fcn (done)"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    arguments: tuple[str, ...], text: str, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png"])
    (tmp_path / "list").write_text("made/a.png\n")
    (tmp_path / "done").mkdir()
    (tmp_path / "done/settings.json").write_text('{"fcn_settings": 2}')
    done = fcn("segment", *arguments, "--watch", *SMALL, "-o", "out", code=2)
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def start(tmp_path: Path, code: str, *options: str) -> subprocess.Popen[str]:
    """Start a watch of ``made`` into ``out`` in a process whose Python begins with some code."""
    return subprocess.Popen(
        command("segment", "made", "--watch", *SMALL, "-o", "out", *options),
        cwd=tmp_path,
        env=python_with(code, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(output: Path, image: str) -> list[dict[str, Any]]:
    """Return all records of an image, in the order of the journal."""
    with contextlib.suppress(OSError):
        lines = map(json.loads, (output / "manifest.jsonl").read_text().splitlines())
        return [record for record in lines if record["image"] == image]
    return []


@pytest.mark.slow
def test_a_slow_copy_is_never_segmented_half(make_images: MakeImages, tmp_path: Path, fcn: Fcn) -> None:
    """In a process of its own, with the real 2 s, by searching; ended by SIGTERM."""
    made = make_images(["a.png", "held.png"])
    make_images(["slow.png", "other.png"], folder="more", size=(200, 160))
    out = tmp_path / "out"
    running = start(tmp_path, WITHOUT_WATCHFILES + HELD, "--json", "--workers", "0")
    try:
        wait_until(lambda: (tmp_path / "opened").exists(), running)
        # While it is read, half of another image comes in its place, and then the rest.
        other = (tmp_path / "more/other.png").read_bytes()
        with (made / "held.png").open("r+b") as file:
            file.write(other[: len(other) // 2])
        (tmp_path / "go").touch()
        wait_until(lambda: lines_of(out, "a.png"), running)
        (made / "held.png").write_bytes(other)
        data = (tmp_path / "more/slow.png").read_bytes()
        with (made / "slow.png").open("wb", buffering=0) as file:
            for start_ in range(0, len(data), len(data) // 12):
                file.write(data[start_ : start_ + len(data) // 12])
                # A slow copy, of 4 s in all: no pause of it is as long as 2 s.
                time.sleep(0.3)
        assert not lines_of(out, "slow.png")
        (made / "bad.png").write_bytes(b"?")
        for name in ("slow.png", "held.png", "bad.png"):
            wait_until(lambda name=name: lines_of(out, name), running)  # type: ignore[misc]
    finally:
        running.send_signal(signal.SIGTERM)
        printed, errors = running.communicate(timeout=60)
    assert running.returncode == 1, errors
    assert "Traceback" not in errors
    assert "watching made (searching every 2 s); Ctrl-C or SIGTERM ends it" in errors
    assert errors.count("no mask for made/bad.png") == 2, errors  # with its batch, and at the end
    whole = {"slow.png": len(data), "held.png": len(other)}
    for name, size in whole.items():
        records = lines_of(out, name)
        assert [(r["status"], r["size_bytes"]) for r in records] == [("ok", size)]
    assert {json.loads(line)["image"] for line in printed.splitlines()} == {"a.png", "bad.png", *whole}
    fcn("segment", "more", *SMALL, "-o", "plain")
    for name, plain in (("slow.png", "slow.png"), ("held.png", "other.png")):
        mask, expected = Image.open(out / "masks" / name), Image.open(tmp_path / "plain/masks" / plain)
        assert np.array_equal(np.asarray(mask), np.asarray(expected))
    # Nothing is left to do, and the projections are up to date.
    before = (out / "stats.csv").stat().st_mtime_ns
    assert "3 done before, 1 failed" in fcn("segment", "made", *SMALL, "-o", "out", code=1).stderr
    assert (out / "stats.csv").stat().st_mtime_ns == before


@pytest.mark.slow
def test_by_the_systems_events_and_ended_by_ctrl_c(make_images: MakeImages, tmp_path: Path, fcn: Fcn) -> None:
    """An empty directory; an image comes into a new one; another run is kept out all the time."""
    pytest.importorskip("watchfiles")
    make_images(["x.png", "y.png"], folder="more")
    made = tmp_path / "made"
    made.mkdir()
    out = tmp_path / "out"
    running = start(tmp_path, "")
    assert running.stderr is not None
    try:
        message = running.stderr.readline()
        put(tmp_path / "more/x.png", made / "later/x.png")
        wait_until(lambda: lines_of(out, "later/x.png"), running)
        fcn("segment", "more", *SMALL, "-o", "out", code=4)
        shutil.move(tmp_path / "more/y.png", made / "y.png")
        wait_until(lambda: lines_of(out, "y.png"), running)
    finally:
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert untimed(message) == "fcn: watching made (by events); Ctrl-C or SIGTERM ends it\n"
    assert "interrupted (SIGINT): the watch ends" in errors
    assert "2 images: 2 done, 0 failed" in errors
    rows = (out / "stats.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"later/x.png", "y.png"}
    assert not (out / ".fcn.holder.json").exists()


@pytest.mark.long
def test_a_watch_that_is_idle_ends_at_once_and_has_loaded_nothing(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    running = start(tmp_path, WITHOUT_WATCHFILES)
    assert running.stderr is not None
    running.stderr.readline()
    loaded = Path(f"/proc/{running.pid}/maps")
    if loaded.exists():
        assert "libtorch" not in loaded.read_text()
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert running.returncode == 0, errors
    assert "no images arrived" in errors
