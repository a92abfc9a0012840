"""Images that EXIF rotates are compared the way in which their truth was drawn; other sizes of truth fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch.nn.functional import interpolate
from torchvision.transforms import functional as transforms

from fcn_cli.inputs import decoder, exif

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, preview_network
from .test_evaluate import Labels, by_definition, evaluated, save

Way = Literal["upright", "stored"]
Protocol = Literal["original", "torchvision"]

STORED = (96, 70)
SHORT_SIDE = 64
TAG = 0x0112
DRAWN: dict[int, Way] = {
    1: "upright",
    2: "upright",
    3: "stored",
    4: "upright",
    5: "stored",
    6: "upright",
    7: "upright",
    8: "stored",
}
"""For each EXIF orientation, what the truth of the image was drawn on."""


def tagged(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[TAG] = orientation
    return made


def seen(path: Path, way: Way) -> Image.Image:
    """The image as plain Pillow has it: turned by EXIF, or not."""
    with Image.open(path) as opened:
        return (ImageOps.exif_transpose(opened) if way == "upright" else opened).convert("RGB")


def turned_back(labels: Labels, orientation: int) -> Labels:
    """What `ImageOps.exif_transpose` would make this upright label map of, found by trying all."""
    for method in [None, *Image.Transpose]:
        image = Image.fromarray(labels)
        stored = image if method is None else image.transpose(method)
        stored.getexif()[TAG] = orientation
        if np.array_equal(np.array(ImageOps.exif_transpose(stored)), labels):
            return np.array(stored)
    raise AssertionError(orientation)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Images of each orientation, 1.jpg to 8.jpg, stored 96x70, and truth drawn as `DRAWN` says."""
    random = np.random.default_rng(5)
    (tmp_path / "photos").mkdir()
    with Image.open(SAMPLES / "astronaut.png") as opened:
        whole = opened.convert("RGB").crop((60, 0, 360, 219)).resize(STORED)
    for orientation, way in DRAWN.items():
        path = tmp_path / f"photos/{orientation}.jpg"
        whole.save(path, quality=95, exif=tagged(orientation))
        coarse = Image.fromarray(random.choice([0, 15, 255], (5, 4)).astype(np.uint8))
        truth = coarse.resize(seen(path, way).size, Image.Resampling.NEAREST)
        save(np.array(truth), tmp_path / f"truth/{orientation}.png")
    return tmp_path


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return preview_network().model


def predicted(model: torch.nn.Module, image: Image.Image, protocol: Protocol) -> Labels:
    """Torchvision's steps, written out."""
    small = transforms.resize(image, SHORT_SIDE, transforms.InterpolationMode.BILINEAR, antialias=True)
    batch = transforms.normalize(transforms.to_tensor(small), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        logits = model(batch[None])
        size = image.size if protocol == "original" else small.size
        logits = interpolate(logits, size=size[::-1], mode="bilinear", align_corners=False)
    return logits.argmax(1)[0].numpy().astype(np.uint8)


def pairs_of(
    dataset: Path, model: torch.nn.Module, protocol: Protocol, ways: dict[int, Way]
) -> Iterator[tuple[Labels, Labels]]:
    for orientation, way in ways.items():
        labels = predicted(model, seen(dataset / f"photos/{orientation}.jpg", way), protocol)
        truth = Image.open(dataset / f"truth/{orientation}.png")
        if protocol == "torchvision":
            truth = transforms.resize(truth, SHORT_SIDE, transforms.InterpolationMode.NEAREST)
        yield np.array(truth), labels


def ways_by_the_rule(asked: str, where_both_fit: Way) -> dict[int, Way]:
    """What each image is compared as; those whose truth does not fit are left out."""
    ways: dict[int, Way] = {1: "upright"}
    for orientation in range(2, 9):
        drawn, quarter = DRAWN[orientation], orientation >= 5
        if asked == "auto":
            ways[orientation] = drawn if quarter else where_both_fit
        elif not quarter or drawn == asked:
            ways[orientation] = "stored" if asked == "stored" else "upright"
    return ways


@pytest.mark.long
@pytest.mark.parametrize(
    ("protocol", "asked"),
    [("original", "auto"), ("original", "upright"), ("original", "stored"), ("torchvision", "auto")],
)
def test_the_network_sees_an_image_the_way_its_truth_was_drawn(
    fcn: Fcn, dataset: Path, model: torch.nn.Module, protocol: Protocol, asked: str
) -> None:
    ways = ways_by_the_rule(asked, "stored" if protocol == "torchvision" else "upright")
    failing = sorted(set(DRAWN) - set(ways))
    options = () if asked == "auto" else ("--orientation", asked)
    command = (dataset / "photos", dataset / "truth", *SMALL, "--protocol", protocol, *options)
    got = evaluated(fcn, *command, "--kernels", "torch", code=1 if failing else 0)
    assert [one["kind"] for one in got["failures"]] == ["SizesDiffer"] * len(failing)
    assert [Path(one["image"]).stem for one in got["failures"]] == list(map(str, failing))
    expected = by_definition(list(pairs_of(dataset, model, protocol, ways)), 21)
    assert got["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-4)
    assert got["mean_iou"] == pytest.approx(expected["mean_iou"], abs=1e-4)
    assert got["protocol"]["name"] == protocol
    assert got["orientation"] == {
        "asked": asked,
        "images_turned": len(ways) - 1,
        "taken_upright": list(ways.values()).count("upright") - 1,
        "taken_as_stored": list(ways.values()).count("stored"),
        "fit_both_ways": 3,
        "where_both_fit": "stored" if protocol == "torchvision" else "upright",
    }
    # The other way round has other figures, so the comparison above can tell.
    swapped: dict[int, Way] = {n: "stored" if way == "upright" else "upright" for n, way in ways.items()}
    fits = {n: way for n, way in swapped.items() if n in {2, 3, 4}}
    kept = {n: way for n, way in ways.items() if n in {2, 3, 4}}
    other, same = (
        by_definition(list(pairs_of(dataset, model, protocol, some)), 21)["pixel_accuracy"]
        for some in (fits, kept)
    )
    assert abs(other - same) > 0.001


def test_turned_images_are_reported_in_the_table(fcn: Fcn, dataset: Path) -> None:
    shown = fcn("evaluate", dataset / "photos", dataset / "truth", *SMALL).stdout
    assert (
        "EXIF rotates 7 of the images: 5 compared upright, 2 as stored (--orientation auto); "
        "3 fit the ground truth in both orientations" in " ".join(shown.split())
    )


@pytest.mark.parametrize("protocol", ["original", "torchvision"])
def test_truth_of_another_size_fails_that_image_by_name(fcn: Fcn, tmp_path: Path, protocol: str) -> None:
    (tmp_path / "photos").mkdir()
    with Image.open(SAMPLES / "chelsea.png") as opened:
        for name in ("good", "larger", "turned"):
            opened.convert("RGB").resize((90, 60)).save(tmp_path / f"photos/{name}.png")
    save(np.ones((60, 90), np.uint8), tmp_path / "truth/good.png")
    save(np.ones((120, 180), np.uint8), tmp_path / "truth/larger.png")
    save(np.ones((90, 60), np.uint8), tmp_path / "truth/turned.png")
    done = fcn("evaluate", "photos", "truth", *SMALL, "--protocol", protocol, "--json", code=1)
    got = json.loads(done.stdout)
    assert (got["images"], got["images_given"]) == (1, 3)
    assert [(Path(one["image"]).name, one["kind"]) for one in got["failures"]] == [
        ("larger.png", "SizesDiffer"),
        ("turned.png", "SizesDiffer"),
    ]
    assert "larger.png: its ground truth larger.png has 180x120 pixels, the image 90x60" in done.stderr
    assert "60x90 pixels, the image 90x60 (is it turned by 90 degrees?)" in done.stderr


def test_masks_and_truth_that_agree_on_a_wrong_size_fail_too(fcn: Fcn, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (90, 60)).save(tmp_path / "photos/a.png")
    Image.new("RGB", (90, 60)).save(tmp_path / "photos/b.png")
    save(np.ones((60, 90), np.uint8), tmp_path / "truth/a.png")
    save(np.ones((90, 60), np.uint8), tmp_path / "truth/b.png")
    got = evaluated(fcn, "photos", "truth", "--predictions", "truth", code=1)
    assert got["images"] == 1
    assert [one["kind"] for one in got["failures"]] == ["SizesDiffer"]


@pytest.mark.long
def test_our_upright_masks_are_turned_to_the_truth(fcn: Fcn, dataset: Path) -> None:
    """With truth drawn on the stored image, a half turn would go unnoticed by its size."""
    fcn("segment", dataset / "photos", *SMALL, "-o", "out")
    pairs = []
    for orientation, way in ways_by_the_rule("auto", "upright").items():
        labels = np.array(Image.open(f"out/masks/{orientation}.png"))
        truth = np.array(Image.open(dataset / f"truth/{orientation}.png"))
        pairs.append((truth, turned_back(labels, orientation) if way == "stored" else labels))
    expected = by_definition(pairs, 21)
    command = (dataset / "photos", dataset / "truth", "--predictions")
    got = evaluated(fcn, *command, "out")
    assert got["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-12)
    assert got["mean_iou"] == pytest.approx(expected["mean_iou"], abs=1e-12)
    assert got["orientation"]["taken_as_stored"] == 2
    assert evaluated(fcn, *command, "out/masks")["classes"] == got["classes"]
    # All of one way: also where the sizes are the same, and nothing else would tell.
    ways: tuple[Way, Way] = ("stored", "upright")
    for way in ways:
        for orientation in range(1, 9):
            shape = seen(dataset / f"photos/{orientation}.jpg", way).size[::-1]
            upright = np.array(Image.open(f"out/masks/{orientation}.png"))
            drawn = turned_back(upright, orientation) if way == "stored" else upright
            assert drawn.shape == shape
            save(drawn, dataset / f"as_{way}/{orientation}.png")
        whole = evaluated(fcn, dataset / "photos", f"as_{way}", "--predictions", "out", "--orientation", way)
        assert (whole["images"], whole["pixel_accuracy"]) == (8, 1)


def test_masks_of_others_are_turned_where_their_size_says_so(fcn: Fcn, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    labels = np.zeros(STORED[::-1], np.uint8)
    labels[:20, :50] = 7
    for orientation in (3, 6):
        Image.new("RGB", STORED).save(tmp_path / f"photos/{orientation}.jpg", exif=tagged(orientation))
        save(labels, tmp_path / f"as_stored/{orientation}.png")
    # A quarter turn shows in the size; after a half turn masks and truth are taken to go together.
    save(labels, tmp_path / "truth/3.png")
    quarter = Image.fromarray(labels)
    quarter.getexif()[TAG] = 6
    save(np.array(ImageOps.exif_transpose(quarter)), tmp_path / "truth/6.png")
    got = evaluated(fcn, "photos", "truth", "--predictions", "as_stored")
    assert (got["images"], got["pixel_accuracy"], got["mean_iou"]) == (2, 1, 1)
    got = evaluated(fcn, "photos", "as_stored", "--predictions", "truth")
    assert (got["images"], got["pixel_accuracy"], got["mean_iou"]) == (2, 1, 1)


def test_coco_is_drawn_on_stored_images_and_pascal_voc_on_upright_ones(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    pytest.importorskip("pycocotools", reason="needs pycocotools")
    fcn("segment", make_images(["a.png"]), *SMALL, "-o", "out")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", STORED).save(tmp_path / "photos/a.jpg", exif=tagged(3))
    # Of the upright image: a cat in its top left corner, which is stored as its bottom right one.
    labels = np.zeros(STORED[::-1], np.uint8)
    labels[:30, :40] = 8
    save(labels, tmp_path / "out/masks/a.png")
    right, bottom = STORED
    box = [right - 40, bottom - 30, right, bottom - 30, right, bottom, right - 40, bottom]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": right, "height": bottom}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 17, "segmentation": [box]}],
        "categories": [{"id": 17, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    coco = evaluated(fcn, "photos", "instances.json", "--predictions", "out")
    assert coco["mean_iou"] == 1
    assert coco["orientation"]["taken_as_stored"] == coco["orientation"]["fit_both_ways"] == 1
    save(labels, tmp_path / "VOC/SegmentationClass/a.png", paletted=True)
    (tmp_path / "VOC/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "VOC/ImageSets/Segmentation/val.txt").write_text("a\n")
    voc = evaluated(fcn, "photos", "VOC", "--predictions", "out")
    assert voc["mean_iou"] == 1
    assert voc["orientation"]["taken_upright"] == voc["orientation"]["fit_both_ways"] == 1


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_measuring_agrees_with_decoding(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    for orientation in range(1, 9):
        Image.new("RGB", STORED).save(path, exif=tagged(orientation))
        decoded = decoder.decode_here(path)
        assert decoded.turn == orientation
        assert decoder.measure_here(path)[:2] == (decoded.image.size, orientation)
        assert exif.as_stored(decoded.image, orientation).size == STORED


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 4), st.binary(min_size=16, max_size=16))
def test_as_stored_undoes_what_pillow_does(turn: int, width: int, height: int, pixels: bytes) -> None:
    stored = Image.frombytes("L", (width, height), pixels[: width * height])
    stored.getexif()[TAG] = turn
    upright = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.array(exif.upright(stored, turn)), np.array(upright))
    assert np.array_equal(np.array(exif.as_stored(upright, turn)), np.array(stored))
    assert exif.turned_size(stored.size, turn) == upright.size
