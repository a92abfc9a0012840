"""Truth from COCO annotations, pixel by pixel as torchvision's reference makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.evaluation.coco import CocoTruth

from ..conftest import SMALL, Fcn, MakePhotos

mask = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")

WIDTH, HEIGHT = 61, 48
# torchvision's reference lists COCO's category ids in the order of Pascal VOC's classes, from 0.
CATEGORIES = [0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
CAT, PERSON, GIRAFFE = 17, 1, 25


def runs_of(shape: NDArray[np.bool_]) -> dict[str, Any]:
    """Uncompressed run lengths, down the columns, the first one of zeros."""
    flat = shape.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    bounds = [0, *ends.tolist(), len(flat)]
    counts = np.diff(bounds).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *counts] if flat[0] else counts}


def ring() -> NDArray[np.bool_]:
    """A disc with a hole."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - 40, y - 20)
    inside: NDArray[np.bool_] = (distance < 14) & (distance > 6)
    return inside


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco_file() -> dict[str, Any]:
    compressed = mask.encode(np.asfortranarray(ring()[:, ::-1].astype(np.uint8)))
    instances = [
        # Two parts of one person, and a triangle of it that overlaps the first part: still one instance.
        (1, PERSON, [box(2, 2, 12, 20), box(20, 5, 30, 15), [5.5, 10.2, 25.1, 30.7, 3.3, 28.9]], 0),
        # A cat over the person's second part: the overlap is void. A second cat over the first.
        (1, CAT, [box(25, 8, 45, 25)], 0),
        (1, CAT, [box(40, 20, 55, 40)], 0),
        # What Pascal VOC does not have is background, and makes nothing void.
        (1, GIRAFFE, [box(0, 0, 60, 47)], 0),
        (2, PERSON, runs_of(ring()), 0),
        (2, PERSON, runs_of(np.arange(HEIGHT)[:, None] + np.arange(WIDTH) < 30), 1),
        (4, CAT, {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()}, 0),
    ]
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
            for number in (1, 2, 3, 4)
        ],
        "categories": [
            {"id": PERSON, "name": "person"},
            {"id": CAT, "name": "cat"},
            {"id": GIRAFFE, "name": "giraffe"},
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": shape,
                "iscrowd": crowd,
            }
            for number, (image, category, shape, crowd) in enumerate(instances)
        ],
    }


def by_the_reference(content: dict[str, Any], image_id: int) -> NDArray[np.int64]:
    """Filter, remap, rasterise each instance, take the largest class index, void where two or more meet."""
    kept = [
        one
        for one in content["annotations"]
        if one["image_id"] == image_id and one["category_id"] in CATEGORIES
    ]
    if not kept:
        return np.zeros((HEIGHT, WIDTH), np.int64)
    masks = []
    for one in kept:
        shape = one["segmentation"]
        runs = (
            [shape]
            if isinstance(shape, dict) and isinstance(shape["counts"], str)
            else mask.frPyObjects(shape, HEIGHT, WIDTH)
        )
        pixels = mask.decode(runs)
        masks.append(pixels.reshape(HEIGHT, WIDTH, -1).any(2))
    stack = np.stack(masks)
    classes = np.array([CATEGORIES.index(one["category_id"]) for one in kept])
    target: NDArray[np.int64] = (stack * classes[:, None, None]).max(0)
    target[stack.sum(0) > 1] = 255
    return target


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "instances_small.json"
    path.write_text(json.dumps(coco_file()))
    return path


def test_label_maps_are_the_references(truth: Path) -> None:
    made = CocoTruth(truth)
    made.use_classes(VOC_CLASSES)
    assert len(made) == 4
    for number in (1, 2, 3, 4):
        name = made.find(f"{number}.png")
        assert name is not None
        labels = made.load(name)
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, by_the_reference(coco_file(), number))
    first, second, third, fourth = (made.load(f"{number}.png") for number in (1, 2, 3, 4))
    assert {0, 8, 15, 255} == set(np.unique(first))
    # A person of several overlapping parts is not void; two cats, one over the other, are.
    assert first[12, 8] == 15
    assert first[22, 42] == 255
    # The crowd counts, and makes void where it meets the ring; the ring's hole stays a hole.
    assert second[0, 0] == 15
    assert second[20, 40] == 0
    assert not third.any()
    assert set(np.unique(fourth)) == {0, 8}


def test_evaluate_on_coco(fcn: Fcn, make_photos: MakePhotos, truth: Path) -> None:
    made = make_photos(["1.png", "2.png", "3.png", "5.png"], size=(WIDTH, HEIGHT))
    for path in made.iterdir():
        Image.open(path).resize((WIDTH, HEIGHT)).save(path)
    got = json.loads(fcn("evaluate", made, truth, *SMALL, "--json").stdout)
    assert (got["images"], got["images_without_truth"], got["truth_without_image"]) == (3, 1, 1)
    expected = [by_the_reference(coco_file(), number) for number in (1, 2, 3)]
    assert got["classes"]["15"]["truth_pixels"] == sum(int((one == 15).sum()) for one in expected)
    assert got["classes"]["8"]["truth_images"] == 1
    assert "crowds" in got["protocol"]["truth"]
