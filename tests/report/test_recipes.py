"""The recipes of docs/exports.md, run as they stand there, and read as the other tools' documents say."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ..conftest import command, run_line
from ..made_output import VOC, blobs, make_output

RECIPES = (Path(__file__).parents[2] / "docs/exports.md").read_text(encoding="utf-8")
NAMES = ["a.jpg", "sub/b c.jpg", "sub_b_c.png"]


def test_cvat_finds_each_label_by_its_colour(tmp_path: Path) -> None:
    """Its "Segmentation mask 1.1": docs.cvat.ai/docs/dataset_management/formats/format-smask."""
    maps = {name: blobs(seed, 60 + seed, 75) for seed, name in enumerate(NAMES)}
    make_output(tmp_path / "fcn_output", maps, tmp_path / "photos")
    recipe = RECIPES.split("\n## CVAT\n")[1].split("\n## ")[0]
    lines = "\n".join(re.findall(r"^    (.*)$", recipe, re.MULTILINE))
    run_line(["sh", "-ec", lines.replace("fcn export", f"{shlex.join(command())} export")], cwd=tmp_path)
    root = tmp_path / "voc/VOCdevkit/VOC2012"
    with (root / "images.csv").open() as table:
        image_of = {row["name"]: os.path.normpath(row["image"]) for row in csv.DictReader(table)}
    assert {path.stem for path in (root / "JPEGImages").iterdir()} == set(image_of)
    with zipfile.ZipFile(tmp_path / "cvat.zip") as archive:
        assert {Path(name).parts[0] for name in archive.namelist()} == {
            *("labelmap.txt", "ImageSets", "SegmentationClass")
        }
        lines = archive.read("labelmap.txt").decode()
        labels = [line.split(":") for line in lines.splitlines() if not line.startswith("#")]
        assert all(len(label) == 4 for label in labels)
        index_of = {"background": 0, "ignored": 255, **{name: VOC.index(name) for name in VOC[1:]}}
        by_color = {tuple(map(int, color.split(","))): index_of[name] for name, color, *_ in labels}
        assert len(by_color) == len(labels) == len(VOC) + 1
        (subset,) = (
            name
            for name in archive.namelist()
            if name.startswith("ImageSets/Segmentation/") and name[-1] != "/"
        )
        assert sorted(archive.read(subset).decode().splitlines()) == sorted(image_of)
        for name, image in image_of.items():
            with archive.open(f"SegmentationClass/{name}.png") as file:
                colors = np.asarray(Image.open(file).convert("RGB"))
            read = np.array([by_color[tuple(color)] for color in colors.reshape(-1, 3).tolist()])
            assert np.array_equal(read.reshape(colors.shape[:2]), maps[image])


def test_fiftyone_finds_each_image_and_its_mask(tmp_path: Path) -> None:
    """Its ImageSegmentationDirectory: files of equal names in ``data_path`` and ``labels_path``."""
    maps = {name: blobs(seed, 60 + seed, 75) for seed, name in enumerate(NAMES)}
    make_output(tmp_path / "fcn_output", maps, tmp_path / "photos")
    recipe = RECIPES.split("\n## FiftyOne\n")[1].split("\n## ")[0]
    data, labels = (Path(found) for found in re.findall(r'(?:data|labels)_path="(.*?)"', recipe)[:2])
    images, masks = (
        {path.relative_to(folder).with_suffix(""): path for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / data, tmp_path / labels)
    )
    assert set(images) == set(masks)
    for name, path in masks.items():
        image = str(images[name].relative_to(tmp_path / data))
        assert np.array_equal(np.asarray(Image.open(path)), maps[image])
    targets = json.loads((tmp_path / "fcn_output/classes.json").read_text())
    assert {int(index): one["name"] for index, one in targets.items()} == {
        **dict(enumerate(VOC)),
        255: "void",
    }
