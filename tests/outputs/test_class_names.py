"""Class names shape no labels: with other names, only what shows names is written again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.outputs import overlay
from fcn_cli.outputs.looks import Style

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, command, preview_network, python_with, run_line, tree

LINE = ("segment", "made", *SMALL, "-o", "out", "--write", "masks,overlay", "--legend")
NO_TORCH = """
import sys
sys.modules["torch"] = None
"""


def names_of(out: Path) -> tuple[set[str], list[str], set[str]]:
    """Return the names in stats.csv, in classes.json without void, and in summary.json."""
    with (out / "stats.csv").open(newline="") as file:
        rows = {row["class_name"] for row in csv.DictReader(file)}
    classes = json.loads((out / "classes.json").read_text())
    totals = json.loads((out / "summary.json").read_text())["totals"]["classes"]
    return rows, [classes[str(index)]["name"] for index in range(21)], {c["name"] for c in totals.values()}


def begun_by_0_2(out: Path, names: list[str]) -> None:
    """Make of a directory what 0.2 wrote with these class names."""
    settings = json.loads((out / "settings.json").read_text())
    new = settings["fingerprint"]
    settings["labels"] = {**settings["labels"], "class_names": names}
    text = json.dumps(settings["labels"], sort_keys=True)
    settings["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    (out / "settings.json").write_text(json.dumps(settings))
    journal = (out / "manifest.jsonl").read_text().replace(new, settings["fingerprint"])
    journal = re.sub(r" of names \w{8}", "", journal)
    (out / "manifest.jsonl").write_text(journal)
    fit = (out / "summary.json").read_text()
    size = json.loads(fit)["journal_bytes"]
    (out / "summary.json").write_text(fit.replace(str(size), str((out / "manifest.jsonl").stat().st_size)))


@pytest.mark.slow
def test_other_names_need_no_network(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "b.png"])
    with Image.open(SAMPLES / "chelsea.png") as opened:
        opened.convert("RGB").resize((225, 150)).save(made / "a.png")
    out = tmp_path / "out"
    mine, others = ([f"{word} {index}" for index in range(21)] for word in ("my", "other"))
    (tmp_path / "mine").write_text("\n".join(mine))
    (tmp_path / "others").write_text("\n".join(others))
    (tmp_path / "few").write_text("one\ntwo\n")
    fcn(*LINE)
    masks = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    environment = python_with(NO_TORCH, tmp_path)
    labels = np.array(Image.open(out / "masks/a.png"))
    image = Image.open("made/a.png").convert("RGB")

    def check(arguments: tuple[str, ...], names: list[str], said: str) -> None:
        done = run_line([*command(*LINE), *arguments], cwd=tmp_path, env=environment)
        assert said in done.stderr
        present = {names[index] for path in masks for index in np.unique(np.array(Image.open(path)))}
        assert names_of(out) == (present, names, present)
        written = np.array(Image.open(out / "overlay/a.jpg"), dtype=int)
        # Legends are as wide as their image, and as high for the names of each list.
        difference = {}
        for candidates in (mine, others, list(VOC_CLASSES)):
            look = Style(palettes.hub(), "hub", legend=True, class_names=candidates)
            expected = np.array(overlay.overlay(image, labels, look), dtype=int)
            difference[tuple(candidates)] = np.abs(written - expected)[image.height :].mean()
        assert min(difference, key=lambda candidates: difference[candidates]) == tuple(names)
        done = run_line([*command(*LINE), *arguments], cwd=tmp_path, env=environment)
        assert "nothing to do" in done.stderr

    check(("--class-names", "mine"), mine, "2 done, 0 failed")
    check((), list(VOC_CLASSES), "2 done, 0 failed")
    check(("--class-names", "others"), others, "2 done, 0 failed")
    # A directory that 0.2 finished with names has nothing to do, with them; and they can change.
    begun_by_0_2(out, others)
    before = {path: path.stat().st_mtime_ns for path in (out / "overlay").iterdir()}
    check(("--class-names", "others"), others, "nothing to do")
    assert {path: path.stat().st_mtime_ns for path in (out / "overlay").iterdir()} == before
    check(("--class-names", "mine"), mine, "2 done, 0 failed")
    make_images(["c.png"])
    fcn(*LINE, "--class-names", "mine")
    fingerprint = json.loads((out / "settings.json").read_text())["fingerprint"]
    records = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    assert {record["fingerprint"] for record in records} == {fingerprint}
    assert masks.items() <= {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}.items()
    said = fcn(*LINE, "--class-names", "few", code=2).stderr
    assert "--class-names: 2 names for the 21 classes of the official weights" in said
    assert names_of(out)[1] == mine


@pytest.mark.long
def test_names_of_ones_own_checkpoint_and_of_shards(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png", "c.png", "d.png"])
    torch.save(preview_network().model.state_dict(), tmp_path / "own.pth")
    os.utime(tmp_path / "own.pth", (1, 1))
    names = [f"thing {index}" for index in range(21)]
    (tmp_path / "names").write_text("\n".join(names))
    line = ("segment", "made", *SMALL, "--weights", "own.pth", "-o", "out")
    fcn(*line)
    files = tree(tmp_path / "out/color")
    for arguments, expected in (
        (("--class-names", "names"), names),
        ((), [f"class_{index}" for index in range(21)]),
    ):
        assert "nothing to do" in fcn(*line, *arguments).stderr
        assert names_of(tmp_path / "out")[1] == expected
        assert names_of(tmp_path / "out")[0] == names_of(tmp_path / "out")[2] <= set(expected)
    (tmp_path / "few").write_text("one\ntwo\n")
    said = fcn(*line, "--class-names", "few", code=2).stderr
    assert "--class-names: 2 names for the 21 classes of out" in said
    for shard in ("1/2", "2/2"):
        fcn(*line, "--class-names", "names", "--shard", shard)
    assert names_of(tmp_path / "out")[0] <= set(names)
    assert tree(tmp_path / "out/color") == files
