"""COCO's annotations as truth, as torchvision's reference makes it; what else files hold is said by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ..conftest import SMALL, Fcn, MakeImages
from .test_evaluate import runs_of, save

mask = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")

WIDTH, HEIGHT = 61, 48
# torchvision's reference lists COCO's category ids in the order of Pascal VOC's classes, from 0.
CATEGORIES = [0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
CAT, PERSON, GIRAFFE = 17, 1, 25


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


Content = dict[str, Any]
Change = Callable[[Content], Any]


@pytest.fixture
def images(make_images: MakeImages) -> Path:
    """Images 1.png to 4.png, and masks of them."""
    made = make_images(["1.png"], size=(WIDTH, HEIGHT))
    for number in (1, 2, 3, 4):
        add_image(made, number)
    return made


def add_image(images: Path, number: int) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(images / f"{number}.png")
    save(np.zeros((HEIGHT, WIDTH), np.uint8), Path(f"masks/{number}.png"))


def evaluate(fcn: Fcn, images: Path, content: Any, *options: str, code: int = 0) -> tuple[Any, str]:
    """Return the figures, or None, and what stderr says."""
    Path("instances.json").write_text(json.dumps(content))
    measured = ("--predictions", "masks", "--json")
    done = fcn("evaluate", images, "instances.json", *measured, *options, code=code)
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def names(*pairs: tuple[int, str]) -> Change:
    return lambda content: content.update(categories=[{"id": i, "name": name} for i, name in pairs])


def of_annotation(**fields: Any) -> Change:
    return lambda content: content["annotations"][0].update(fields)


def of_image(**fields: Any) -> Change:
    return lambda content: content["images"][0].update(fields)


def test_label_maps_are_the_references(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    expected = {number: by_the_reference(content, number) for number in (1, 2, 3, 4)}
    for number, labels in expected.items():
        save(labels.astype(np.uint8), Path(f"masks/{number}.png"))
    add_image(images, 5)
    (images / "4.png").unlink()
    got, _ = evaluate(fcn, images, content)
    assert (got["images"], got["images_without_truth"], got["truth_without_image"]) == (3, 1, 1)
    assert "crowds" in got["protocol"]["truth"]
    # Where the truth had another class, or were void elsewhere, one of these would be another number.
    add_image(images, 4)
    save(expected[4].astype(np.uint8), Path("masks/4.png"))
    got, _ = evaluate(fcn, images, content)
    pixels = np.stack(list(expected.values()))
    assert (got["images"], got["pixel_accuracy"]) == (4, 1)
    assert got["void_fraction"] == (pixels == 255).mean()
    assert {0, 8, 15, 255} == set(np.unique(expected[1]))
    # A person of several overlapping parts is not void; two cats, one over the other, are.
    assert (expected[1][12, 8], expected[1][22, 42]) == (15, 255)
    # The crowd counts, and makes void where it meets the ring; the ring's hole stays a hole.
    assert (expected[2][0, 0], expected[2][20, 40]) == (15, 0)
    assert not expected[3].any()
    assert set(np.unique(expected[4])) == {0, 8}


REFUSED: dict[str, tuple[Change, str]] = {
    "one number, two names": (
        names((30, "a"), (30, "b"), (1, "person")),
        "category id 30 is both 'a' and 'b'",
    ),
    "none of the twenty": (
        names((25, "giraffe"), (92, "banner"), (1, "x"), (17, "y")),
        "none of its 4 categories (giraffe, banner, x, …) is one of the classes (__background__, aeroplane,",
    ),
    "unlisted category": (names((CAT, "cat")), "has category_id 1, which is not in categories"),
    "no categories": (lambda content: content.pop("categories"), "copy `categories` from COCO's own"),
    "nameless category": (lambda content: content["categories"][0].pop("name"), "categories[0] has no name"),
    "text image id": (of_image(id="1"), 'images[0] has the id "1"; ids are whole numbers'),
    "image without id": (lambda content: content["images"][0].pop("id"), "images[0] has no id"),
    "image without name": (of_image(file_name=""), "images[0] has no file_name"),
    "text image_id": (of_annotation(image_id="1"), 'annotations[0] has the image_id "1"'),
    "fractional image_id": (of_annotation(image_id=1.5), "annotations[0] has the image_id 1.5"),
    "boolean category_id": (of_annotation(category_id=True), "annotations[0] has the category_id true"),
    "annotation is a number": (
        lambda content: content["annotations"].insert(0, 7),
        "annotations[0] is not an object",
    ),
    "boxes only": (
        lambda content: [one.pop("segmentation") for one in content["annotations"]],
        "no annotation has a segmentation",
    ),
    "no list of annotations": (lambda content: content.pop("annotations"), "has no annotations"),
    "no images": (lambda content: content.pop("images"), "it has no list of images"),
    "others' annotations": (
        lambda content: [one.update(image_id=99) for one in content["annotations"]],
        "no annotation belongs to an image of the file",
    ),
    "panoptic": (
        lambda content: content.update(
            annotations=[{"image_id": 1, "file_name": "1.png", "segments_info": []}]
        ),
        "panoptic annotations",
    ),
    "captions": (
        lambda content: content.update(annotations=[{"id": 1, "image_id": 1, "caption": "A cat."}]),
        "captions; give an instances_*.json",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_would_be_scored_wrongly_are_refused(fcn: Fcn, images: Path, case: str) -> None:
    change, text = REFUSED[case]
    content = coco_file()
    change(content)
    # Before the weights, which are not there.
    Path("instances.json").write_text(json.dumps(content))
    refused = fcn("evaluate", images, "instances.json", "--offline", code=2).stderr
    assert refused.startswith("fcn: instances.json: ")
    assert text in refused
    assert refused.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"image_id": 1, "category_id": 17, "score": 0.9}]', "a detector's results"),
        ("[]", "a list; COCO's instances are an object"),
        ("[[[[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("\xff", "not JSON"),
        ('"text"', "it has no list of images"),
    ],
)
def test_other_json_is_refused_with_what_it_seems_to_be(
    fcn: Fcn, images: Path, text: str, reason: str
) -> None:
    Path("x.json").write_bytes(text.encode("latin-1"))
    assert reason in fcn("evaluate", images, "x.json", *SMALL, code=2).stderr


def test_names_in_pascal_vocs_spelling_are_the_same_classes(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    # With numbers that are not COCO's: the names count.
    content["categories"] += [
        {"id": 105, "name": "aeroplane"},
        {"id": 67, "name": "dining_table"},
        {"id": 72, "name": "TV monitor"},
    ]
    got, _ = evaluate(fcn, images, content)
    assert len(got["truth_counts"]["categories_missing"]) == 15


def test_what_does_not_count_is_counted(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    plain, _ = evaluate(fcn, images, content)
    assert plain["truth_counts"] == {
        "annotations_used": 6,
        "annotations_of_other_categories": 1,
        "annotations_of_unknown_images": 0,
        "annotations_without_segmentation": 0,
        "categories_missing": plain["truth_counts"]["categories_missing"],
    }
    assert "dog" in plain["truth_counts"]["categories_missing"]
    content["annotations"] += [{**content["annotations"][0], "id": 50 + n, "image_id": 99} for n in range(2)]
    got, _ = evaluate(fcn, images, content)
    assert got["truth_counts"]["annotations_of_unknown_images"] == 2
    assert got["classes"] == plain["classes"]
    shown = fcn("evaluate", images, "instances.json", "--predictions", "masks").stdout
    shown = " ".join(shown.split())
    assert "6 used, 1 of other categories (background), 2 of images that the file does not list" in shown
    assert (
        "the ground truth has no category for 18 classes: aeroplane, bicycle, bird, boat, bottle, …" in shown
    )


def runs(counts: Any) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": counts}


FAILED: list[tuple[Any, str]] = [
    ([[5, 5, 20, 20]], "has a degenerate polygon of 2 points; at least 3 needed"),
    ([box(1, 1, 9, 9), [3, 3]], "has a degenerate polygon of 1 point;"),
    ([[]], "has a degenerate polygon of 0 points"),
    ([[1, 2, 3, 4, 5, 6, 7]], "has a polygon of 7 numbers; they must be pairs"),
    (box(1, 1, 9, 9), "has a polygon that is not a list of numbers"),
    ([["1", 2, 3, 4, 5, 6]], "has a polygon that is not a list of numbers"),
    ([[float("nan"), 2, 3, 4, 5, 6]], "has a polygon that is not a list of numbers"),
    ([[10**400, 2, 3, 4, 5, 6]], "has a polygon that is not a list of numbers"),
    ([[0, 0, 1e9, 0, 0, 9]], "has a polygon that reaches far outside its image of 61x48"),
    (7, "has a segmentation that is neither polygons nor run lengths"),
    ({"size": [HEIGHT, WIDTH]}, "has damaged run lengths"),
    ({"size": [9, 9], "counts": [81]}, "has run lengths for a size of [9, 9]"),
    (runs([5]), "has run lengths of 5 pixels, its image 2928"),
    (runs([-5, HEIGHT * WIDTH + 5]), "has damaged run lengths"),
    (runs(["5"]), "has damaged run lengths"),
    (runs("\x00"), "has damaged run lengths"),
    (runs("o"), "has run lengths that end too early"),
]
"""Segmentations, and what the failure of an image that has such a one says."""


def test_a_segmentation_that_cannot_be_used_fails_its_image_in_words(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    for number, (segmentation, _) in enumerate(FAILED, 100):
        content["images"].append({**content["images"][0], "id": number, "file_name": f"{number}.png"})
        annotation = {"id": number, "image_id": number, "category_id": CAT, "segmentation": segmentation}
        if segmentation is None:
            del annotation["segmentation"]
        content["annotations"].append(annotation)
        add_image(images, number)
    got, said = evaluate(fcn, images, content, code=1)
    assert (got["images"], got["images_given"]) == (4, 4 + len(FAILED))
    failures = {Path(one["image"]).stem: one for one in got["failures"]}
    for number, (_, text) in enumerate(FAILED, 100):
        assert failures[str(number)]["kind"] == "BadLabels"
        assert f"instances.json: annotation {number} (cat) {text}" in failures[str(number)]["message"]
        assert f"{number}.png: instances.json: annotation {number} (cat) {text}" in said


def test_an_image_that_the_file_does_not_tell_plainly_fails(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    # What belongs to the first of the two is known, but not whose it is.
    content["images"].append({**content["images"][0], "id": 77})
    del content["images"][1]["width"]
    content["images"][2]["id"] = content["images"][3]["id"]
    got, _ = evaluate(fcn, images, content, code=1)
    assert {Path(one["image"]).name: one["message"] for one in got["failures"]} == {
        "1.png": "2 images of the annotations have this file_name",
        "2.png": "the annotations do not give its width and height in whole pixels",
        "3.png": "2 images of the annotations have its id, 4",
        "4.png": "2 images of the annotations have its id, 4",
    }
    assert got["truth_counts"]["annotations_of_unknown_images"] == 0


def test_other_classes_than_pascal_vocs_are_refused(fcn: Fcn, images: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(["ground", *(f"thing {n}" for n in range(20))]))
    _, said = evaluate(fcn, images, coco_file(), "--class-names", "names.txt", code=2)
    assert "--class-names voc" in said


def test_an_annotation_without_a_segmentation_is_left_out_and_noted(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    plain, _ = evaluate(fcn, images, content)
    nothing: tuple[Any, ...] = (None, [], {})
    for segmentation in nothing:
        content["annotations"].append({**content["annotations"][0], "segmentation": segmentation})
    got, _ = evaluate(fcn, images, content)
    assert got["truth_counts"]["annotations_without_segmentation"] == 3
    assert got["classes"] == plain["classes"]
    assert got["notes"] == [{"image": f"{images}/1.png", "notes": ["annotations without a segmentation: 3"]}]


def test_images_without_annotations_are_background(fcn: Fcn, images: Path) -> None:
    got, _ = evaluate(fcn, images, {**coco_file(), "annotations": []})
    assert got["images"] == 4
    assert [entry["name"] for entry in got["classes"].values() if entry["truth_pixels"]] == ["__background__"]


def test_names_of_other_folders_are_found_where_they_mean_one_image(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    given = [
        "exact.png",
        "train/a.png",
        "val/a.png",
        "b.png",
        "x/c.png",
        "y/c.png",
        "e.png",
        "odd\\f.png",
    ]
    listed = [
        "exact.png",
        "/data/train/a.png",
        "C:\\data\\val\\a.png",
        "http://example.org/images/b.png",
        "c.png",
        "one/e.png",
        "two/e.png",
        "odd\\f.png",
        "other/exact.png",
    ]
    made = make_images(given, size=(WIDTH, HEIGHT))
    for path in made.rglob("*.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
        save(np.zeros((HEIGHT, WIDTH), np.uint8), tmp_path / "masks" / path.relative_to(made))
    content = coco_file()
    content["images"] = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(listed, 1)
    ]
    got, said = evaluate(fcn, made, content, code=1)
    assert got["images"] == 5
    assert {str(Path(one["image"]).relative_to(made)) for one in got["failures"]} == {
        "x/c.png",
        "y/c.png",
        "e.png",
    }
    assert "its ground truth may be one/e.png or two/e.png" in said
    assert f"c.png may be the ground truth of {made}/x/c.png and {made}/y/c.png" in said


def test_categories_by_ones_own_map(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    got, _ = evaluate(fcn, images, content, "--truth-map", "giraffe+cat=horse,*=void")
    shown = {entry["name"] for entry in got["classes"].values() if entry["truth_pixels"]}
    assert shown == {"__background__", "horse"}
    assert got["void_fraction"] > 0.1
    ignored, _ = evaluate(fcn, images, content, "--ignore-index", str(GIRAFFE))
    assert ignored["void_fraction"] > evaluate(fcn, images, content)[0]["void_fraction"]


def test_without_a_background_what_is_not_covered_is_void(fcn: Fcn, images: Path) -> None:
    content = coco_file()
    for names, covered in (("cat\nperson", True), ("background\ncat\nperson", False)):
        Path("names.txt").write_text(names)
        got, _ = evaluate(fcn, images, content, "--class-names", "names.txt")
        empty = WIDTH * HEIGHT
        assert (got["void_fraction"] * 4 * empty > 2 * empty) == covered
        assert (got["classes"]["0"]["truth_pixels"] < empty) == covered
