"""`fcn compare`: how two folders of masks agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import SMALL, Fcn, MakeImages
from .test_evaluate import save


def test_known_figures(fcn: Fcn, tmp_path: Path) -> None:
    save([[0, 0, 8], [8, 8, 255]], tmp_path / "a/one.png")
    save([[0, 8, 8], [8, 8, 15]], tmp_path / "b/one.png", paletted=True)
    save(np.zeros((4, 5), np.uint8), tmp_path / "a/sub/same.png")
    save(np.zeros((4, 5), np.uint8), tmp_path / "b/sub/same.png")
    save([[1]], tmp_path / "a/alone.png")
    got = json.loads(fcn("compare", "a", "b", "--json").stdout)
    assert got["pixels_equal"] == 24 / 26
    assert {index: one["iou"] for index, one in got["classes"].items()} == {
        "0": 21 / 22,
        "8": 3 / 4,
        "15": 0,
        "255": 0,
    }
    # Void is no class.
    assert got["mean_iou"] == pytest.approx((21 / 22 + 3 / 4) / 3)
    assert (got["images"], got["images_identical"], got["only_in_a"], got["only_in_b"]) == (2, 1, 1, 0)
    assert got["most_different"] == [{"image": "one", "fraction": 2 / 6, "pixels": 2}]
    shown = fcn("compare", "a", "b").stdout
    for text in ("92.3077%", "1 identical", "1 only in A", "one: 2 pixels differ (33.333%)", "void"):
        assert text in shown


def test_the_ten_that_differ_most_the_worst_first(fcn: Fcn, tmp_path: Path) -> None:
    for number in range(1, 15):
        labels = np.zeros((10, 10), np.uint8)
        save(labels, tmp_path / f"a/{number}.png")
        labels.flat[:number] = 1
        save(labels, tmp_path / f"b/{number}.png")
    got = json.loads(fcn("compare", "a", "b", "--json").stdout)
    assert [int(one["image"]) for one in got["most_different"]] == list(range(14, 4, -1))
    assert got["pixels_equal"] == 1 - sum(range(1, 15)) / 1400


@pytest.mark.long
def test_output_directories_of_other_settings(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images([f"{number}.png" for number in range(4)], size=(120, 90))
    fcn("segment", made, *SMALL, "-o", "a")
    fcn("segment", made, *SMALL, "-o", "plain", "--kernels", "torch", "--write", "color")
    fcn("segment", made, "--backbone", "efficientnet_lite0", "--resize", "96", "-o", "b")
    same = json.loads(fcn("compare", "a", "plain", "--json").stdout)
    assert same["pixels_equal"] > 0.999
    assert same["settings"] == {"kernels": ["auto", "torch"]}
    other = json.loads(fcn("compare", "a", "b", "--json").stdout)
    assert other["settings"] == {"resize": [64, 96]}
    expected = [
        np.array(Image.open(tmp_path / f"a/masks/{n}.png"))
        == np.array(Image.open(tmp_path / f"b/masks/{n}.png"))
        for n in range(4)
    ]
    assert other["pixels_equal"] == np.concatenate([one.ravel() for one in expected]).mean()
    assert "resize: 64 in A, 96 in B" in fcn("compare", "a", "b").stdout


def test_what_cannot_be_compared(fcn: Fcn, tmp_path: Path) -> None:
    save([[0]], tmp_path / "a/x.png")
    save([[0, 0]], tmp_path / "b/x.png")
    save([[0]], tmp_path / "a/y.png")
    (tmp_path / "b/y.png").write_bytes(b"broken")
    save([[0]], tmp_path / "a/z.png")
    save([[0]], tmp_path / "b/z.png")
    done = fcn("compare", "a", "b", "--json", code=1)
    got = json.loads(done.stdout)
    assert {one["image"]: one["kind"] for one in got["failures"]} == {"x": "SizesDiffer", "y": "BadLabels"}
    assert got["images"] == 1
    assert "1x1 pixels in A, 2x1 in B" in done.stderr
    save([[0]], tmp_path / "c/other.png")
    assert "no masks in common" in fcn("compare", "a", "c", code=3).stderr


def test_suffixes_count_in_upper_and_lower_case(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """In both commands, on every side."""
    for number in range(3):
        save([[number, number]], tmp_path / f"lower/sub/{number}.png")
        save([[number, 9]], tmp_path / f"upper/sub/{number}.PNG")
    save([[0]], tmp_path / "upper/._0.png")
    got = json.loads(fcn("compare", "lower", "upper", "--json").stdout)
    assert (got["images"], got["pixels_equal"], got["only_in_a"], got["only_in_b"]) == (3, 0.5, 0, 0)
    made = make_images(["x.jpg", "y.jpg"], size=(4, 2))
    for name, stem in (("x.PNG", "x"), ("y.jpg.Png", "y")):
        save(np.full(Image.open(made / f"{stem}.jpg").size[::-1], 8, np.uint8), tmp_path / f"truth/{name}")
    got = json.loads(fcn("evaluate", made, "truth", "--predictions", "truth", "--json").stdout)
    assert (got["images"], got["pixel_accuracy"]) == (2, 1)


def test_two_files_of_one_name_are_refused(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    save([[0]], tmp_path / "a/x.png")
    save([[1]], tmp_path / "a/x.PNG")
    save([[0]], tmp_path / "b/x.png")
    for command in (("compare", "a", "b"), ("compare", "b", "a"), ("evaluate", make_images(["x.png"]), "a")):
        assert "have the same name; keep one" in fcn(*command, code=2).stderr


def test_a_large_difference_is_counted_in_strips(fcn: Fcn, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    a, b = random.integers(0, 21, (2, 1300, 1700), dtype=np.uint8)
    save(a, tmp_path / "a/x.png")
    save(b, tmp_path / "b/x.png")
    got = json.loads(fcn("compare", "a", "b", "--json").stdout)
    assert got["pixels_equal"] == (a == b).mean()
    for index in range(21):
        either, both = ((a == index) | (b == index)).sum(), ((a == index) & (b == index)).sum()
        assert got["classes"][str(index)]["iou"] == both / either
        assert got["classes"][str(index)]["pixels_b"] == (b == index).sum()
