"""Plain, in shards, on Ray or into a bucket: the same masks, records, exit codes; nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ..conftest import SMALL, Fcn, MakeImages, preview_network
from .conftest import Mode, pictures, records

NAMES = [f"{'sub/' * (number % 2)}p{number}.png" for number in range(8)]
ONE_THREAD = (*SMALL, "--threads", "1")


@pytest.fixture
def made(make_images: MakeImages) -> Path:
    """Return images, one of which is broken."""
    folder = make_images(NAMES)
    (folder / "broken.png").write_bytes(b"?")
    return folder


def expected_labels(path: Path) -> np.ndarray:
    """Return the label map that plain torchvision computes: short side 64, ImageNet's mean and deviation."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    scale = 64 / min(width, height)
    size = (64, int(64 * height / width)) if width <= height else (int(64 * width / height), 64)
    assert scale > 1
    pixels = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BILINEAR))).permute(2, 0, 1)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    model: Any = preview_network().model.eval()
    with torch.inference_mode():
        logits = torch.nn.functional.interpolate(
            model(((pixels / 255 - mean) / deviation)[None]),
            (height, width),
            mode="bilinear",
            align_corners=False,
        )
    labels: np.ndarray = logits.argmax(1)[0].to(torch.uint8).numpy()
    return labels


@pytest.mark.long
def test_the_same_masks_records_and_exit_code(mode: Mode, fcn: Fcn, made: Path) -> None:
    kinds = ("--write", "masks,color,overlay,confidence,cutout")
    assert mode.segment("made", *ONE_THREAD, *kinds) == 1
    files = mode.files()
    mask = files[f"masks/{NAMES[1]}"]
    Path("mask.png").write_bytes(mask)
    with Image.open("mask.png") as opened:
        labels = np.array(opened)
    # Two implementations may differ where two classes are as good as equal.
    assert np.mean(labels != expected_labels(made / NAMES[1])) < 0.001

    fcn("segment", "made", *ONE_THREAD, *kinds, "-o", "reference", code=1)
    reference = {
        str(path.relative_to("reference")): path.read_bytes()
        for path in Path("reference").rglob("*")
        if path.is_file()
    }
    assert pictures(files) == pictures(reference)
    assert set(pictures(files)) == {
        f"{kind}/{Path(name).with_suffix('.jpg' if kind == 'overlay' else '.png')}"
        for kind in ("masks", "color", "overlay", "confidence", "cutout")
        for name in NAMES
    }
    assert records(files) == records(reference)
    assert [files[name] for name in ("settings.json", "classes.json", "stats.csv")] == [
        reference[name] for name in ("settings.json", "classes.json", "stats.csv")
    ]
    totals = [json.loads(every["summary.json"])["totals"] for every in (files, reference)]
    assert totals[0] == totals[1]


@pytest.mark.long
def test_a_second_run_does_what_is_left(mode: Mode, made: Path, make_images: MakeImages) -> None:
    assert mode.segment("made", *ONE_THREAD) == 1
    first = mode.files()
    # Nothing to do, and the broken image stays failed.
    assert mode.segment("made", *ONE_THREAD) == 1
    assert records(mode.files()) == records(first)
    # One mask is lost, one image is another one, one is new.
    mode.remove(f"masks/{NAMES[0]}")
    Image.new("RGB", (70, 50), (200, 30, 60)).save(made / NAMES[2])
    Image.new("RGB", (50, 70), (20, 130, 60)).save(made / "new.png")
    (made / "broken.png").unlink()
    assert mode.segment("made", *ONE_THREAD) == 0
    second = mode.files()
    changed = {name for name in pictures(second) if first.get(name) != second[name]}
    assert changed == {f"{kind}/{name}" for kind in ("masks", "color") for name in (NAMES[2], "new.png")}
    assert second[f"masks/{NAMES[0]}"] == first[f"masks/{NAMES[0]}"]
    assert (records(second)[NAMES[2]]["width"], records(second)["new.png"]["height"]) == (70, 70)


def test_what_is_wrong_is_refused(mode: Mode, made: Path) -> None:
    Path("empty").mkdir()
    assert mode.segment("empty", *ONE_THREAD) == 3
    assert mode.segment("nowhere", *ONE_THREAD) == 2
    assert mode.segment("made", *ONE_THREAD, "--weights", "nowhere.pth") == 2
