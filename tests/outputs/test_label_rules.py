"""``--map``: classes merged, renumbered and renamed, in every output of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn_cli import RequestError, Segmenter
from fcn_cli.common.regions import Regions

from ..conftest import PREVIEW, SAMPLES, SMALL, Fcn, journal_of

IMAGE = SAMPLES / "astronaut.png"
VOC_PERSON, VOC_BOTTLE = 15, 5


def labels_of(folder: Path, kind: str = "masks", name: str = "astronaut") -> NDArray[np.uint8]:
    return np.array(Image.open(folder / kind / f"{name}.png"))


def names_of(folder: Path) -> dict[str, str]:
    classes: dict[str, Any] = json.loads((folder / "classes.json").read_text())
    return {index: entry["name"] for index, entry in classes.items()}


def test_all_outputs_have_the_new_classes(fcn: Fcn, tmp_path: Path) -> None:
    fcn("segment", IMAGE, *SMALL, "-o", "plain")
    plain = labels_of(tmp_path / "plain")
    table = np.full(256, 255, np.uint8)
    table[[0, VOC_PERSON, VOC_BOTTLE]] = 0, 2, 2
    rules = "thing:person+bottle=2,__background__=0,*=255"
    line = ("segment", IMAGE, *SMALL, "--write", "masks,color,cutout", "--cutout", "thing")
    fcn(*line, "-o", "out", "--map", rules)
    expected = table[plain]
    assert {0, 2} <= set(np.unique(expected).tolist())
    assert np.array_equal(labels_of(tmp_path / "out"), expected)
    assert np.array_equal(labels_of(tmp_path / "out", "color"), expected)
    alpha = np.array(Image.open(tmp_path / "out/cutout/astronaut.png"))[..., 3]
    assert np.array_equal(alpha == 255, expected == 2)
    assert names_of(tmp_path / "out") == {"0": "__background__", "1": "class_1", "2": "thing", "255": "void"}
    counts = {str(index): n for index, n in enumerate(np.bincount(expected.ravel()).tolist()) if n}
    assert journal_of(tmp_path / "out")["astronaut.png"]["classes"] == counts
    stats = (tmp_path / "out/stats.csv").read_text()
    assert f"astronaut.png,512,512,2,thing,{counts['2']}," in stats
    assert fcn("list", "out", "--class", "thing").stdout == f"{IMAGE}\n"
    # What is made later comes from the masks, which are mapped once.
    fcn(*line, "--write", "masks,color,cutout,overlay", "-o", "out", "--map", rules)
    fcn("segment", IMAGE, *SMALL, "-o", "out", "--map", rules, "--palette", "bright")
    assert np.array_equal(labels_of(tmp_path / "out", "color"), expected)
    assert "no problem" in fcn("verify", "out").stderr


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ("person=1,cat+dog=2,*=0", ["__background__", "person", "cat+dog"]),
        ("person=0", ["__background__+person", "aeroplane"]),
        ("cat=0,*=1", ["cat", "__background__"]),
        ("0=0,15=1,*=2", ["__background__", "person", "other"]),
        ("pet:CAT+dog=1,*=void", ["class_0", "pet"]),
    ],
)
def test_names_of_classes(rules: str, names: list[str]) -> None:
    segmenter = Segmenter(PREVIEW[1], map=rules)
    assert list(segmenter.class_names[: len(names)]) == names
    without_rest = "*" not in rules
    assert len(segmenter.class_names) == (21 if without_rest else len(names))


def test_map_by_file_and_dictionary_and_library(fcn: Fcn, tmp_path: Path) -> None:
    rules = {"pet:cat+dog": 1, "*": 0}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    cat = SAMPLES / "chelsea.png"
    plain = Segmenter(PREVIEW[1], resize=64)(cat)
    expected = np.isin(plain.labels, [8, 12]).astype(np.uint8)
    assert expected.any()
    for given in (rules, tmp_path / "rules.json", "pet:cat+dog=1,*=0"):
        result = Segmenter(PREVIEW[1], resize=64, map=given)(cat)
        assert np.array_equal(result.labels, expected)
        assert result.class_names == ("__background__", "pet")
    fcn("segment", cat, *SMALL, "-o", "x.png", "--map", "rules.json")
    assert np.array_equal(np.array(Image.open(tmp_path / "x.png")), expected)


def test_the_order_is_confidence_map_region(fcn: Fcn, tmp_path: Path) -> None:
    features = pytest.importorskip("rasterio.features", reason="GDAL's sieve comes with rasterio")
    fcn("segment", IMAGE, *SMALL, "-o", "plain", "--min-confidence", "0.4")
    plain = labels_of(tmp_path / "plain")
    table = np.where(np.arange(256) == 255, 255, np.arange(256) == VOC_PERSON).astype(np.uint8)
    least = int(Regions.of(table[plain]).areas.min()) + 1
    expected = features.sieve(table[plain], least, connectivity=4)
    assert (expected != table[plain]).any()
    assert (plain == 255).any()
    shaped = ("--min-confidence", "0.4", "--map", "person=1,*=0", "--min-region", str(least))
    fcn("segment", IMAGE, *SMALL, "-o", "out", *shaped)
    assert np.array_equal(labels_of(tmp_path / "out"), expected)


def test_a_directory_keeps_its_map(fcn: Fcn, tmp_path: Path) -> None:
    fcn("segment", IMAGE, *SMALL, "-o", "out")
    again = fcn("segment", IMAGE, *SMALL, "-o", "out", "--map", "dog+cat=21", code=2)
    assert "--map: not given before, 8=21,12=21 now" in again.stderr
    # Rules that change nothing are none.
    assert "nothing to do" in fcn("segment", IMAGE, *SMALL, "-o", "out", "--map", "cat=8").stderr
    fcn("segment", IMAGE, *SMALL, "-o", "mapped", "--map", "dog+cat=1,*=0")
    same = fcn("segment", IMAGE, *SMALL, "-o", "mapped", "--map", "pet:12+8=1,*=0")
    assert "nothing to do" in same.stderr
    assert names_of(tmp_path / "mapped")["1"] == "pet"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("dogg=1", "--map: there is no class 'dogg'; did you mean dog?"),
        ("21=1", "--map: there is no class '21'"),
        ("cat=256", "--map: 256 is more than 255"),
        ("cat=pet", "--map: 'pet'"),
        ("cat=1,8=2", "--map: 8 is class 8, which is listed twice"),
        ("pet:cat+dog=15", "--map: 15 is the index of person, which keeps it; choose another one, add '*=0'"),
        ("person=1", "--map: 1 is the index of aeroplane, which keeps it"),
        ("pet:cat=0", "--map: 0 is the index of __background__, which keeps it"),
        ("cat", "--map cat: cannot be read"),
        ("a:cat=1,b:dog=1", "--map a:cat=1,b:dog=1: rules such as"),
        (":cat=1", "--map :cat=1: rules such as"),
    ],
)
def test_rules_that_are_none(fcn: Fcn, tmp_path: Path, rules: str, message: str) -> None:
    assert message in fcn("segment", IMAGE, *SMALL, "-o", "out", "--map", rules, code=2).stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match=message.removeprefix("--map").split("'")[0].strip(" :")):
        Segmenter(PREVIEW[1], map=rules)
