"""``fcn export``: masks alone, classes merged, connected parts, Label Studio's brushes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from fcn_cli.common.regions import Regions
from fcn_cli.report.exports.labelstudio import pack

from ..conftest import SAMPLES, SMALL, Fcn
from ..made_output import VOC, Labels, blobs, make_output

NAMES = ["a.jpg", "sub/b c.jpg", "sub/日本.bmp"]
PET = "pet:cat+dog=2,1+2+3=1,*=0"
PET_TABLE = np.zeros(256, np.uint8)
PET_TABLE[[1, 2, 3]], PET_TABLE[[VOC.index("cat"), VOC.index("dog")]], PET_TABLE[255] = 1, 2, 255


@pytest.fixture
def maps(tmp_path: Path) -> dict[str, Labels]:
    maps = {name: blobs(seed, 60 + seed, 75) for seed, name in enumerate(NAMES)}
    # Among them cats and dogs.
    for labels in maps.values():
        labels[labels == labels.max(initial=0, where=labels != 255)] = VOC.index("cat")
        labels[:9, :7] = VOC.index("dog")
    make_output(tmp_path / "out", maps, tmp_path / "photos")
    return maps


def stem(name: str) -> str:
    return name.rpartition(".")[0]


def test_masks_and_their_classes(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    fcn("export", "out", "--format", "masks", "-o", "new", "--map", PET)
    for name, labels in maps.items():
        with Image.open(tmp_path / f"new/{stem(name)}.png") as mask:
            assert mask.mode == "L"
            assert np.array_equal(np.array(mask), PET_TABLE[labels])
    classes = json.loads((tmp_path / "new/classes.json").read_text())
    assert {i: one["name"] for i, one in classes.items()} == {
        "0": "__background__",
        "1": "aeroplane+bicycle+bird",
        "2": "pet",
        "255": "void",
    }
    assert len(list((tmp_path / "new").rglob("*.png"))) == len(maps)
    assert "exists" in fcn("export", "out", "--format", "masks", "-o", "new", code=2).stderr
    fcn("export", "out", "--format", "masks", "-o", "new", "--overwrite")
    for name, labels in maps.items():
        assert np.array_equal(np.array(Image.open(tmp_path / f"new/{stem(name)}.png")), labels)


def test_a_black_and_white_mask_for_each_class(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    fcn("export", "out", "--format", "binary", "-o", "new")
    expected = set()
    for name, labels in maps.items():
        for index in set(np.unique(labels).tolist()) - {0, 255}:
            path = tmp_path / f"new/{stem(name)}/{VOC[index]}.png"
            expected.add(path)
            with Image.open(path) as mask:
                assert mask.mode == "L"
                assert np.array_equal(np.array(mask), np.where(labels == index, 255, 0))
    assert set((tmp_path / "new").rglob("*.png")) == expected


def test_a_map_at_once_and_later_are_equal(fcn: Fcn, tmp_path: Path) -> None:
    images = [SAMPLES / "astronaut.png", SAMPLES / "chelsea.png"]
    shaped = ("--map", "living:person+cat=1,*=0", "--min-region", "60")
    fcn("segment", *images, *SMALL, "-o", "plain")
    fcn("segment", *images, *SMALL, "-o", "mapped", *shaped)
    for form, name in (("coco", "coco.json"), ("voc", "voc"), ("yolo", "yolo"), ("masks", "masks")):
        fcn("export", "plain", "--format", form, "-o", f"later/{name}", *shaped)
        fcn("export", "mapped", "--format", form, "-o", f"now/{name}")
    later, now = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "later", tmp_path / "now")
    )
    assert later == now
    assert len(now) > 10


@pytest.mark.parametrize("polygons", [False, True])
def test_parts_as_pycocotools_reads_them(
    fcn: Fcn, maps: dict[str, Labels], tmp_path: Path, polygons: bool
) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    fcn(
        "export", "out", "--format", "coco", "-o", "coco.json", *(["--polygons"] if polygons else ["--parts"])
    )
    coco = coco_module.COCO("coco.json")
    kinds = set()
    for image in coco.imgs.values():
        labels = maps[image["file_name"]]
        regions = Regions.of(labels)
        left = {index for index, value in enumerate(regions.values.tolist()) if value not in {0, 255}}
        for one in coco.loadAnns(coco.getAnnIds(image["id"])):
            kinds.add(type(one["segmentation"]))
            mask = coco.annToMask(one).astype(bool)
            region = int(regions.image[mask][0])
            left.remove(region)
            assert np.array_equal(mask, regions.image == region)
            assert one["category_id"] == regions.values[region]
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            assert one["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
            assert (one["area"], one["iscrowd"]) == (mask.sum(), 0)
        assert not left
    assert kinds == ({list, dict} if polygons else {dict})
    wrong = fcn("export", "out", "--format", "voc", "-o", "x", "--parts", code=2)
    assert "are for --format coco, not voc" in wrong.stderr


def unpacked(data: list[int]) -> NDArray[np.uint8]:
    """Decode Label Studio's run lengths, bit by bit."""
    text, place = "".join(f"{byte:08b}" for byte in data), 0

    def read(bits: int) -> int:
        nonlocal place
        place += bits
        return int(text[place - bits : place], 2)

    size, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < size:
        repeated, length = read(1), lengths[read(2)]
        count = read(length) + 1
        values += [read(word)] * count if repeated else [read(word) for _ in range(count)]
    assert len(text) - place < 8
    return np.array(values, np.uint8)


REGIONS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=90))


@given(REGIONS | st.just(np.ones((300, 200), np.bool_)))
def test_brushes_are_the_regions(region: NDArray[np.bool_]) -> None:
    pixels = unpacked(pack(region)).reshape(*region.shape, 4)
    assert np.array_equal(pixels, np.repeat(region[..., None] * np.uint8(255), 4, 2))


def test_label_studios_tasks(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    fcn("export", "out", "--format", "labelstudio", "-o", "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "tasks.json",
        "labels.xml",
        ".fcn-export.json",
    }
    tasks: list[dict[str, Any]] = json.loads((tmp_path / "new/tasks.json").read_text())
    assert len(tasks) == len(maps)
    for task, (name, labels) in zip(tasks, maps.items(), strict=True):
        assert task["data"]["image"].startswith("/data/local-files/?d=")
        results = task["predictions"][0]["result"]
        assert [one["value"]["brushlabels"] for one in results] == [
            [VOC[index]] for index in np.unique(labels).tolist() if index not in {0, 255}
        ], name
        for one in results:
            assert (one["original_height"], one["original_width"]) == labels.shape
            pixels = unpacked(one["value"]["rle"]).reshape(*labels.shape, 4)[..., 3]
            assert np.array_equal(pixels == 255, labels == VOC.index(one["value"]["brushlabels"][0]))
    view = ElementTree.fromstring((tmp_path / "new/labels.xml").read_text())
    assert [label.get("value") for label in view.iter("Label")] == VOC[1:]
    assert {one["from_name"] for task in tasks for one in task["predictions"][0]["result"]} == {
        brushes.get("name") for brushes in view.iter("BrushLabels")
    }


def test_label_studios_own_converter_reads_them(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    brush = pytest.importorskip("label_studio_converter.brush", reason="label-studio-converter is not there")
    fcn("export", "out", "--format", "labelstudio", "-o", "new")
    tasks = json.loads((tmp_path / "new/tasks.json").read_text())
    for task, labels in zip(tasks, maps.values(), strict=True):
        results = [{**one, **one["value"]} for one in task["predictions"][0]["result"]]
        layers = brush.decode_from_annotation("tag", results)
        assert len(layers) == len(results)
        for name, layer in layers.items():
            assert np.array_equal(layer == 255, labels == VOC.index(name.split("-")[1]))
