"""``fcn segment --ray`` on a running cluster: the same files as without, whatever dies on the way."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcn_cli.cluster.shares import SMALLEST_BLOCK

from ..conftest import SMALL, Fcn, MakeImages, journal_of, run_line, stray_lines, tree
from .running import KILLER, TELLS, RayCluster

pytestmark = pytest.mark.slow

NAMES = [f"{'sub/' * (number % 2)}p{number:03}.png" for number in range(8 * SMALLEST_BLOCK)]
"""So many that both actors get four blocks."""


def pictures(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(output).items() if name.endswith((".png", ".jpg"))}


def how(output: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((output / "summary.json").read_text())["run"]
    return run


def plant(made: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", KILLER, (90, 120, 30)).save(made / name)


def test_waiting_threads_of_actors_sleep_too(
    ray_cluster: RayCluster, make_images: MakeImages, tmp_path: Path
) -> None:
    """The cluster was started by somebody else, without the variable."""
    make_images([f"{TELLS}.png"])
    for given, found in (None, "PASSIVE"), ("ACTIVE", "ACTIVE"):
        environment = ray_cluster.environment | ({"OMP_WAIT_POLICY": given} if given else {})
        line = ray_cluster.segment("made", *SMALL, "-o", f"out-{given}")
        run_line(line, cwd=tmp_path, env=environment)
        assert (tmp_path / f"made/{TELLS}.png.txt").read_text() == found


def test_an_actor_killer_costs_only_itself(
    ray_cluster: RayCluster, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """It kills its actor twice and is recorded as failed; the next run tries it again."""
    made = make_images(NAMES)
    fcn("segment", "made", *SMALL, "-o", "plain", "--threads", "1")
    plant(made, "p040x.png")
    arguments = ("made", *SMALL, "-o", "out")
    done = run_line(ray_cluster.segment(*arguments), code=1, cwd=tmp_path, env=ray_cluster.environment)
    assert stray_lines(done.stderr) == []
    assert "no mask for made/p040x.png: 2 Ray actors died while they processed it" in done.stderr
    assert pictures(tmp_path / "out") == pictures(tmp_path / "plain")
    records = journal_of(tmp_path / "out")
    assert [image for image, record in records.items() if record["status"] != "ok"] == ["p040x.png"]
    assert records["p040x.png"]["error"]["kind"] == "WorkerDied"
    assert set(records) == {*NAMES, "p040x.png"}
    assert how(tmp_path / "out")["ray"]["actor_deaths"] == 2
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert len(lines) == len(records)  # Each once.

    # A failure of this kind is tried again; here, without actors, it does no harm.
    fcn("segment", *arguments)
    assert journal_of(tmp_path / "out")["p040x.png"]["status"] == "ok"


def test_images_without_a_record_are_named(
    ray_cluster: RayCluster, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images([*NAMES[:18], "lost1.png", "lost2.png"])
    line = ray_cluster.segment("made", *SMALL, "-o", "out")
    done = run_line(line, code=1, cwd=tmp_path, env=ray_cluster.environment)
    assert "2 images came back from Ray without a record: made/lost1.png, made/lost2.png;" in done.stderr
    assert "20 images: 18 done, 0 failed, 2 not reached" in done.stderr
    assert set(journal_of(tmp_path / "out")) == set(NAMES[:18])


def test_a_driver_that_is_killed_is_continued(
    ray_cluster: RayCluster, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(NAMES)
    running = ray_cluster.start(tmp_path, 10)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    whole = (tmp_path / "out/manifest.jsonl").read_bytes()
    known = json.loads(b"[" + b",".join(whole[: whole.rindex(b"\n")].splitlines()) + b"]")
    assert 10 <= len(known) < len(NAMES)
    run_line(ray_cluster.segment("made", *SMALL, "-o", "out"), cwd=tmp_path, env=ray_cluster.environment)
    # What was recorded was not done again.
    records = journal_of(tmp_path / "out")
    assert all(records[record["image"]] == record for record in known)
    assert how(tmp_path / "out")["skipped"] == len(known)
    fcn("segment", "made", *SMALL, "-o", "plain", "--threads", "1")
    assert pictures(tmp_path / "out") == pictures(tmp_path / "plain")
    assert not (tmp_path / "out/.fcn.nonce").exists()


def test_ctrl_c_keeps_what_is_done(
    ray_cluster: RayCluster, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(NAMES)
    running = ray_cluster.start(tmp_path, 10, "--resize", "300")
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "interrupted (SIGINT)" in errors
    assert "Traceback" not in errors
    records = journal_of(tmp_path / "out")
    masks = {name for name in tree(tmp_path / "out") if name.startswith("masks/")}
    # The actors ended their batches and said so: no file is without a record.
    assert masks == {f"masks/{image}" for image in records}
    assert how(tmp_path / "out")["not_reached"] == len(NAMES) - len(records) > 0


def test_fail_fast_ends_the_run_at_a_broken_image(
    ray_cluster: RayCluster, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(NAMES)
    (made / "p020.png").write_bytes(b"?")
    line = ray_cluster.segment("made", *SMALL, "-o", "out", "--fail-fast")
    done = run_line(line, code=5, cwd=tmp_path, env=ray_cluster.environment)
    assert "--fail-fast: stopped at the first failed image, made/p020.png" in done.stderr
    assert stray_lines(done.stderr) == []
    run = how(tmp_path / "out")
    assert run["failed"] == 1
    assert run["ok"] + run["failed"] + run["not_reached"] == run["images"] == len(NAMES)
    records = journal_of(tmp_path / "out")
    assert sum(record["status"] == "ok" for record in records.values()) == run["ok"]
    masks = [name for name in tree(tmp_path / "out") if name.startswith("masks/")]
    assert len(masks) == run["ok"]
    # The next run tells of it again, and does the rest.
    fcn("segment", "made", *SMALL, "-o", "out", code=1)
    assert how(tmp_path / "out")["ok"] + run["ok"] == len(NAMES) - 1


def test_images_that_fail_lose_what_they_had(
    ray_cluster: RayCluster, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    """The driver has retracted their records before; the files of an image that is broken now go too."""
    made = make_images(NAMES[:20])
    fcn("segment", "made", *SMALL, "-o", "out")
    (made / "p000.png").write_bytes(b"?")
    arguments = ("made", *SMALL, "-o", "out", "--overwrite", "--write", "masks,color,overlay")
    run_line(ray_cluster.segment(*arguments), code=1, cwd=tmp_path, env=ray_cluster.environment)
    assert journal_of(tmp_path / "out")["p000.png"]["outputs"] == []
    assert "masks/p000.png" not in tree(tmp_path / "out")
    again = fcn("segment", *[each for each in arguments if each != "--overwrite"], code=1)
    assert "0 done, 19 done before, 1 failed" in again.stderr


def test_the_cluster_wants_its_token(
    ray_cluster: RayCluster, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(NAMES[:2])
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    environment = {**ray_cluster.environment, "RAY_AUTH_TOKEN_PATH": str(wrong)}
    done = run_line(ray_cluster.segment("made", *SMALL, "-o", "out"), code=2, cwd=tmp_path, env=environment)
    assert "the cluster requires a token" in done.stderr
    assert not list(tmp_path.glob("out/masks"))
