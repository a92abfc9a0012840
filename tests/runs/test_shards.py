"""Several processes share one output directory; together they leave what one run leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from fcn_cli.common.shard import Shard
from fcn_cli.inputs.collisions import is_in_shard
from fcn_cli.inputs.discovery import InputRequest, discover
from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.output_store import LocalStore, OutputStore
from fcn_cli.outputs.run_file import Counts, RunFile
from fcn_cli.outputs.settings import LabelSettings, RequestedSettings
from fcn_cli.runs import shards
from fcn_cli.runs.report import Summary

from ..conftest import HELD, SMALL, Fcn, MakeImages, command, exact_names, python_with, tree, wait_until
from ..made_output import plain_record

NAMES = [f"{'sub/' * (i % 2)}p{i:02}.png" for i in range(12)]


def images_of(images: Path, shard: str) -> set[str]:
    index, count = map(int, shard.split("/"))
    found = discover(InputRequest([str(images)])).sources
    return {source.image for source in found if is_in_shard(source, Shard(index, count))}


def lines_of(output: Path) -> list[dict[str, Any]]:
    """Return the records in all journals, in the order of the files' names."""
    return [
        exact_names(json.loads(line))
        for path in sorted(output.glob("manifest*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def results(output: Path) -> dict[str, bytes]:
    """Return all files that may not differ from those of another way to do the same."""
    timed = {"manifest.jsonl", "summary.json", ".fcn.lock"}
    return {
        name: data
        for name, data in tree(output).items()
        if name not in timed and not name.startswith(("run.", "manifest."))
    }


def untimed_records(output: Path) -> list[dict[str, Any]]:
    records = sorted(lines_of(output), key=lambda record: record["image"])
    return [
        {key: value for key, value in record.items() if key not in {"finished", "seconds"}}
        for record in records
    ]


def same_as_plain(fcn: Fcn, output: str = "out") -> None:
    """Compare with a run without shards; it has nothing left to do in the directory of the shards."""
    fcn("segment", "made", *SMALL, "-o", "plain", code=1)
    assert results(Path(output)) == results(Path("plain"))
    assert untimed_records(Path(output)) == untimed_records(Path("plain"))
    totals = [json.loads(Path(name, "summary.json").read_text())["totals"] for name in (output, "plain")]
    assert totals[0] == totals[1]
    before = tree(Path(output))
    fcn("segment", "made", *SMALL, "-o", output, code=1)
    assert {name for name in before if before[name] != tree(Path(output)).get(name)} <= {
        name for name in before if name.startswith("run.") or name == "summary.json"
    }
    assert not list(Path(output).glob(".fcn.*-of-*"))


@pytest.mark.slow
def test_four_at_once_and_one_is_killed(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """The shard of ``held.png`` waits inside its decoder for the others to end, and is killed there."""
    made = make_images([*NAMES, "held.png"])
    (made / "broken.png").write_bytes(b"?")
    labels = [f"{index}/4" for index in range(1, 5)]
    held = next(shard for shard in labels if "held.png" in images_of(made, shard))
    environment = {**python_with(HELD, tmp_path), "FCN_OUTPUT": "out"}
    running = {
        shard: subprocess.Popen(
            command("segment", "made", *SMALL, "--shard", shard, "--workers", "0"),
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for shard in labels
    }
    for shard in labels:
        if shard != held:
            _, errors = running[shard].communicate(timeout=120)
            assert running[shard].returncode == ("broken.png" in images_of(made, shard)), errors
    wait_until((tmp_path / "opened").exists, running[held])

    # What may not begin beside it, and what `fcn status` says.
    again = ("segment", "made", *SMALL, "-o", "out")
    for more in ((), ("--shard", held), ("--shard", "1/3")):
        assert (
            f"shard {held} is writing there (process {running[held].pid}" in fcn(*again, *more, code=4).stderr
        )
    assert f"shard {held} is writing there (process {running[held].pid}" in fcn("merge", "out", code=4).stderr
    other = next(shard for shard in labels if shard != held)
    refused = fcn("segment", "made", *SMALL, "--resize", "32", "-o", "out", "--shard", other, code=2)
    assert "--resize was 64" in refused.stderr or "other settings" in refused.stderr
    found = json.loads(fcn("status", "out", "--json", code=4).stdout)
    assert (found["state"], found["total"]) == ("running", 14)
    assert found["left"] == found["shards"][held]["left"] > 0
    assert found["shards"][held]["pid"] == running[held].pid
    assert "4 shards: " in fcn("status", "out", code=4).stdout

    running[held].kill()
    running[held].communicate()
    assert f"shard {held}: killed" in fcn("status", "out", code=1).stdout
    done = {record["image"]: record["finished"] for record in lines_of(tmp_path / "out")}
    assert not (tmp_path / "out/stats.csv").exists()
    code = int("broken.png" in images_of(made, held))
    assert (
        "is the last one to finish; merged: 13 done, 1 failed"
        in fcn(*again, "--shard", held, code=code).stderr
    )
    records = lines_of(tmp_path / "out")
    assert Counter(record["image"] for record in records) == Counter([*NAMES, "held.png", "broken.png"])
    assert {record["image"]: record["finished"] for record in records}.items() >= done.items()
    assert json.loads(fcn("status", "out", "--json", code=1).stdout)["done"] == 13
    same_as_plain(fcn)


@pytest.mark.long
def test_another_number_of_shards(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """Nothing is done twice, and nothing is lost, when each run divides anew."""
    made = make_images(NAMES)
    (made / "broken.png").write_bytes(b"?")
    out = tmp_path / "out"
    failing = {
        shard: int("broken.png" in images_of(made, shard)) for shard in ("1/2", "2/3", "1/3", "3/3", "4/5")
    }
    fcn("segment", "made", *SMALL, "-o", "out", "--shard", "1/2", code=failing["1/2"])
    first = images_of(made, "1/2")
    assert {record["image"] for record in lines_of(out)} == first
    for shard in ("2/3", "1/3"):
        fcn("segment", "made", *SMALL, "-o", "out", "--shard", shard, code=failing[shard])
    fcn("segment", "made", *SMALL, "-o", "out", "--shard", "4/5", code=failing["4/5"])
    done = first | images_of(made, "2/3") | images_of(made, "1/3") | images_of(made, "4/5")
    assert Counter(record["image"] for record in lines_of(out)) == Counter(done)
    fcn("segment", "made", *SMALL, "-o", "out", "--shard", "3/3", code=failing["3/3"])
    fcn("segment", "made", *SMALL, "-o", "out", code=1)
    assert Counter(record["image"] for record in lines_of(out)) == Counter([*NAMES, "broken.png"])
    same_as_plain(fcn)


@pytest.mark.long
def test_what_shards_write_again_counts_before_and_after_the_merge(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """Records of a new look are in the journals of shards, older ones in ``manifest.jsonl``."""
    made = make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out")
    voc = ("segment", "made", *SMALL, "-o", "out", "--palette", "voc")
    fcn(*voc, "--shard", "1/2")
    share = images_of(made, "1/2")
    looks = {record.image: record.looks["color"] for record in Journal(tmp_path / "out")}
    assert looks == {image: "voc" if image in share else "hub" for image in NAMES}
    assert len(fcn("list", "out").stdout.splitlines()) == len(NAMES)
    assert "all " in fcn(*voc, "--shard", "1/2").stderr
    # A plain run takes the records over before it appends its own.
    (made / sorted(share)[0]).unlink()
    fcn(*voc, "--prune")
    left = set(NAMES) - {sorted(share)[0]}
    assert {record["image"] for record in lines_of(tmp_path / "out") if record["status"] == "ok"} >= left
    assert {record.image for record in Journal(tmp_path / "out")} == left
    assert {record.looks["color"] for record in Journal(tmp_path / "out")} == {"voc"}
    fcn("verify", "out")
    assert not list((tmp_path / "out").glob("manifest.*-of-*"))


def test_names_that_collide(fcn: Fcn, make_images: MakeImages) -> None:
    made = make_images(["a.png", "b.png"])
    shutil.copy(made / "b.png", made / "a.bmp")
    for shard in ("1/2", "2/2"):
        assert (
            "would both be written as a.png"
            in fcn("segment", "made", "-o", "out", "--shard", shard, code=2).stderr
        )
    (made / "a.bmp").unlink()
    fcn("segment", "made", *SMALL, "-o", "out")
    shutil.copy(made / "b.png", made / "a.bmp")
    refusing = [shard for shard in ("1/2", "2/2") if "a.bmp" in images_of(made, shard)]
    for shard in ("1/2", "2/2"):
        fcn("segment", "made", *SMALL, "-o", "out", "--shard", shard, code=int(shard in refusing))
    run = json.loads(Path("out/summary.json").read_text())["run"]
    assert len(refusing) == 1
    # The shards had nothing to write, so nothing was merged; the merge by hand knows.
    fcn("merge", "out", code=1)
    run = json.loads(Path("out/summary.json").read_text())["run"]
    assert [record["image"] for record in run["refused"]] == ["a.bmp"]
    assert (run["shards"], run["images"], run["skipped"], run["failed"]) == (2, 3, 2, 1)


def test_an_empty_share_and_the_order_of_ending(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png"])
    empty, full = ("1/2", "2/2") if images_of(made, "2/2") else ("2/2", "1/2")
    done = fcn("segment", "made", *SMALL, "-o", "out", "--shard", empty)
    assert f"none of the images is in shard {empty}" in done.stderr
    assert "out: 2 shards: " in fcn("status", "out", code=1).stdout
    assert (
        "is the last one to finish; merged: 1 done, 0 failed"
        in fcn("segment", "made", *SMALL, "-o", "out", "--shard", full).stderr
    )
    assert sorted(path.name for path in (tmp_path / "out").glob("manifest*")) == ["manifest.jsonl"]
    # Both have ended: who runs again begins anew, and the other one is to come.
    for shard, told in (
        (full, f"still to finish: {empty}"),
        (empty, "is the last one to finish; nothing to merge"),
    ):
        assert told in fcn("segment", "made", *SMALL, "-o", "out", "--shard", shard).stderr
        assert fcn("status", "out").stdout.splitlines() == [
            "out: 2 shards: 2 ended",
            "1 image: 1 done, 0 failed",
        ]


def test_a_dry_run_of_all_shards_is_that_of_the_whole(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "out", "--shard", "1/3")
    before = tree(tmp_path)
    plans = [
        fcn("segment", "made", *SMALL, "-o", "out", "--dry-run", "--shard", f"{i}/4").stdout
        for i in range(1, 5)
    ]
    whole = fcn("segment", "made", *SMALL, "-o", "out", "--dry-run").stdout
    assert sorted("".join(plans).splitlines()) == sorted(whole.splitlines())
    assert {line.split("\t")[0] for line in whole.splitlines()} == {"segment", "skip"}
    assert tree(tmp_path) == before


@pytest.mark.parametrize("value", ["0/4", "5/4", "x", "1", "1/", "/2", "1/0", "-1/2", "1/2/3", "½/2", "1/2 "])
def test_values_that_are_no_shard(fcn: Fcn, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        "--shard takes I/N, shard I of N, with I from 1 to N"
        in fcn("segment", "x", "--shard", value, code=2).stderr
    )
    monkeypatch.setenv("FCN_SHARD", value)
    assert "FCN_SHARD takes I/N" in fcn("segment", "x", code=2).stderr


def test_what_excludes_shards(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    assert (
        "--prune" in fcn("segment", "made", *SMALL, "--shard", "1/2", "--prune", "-o", "out", code=2).stderr
    )
    assert (
        "--shard cannot be used with -o -"
        in fcn("segment", "made", *SMALL, "--shard", "1/2", "-o", "-", code=2).stderr
    )
    assert "no such directory" in fcn("merge", "out", code=2).stderr
    assert "not an output directory" in fcn("merge", "made", code=2).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


def do_share(
    store: OutputStore,
    shard: Shard,
    image: str,
    *,
    code: int = 0,
    begun: Callable[[], object] = lambda: None,
) -> str:
    """Do a share of one image as a run does, without a network; return what it says when it ends."""
    notes: list[str] = []
    settings = RequestedSettings(LabelSettings("efficientnet_lite0", "0", 64, "auto", "auto"))
    with shards.begun(store, shard, settings, 0, notes.append, overwrite=False):
        begun()
        with contextlib.closing(Journal(store, shard)) as journal:
            journal.append([plain_record(image, f"masks/{image}")])
        left = int(code not in {0, 1})
        summary = Summary(str(store), total=1, done=1 - left).as_json()
        run = RunFile.begin(("masks",), 0, Counts(0, 0, 1))
        run.ended(Counts(1 - left, 0, left), code, None, summary).save(store, shard)
    shards.end(store, shard, notes.append)
    return notes[-1].removeprefix(f"shard {shard} is ")


MERGED, TO_COME = (
    "the last one to finish; merged",
    "finished; the last one to finish merges (still to finish: ",
)


@pytest.mark.parametrize(
    "order",
    [
        "1 2 3* 1 2 3* 3 1 2* 2 3 1*",
        # Incomplete ones are done again alone; the next night, each is the first or the last to end once.
        "1 2! 3* 2* 1 2 3* 2 3 1*",
        "1! 2 3* 1!* 1* 1 2 3* 2 3 1*",
        "1! 2 3* 1* 2 3* 1* 2 3* 1*",
        "1 2 3!* 3* 1 2* 3* 1 2* 3*",
        # One is killed, or never runs again: whoever comes back is merged.
        "1 2 3* 1x 2 3 1* 2 3 1*",
    ],
)
def test_the_endings_of_a_night_are_its_own(order: str, tmp_path: Path) -> None:
    """``2!``: shard 2 does not come to its end; ``x``: it is killed; ``*``: the one that merges."""
    store = LocalStore(tmp_path / "out")
    for number, step in enumerate(order.split()):
        shard = Shard(int(step[0]), 3)
        if "x" in step:
            RunFile.begin(("masks",), 0, Counts(0, 0, 1)).save(store, shard)
            continue
        said = do_share(store, shard, f"{number}.png", code=5 if "!" in step else 0)
        assert said.startswith(MERGED if "*" in step else TO_COME), (number, step, said)
        assert bool(store.journal_shards()) == ("*" not in step), (number, step)
    run = json.loads((tmp_path / "out/summary.json").read_text())["run"]
    assert (run["shards"], run["images"]) == (3, 3)


@pytest.mark.long
def test_a_shard_beside_a_lock_that_is_kept_ends_well(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(["a.png", "b.png", "c.png", "d.png"])
    fcn("segment", "made", *SMALL, "-o", "out", "--shard", "1/2")
    assert "1 of 2 shards have not finished: 2/2" in fcn("merge", "out", code=1).stderr
    real = shards.end

    def end_meanwhile(*arguments: Any) -> None:
        with filelock.FileLock(tmp_path / "out/.fcn.lock"):
            real(*arguments)

    monkeypatch.setattr(shards, "end", end_meanwhile)
    monkeypatch.setattr(LocalStore, "passing_seconds", 0.3)
    done = fcn("segment", "made", *SMALL, "-o", "out", "--shard", "2/2")
    assert "but nothing is merged" in done.stderr
    assert "is it suspended?); run fcn merge out" in done.stderr
    merged = fcn("merge", "out", "--json", "-q")
    assert json.loads(merged.stdout) == {
        "total": 4,
        "done": 4,
        "failed": 0,
        "left": 0,
        "shards": 2,
        "not_ended": [],
    }
    assert merged.stderr == ""
    assert {record["image"] for record in lines_of(tmp_path / "out")} == {
        path.name for path in made.iterdir()
    }


def test_a_shard_that_ends_with_an_error_merges_too(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png", "c.png", "d.png"])
    line = ("segment", "made", *SMALL, "-o", "out", "--shard")
    fcn(*line, "1/2")
    refused = fcn(*line, "2/2", "--device", "cuda:99", code=2)
    assert "shard 2/2 is the last one to finish; merged: " in refused.stderr
    assert "cuda" in refused.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").glob("manifest.*-of-*"))
    assert "merged: 4 done" in fcn(*line, "2/2").stderr


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a child of this process that ends at once after it; return how it ended."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.long
def test_a_kill_at_any_step_of_a_merge_loses_nothing(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "old")
    for shard in ("1/3", "2/3"):
        # Some records are superseded, some are in manifest.jsonl alone.
        fcn("segment", "made", *SMALL, "-o", "old", "--palette", "voc", "--shard", shard)
    before = list(Journal(tmp_path / "old"))
    shutil.copytree("old", "merged")
    fcn("merge", "merged", code=1)
    assert list(Journal(tmp_path / "merged")) == before
    assert len(lines_of(tmp_path / "merged")) == len(NAMES) == len(before)
    assert made.exists()

    def merge_until(step: int) -> bool:
        """Kill a merge before its nth change of the directory; say whether it came so far."""
        shutil.rmtree("out", ignore_errors=True)
        shutil.copytree("old", "out")

        def work() -> None:
            seen = 0

            def counting(function: Any) -> Any:
                def wrapper(*arguments: Any, **options: Any) -> Any:
                    nonlocal seen
                    seen += 1
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **options)

                return wrapper

            for owner, name in ((os, "replace"), (Path, "unlink"), (os, "fsync")):
                monkeypatch.setattr(owner, name, counting(getattr(owner, name)))
            shards.merge(LocalStore(Path("out")), 0, lambda _text: None)

        return in_a_child(work) == signal.SIGKILL

    step = 1
    while merge_until(step):
        assert list(Journal(tmp_path / "out")) == before, step
        if step % 2:
            fcn("merge", "out", code=1)
        else:
            fcn("segment", "made", *SMALL, "-o", "out", "--palette", "voc", "--shard", "3/3")
            fcn("merge", "out")
        merged = {record.image: record for record in Journal(tmp_path / "out")}
        assert set(merged) == set(NAMES), step
        share = images_of(made, "3/3")
        assert all(merged[one.image] == one for one in before if step % 2 or one.image not in share), step
        assert not list(Path("out").glob("*-of-*.jsonl"))
        assert not list(Path("out").glob(".fcn-*.tmp"))
        step += 1
    assert step > 12
    assert RunFile.read(tmp_path / "out", Shard(1, 3)) is not None
