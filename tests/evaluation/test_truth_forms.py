"""Ground truth in the forms that people have it in: the same truth has the same figures."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn_cli.common import palettes

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages
from ..made_output import make_output
from .test_evaluate import Labels, by_definition, evaluated, runs_of, save

STEMS = ("a", "b", "c")
CAT, PERSON = 8, 15
COLORS = {0: (0, 0, 0), CAT: (250, 50, 83), PERSON: (61, 61, 245)}
LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\nperson:61,61,245::\n"


def boxes(seed: int, shape: tuple[int, int]) -> list[tuple[int, int, int, int, int]]:
    """Return rectangles (class, left, top, right, bottom) that do not meet."""
    random = np.random.default_rng(seed)
    height, width = shape
    cuts = sorted(random.choice(np.arange(1, width), 3, replace=False).tolist())
    found = []
    for index, left, right in zip((CAT, PERSON, CAT), (0, *cuts), cuts, strict=False):
        top, bottom = sorted(random.choice(height + 1, 2, replace=False).tolist())
        found.append((index, left, top, right, bottom))
    return found


def drawn(seed: int, shape: tuple[int, int]) -> Labels:
    labels = np.zeros(shape, np.uint8)
    for index, left, top, right, bottom in boxes(seed, shape):
        labels[top:bottom, left:right] = index
    return labels


@pytest.fixture
def truths(make_images: MakeImages, tmp_path: Path) -> dict[str, Labels]:
    """Images in ``made``, predictions in ``masks``; the truth of each image by its stem."""
    made = make_images([f"{stem}.jpg" for stem in STEMS])
    truths = {}
    for seed, stem in enumerate(STEMS):
        with Image.open(made / f"{stem}.jpg") as image:
            shape = image.size[::-1]
        truths[stem] = drawn(seed, shape)
        save(np.roll(truths[stem], (3, 5), (0, 1)), tmp_path / f"masks/{stem}.png")
    return truths


def voc_root(root: Path, truths: dict[str, Labels]) -> None:
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("".join(f"{stem}\n" for stem in truths))


def voc(truths: dict[str, Labels]) -> tuple[str, ...]:
    voc_root(Path("VOC"), truths)
    for stem, labels in truths.items():
        save(labels, Path(f"VOC/SegmentationClass/{stem}.png"), paletted=True)
    return ("VOC",)


def cvat(truths: dict[str, Labels]) -> tuple[str, ...]:
    voc_root(Path("CVAT"), truths)
    Path("CVAT/labelmap.txt").write_text(LABEL_MAP)
    for stem, labels in truths.items():
        colored = np.zeros((*labels.shape, 3), np.uint8)
        for index, color in COLORS.items():
            colored[labels == index] = color
        save(colored, Path(f"CVAT/SegmentationClass/{stem}.png"))
    return ("CVAT",)


def label_map_elsewhere(truths: dict[str, Labels]) -> tuple[str, ...]:
    cvat(truths)
    Path("CVAT/labelmap.txt").rename("names.txt")
    return "CVAT/SegmentationClass", "--labelmap", "names.txt"


def rgb(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        save(palettes.voc()[labels], Path(f"rgb/{stem}.png"))
    return "rgb", "--truth-colors", "voc"


def grey_rgb(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        save(np.repeat(labels[..., None], 3, 2), Path(f"grey/{stem}.png"))
    return ("grey",)


def save_wide(labels: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint16)).save(path)


def wide(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        save_wide(labels, Path(f"wide/{stem}.png"))
    return ("wide",)


def wide_ids(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        save_wide(labels.astype(np.uint16) * 1000, Path(f"ids/{stem}.tif"))
    return "ids", "--truth-map", f"{CAT}000=cat,{PERSON}000=person"


def suffix(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        save(labels, Path(f"made/{stem}_mask.png"))
    return "made", "--truth-suffix", "_mask"


def suffix_with_a_format(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        save(labels, Path(f"beside/{stem}.labels.tif"))
        save(labels * 0, Path(f"beside/{stem}.png"))
    return "beside", "--truth-suffix", ".labels.tif"


def own_numbers(truths: dict[str, Labels]) -> tuple[str, ...]:
    for stem, labels in truths.items():
        numbers = np.full(labels.shape, 9, np.uint8)
        numbers[labels == CAT] = 1
        numbers[labels == PERSON] = np.where(np.arange((labels == PERSON).sum()) % 2, 2, 3)
        save(numbers, Path(f"numbers/{stem}.bmp"))
    return "numbers", "--truth-map", "1=CAT,2+3=person,*=background"


def coco(truths: dict[str, Labels], segmentation: Callable[..., Any]) -> tuple[str, ...]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (stem, labels) in enumerate(truths.items(), 1):
        height, width = labels.shape
        images.append({"id": number, "file_name": f"{stem}.jpg", "width": width, "height": height})
        for index, left, top, right, bottom in boxes(number - 1, labels.shape):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": {CAT: 1, PERSON: 2}[index],
                    "segmentation": segmentation(labels.shape, left, top, right, bottom),
                }
            )
    # Their numbers are not COCO's: the names count.
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "Person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    Path("instances.json").write_text(json.dumps(content))
    return ("instances.json",)


def coco_polygons(truths: dict[str, Labels]) -> tuple[str, ...]:
    pytest.importorskip("pycocotools", reason="needs pycocotools")
    return coco(truths, lambda _, x, y, right, bottom: [[x, y, right, y, right, bottom, x, bottom]])


def coco_runs(truths: dict[str, Labels]) -> tuple[str, ...]:
    def runs(shape: tuple[int, int], left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
        region = np.zeros(shape, bool)
        region[top:bottom, left:right] = True
        return runs_of(region)

    return coco(truths, runs)


FORMS = (
    voc,
    cvat,
    label_map_elsewhere,
    rgb,
    grey_rgb,
    wide,
    wide_ids,
    suffix,
    suffix_with_a_format,
    own_numbers,
    coco_polygons,
    coco_runs,
)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_same_truth_has_the_same_figures(
    fcn: Fcn, truths: dict[str, Labels], tmp_path: Path, form: Callable[..., tuple[str, ...]]
) -> None:
    masks = {stem: np.array(Image.open(tmp_path / f"masks/{stem}.png")) for stem in STEMS}
    expected = by_definition([(truths[stem], masks[stem]) for stem in STEMS], 21)
    place, *options = form(truths)
    got = evaluated(fcn, "made", place, *options, "--predictions", "masks")
    assert (got["images"], got["images_given"], got["truth_without_image"]) == (3, 3, 0)
    for figure, values in expected.items():
        if isinstance(values, dict):
            classes = {int(index): entry[figure] for index, entry in got["classes"].items()}
            assert {index: value for index, value in classes.items() if value is not None} == values
        else:
            # The mean of the same numbers in another order.
            assert got[figure] == pytest.approx(values, abs=1e-15)
    assert got["void_fraction"] == 0
    shown = got["protocol"]["truth"]
    assert all(option in shown for option in options if option.startswith("--") and option != "--labelmap")


def test_label_maps_beside_the_images_are_no_images(
    fcn: Fcn, truths: dict[str, Labels], tmp_path: Path
) -> None:
    place, *options = suffix(truths)
    (tmp_path / "link").symlink_to("made")
    for images, truth in ((tmp_path / "made", place), (place, tmp_path / "made"), ("link", place)):
        got = evaluated(fcn, images, truth, *options, "--predictions", "masks")
        assert (got["images"], got["images_given"]) == (3, 3)


def test_black_and_white_for_one_class(fcn: Fcn, truths: dict[str, Labels], tmp_path: Path) -> None:
    for stem, labels in truths.items():
        white = labels == PERSON
        Image.fromarray(white).save(tmp_path / f"made/{stem}_bit.png")
        save(white * np.uint8(255), tmp_path / f"white/{stem}.png")
        save(np.where(labels == PERSON, PERSON, 0).astype(np.uint8), tmp_path / f"plain/{stem}.png")
    expected = evaluated(fcn, "made", "plain", "--predictions", "masks")["classes"]
    for place, *options in (["white"], ["made", "--truth-suffix", "_bit"]):
        line = ("made", place, *options, "--predictions", "masks")
        assert "like a black-and-white mask. Say what white means" in fcn("evaluate", *line, code=2).stderr
        assert evaluated(fcn, *line, "--truth-map", "255=person")["classes"] == expected


def test_values_that_are_ignored(fcn: Fcn, truths: dict[str, Labels], tmp_path: Path) -> None:
    for stem, labels in truths.items():
        save(np.where(labels == CAT, 255, labels).astype(np.uint8), tmp_path / f"void/{stem}.png")
        numbers = np.where(labels == CAT, 200, labels).astype(np.uint16)
        numbers[0, 0] = 65535
        save_wide(numbers, tmp_path / f"ids/{stem}.png")
    refused = fcn("evaluate", "made", "ids", "--predictions", "masks", "--json", code=1)
    assert "has the value 65535, which is not a class index; give --ignore-index 65535" in refused.stderr
    ignored = ("--ignore-index", "200", "--ignore-index", "65535", "--predictions", "masks")
    got = evaluated(fcn, "made", "ids", *ignored)
    for stem in STEMS:
        labels = np.array(Image.open(tmp_path / f"void/{stem}.png"))
        labels[0, 0] = 255
        save(labels, tmp_path / f"void/{stem}.png")
    assert got["classes"] == evaluated(fcn, "made", "void", "--predictions", "masks")["classes"]
    assert "--ignore-index 200, --ignore-index 65535" in got["protocol"]["truth"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plain --truth-map 8=cta", "--truth-map: there is no class 'cta'; did you mean cat"),
        ("plain --truth-map cat=8", "--truth-map: 'cat' is not an index"),
        ("plain --truth-map 8", "--truth-map takes rules such as 'person=1,cat+dog=2,*=0', not '8'"),
        ("plain --truth-map 8=cat --ignore-index 8", "--ignore-index 8: --truth-map says what 8 is"),
        ("plain --ignore-index -1", "--ignore-index takes a whole number from 0 to 65535, not '-1'"),
        ("plain --truth-suffix _x", "plain: expected masks that end in _x, found 3 .png"),
        ("plain --truth-suffix _x.jpg", "JPEG changes pixel values"),
        ("suffixed", "expected a.png (for made/a.jpg), found a_gt.png; give --truth-suffix _gt"),
        ("trees", "tree: a label of the ground truth, but not a class ("),
        ("trees --labelmap trees/bad.txt", "bad.txt: line 2 is not label:red,green,blue:parts:actions"),
        ("trees --labelmap trees/labelmap.txt --truth-colors voc", "exclude each other"),
        ("instances.json --truth-suffix _x", "--truth-suffix is for masks"),
        ("instances.json --truth-colors voc", "--truth-colors is for masks"),
        (
            "instances.json --truth-map 9=cat",
            "--truth-map: there is no class '9'; the classes are cat, Person",
        ),
    ],
)
def test_what_is_not_said_rightly(
    fcn: Fcn, truths: dict[str, Labels], tmp_path: Path, line: str, said: str
) -> None:
    for stem, labels in truths.items():
        save(labels, tmp_path / f"plain/{stem}.png")
        save(labels, tmp_path / f"suffixed/{stem}_gt.png")
        save(np.full((*labels.shape, 3), (1, 2, 3)), tmp_path / f"trees/{stem}.png")
    coco_runs(truths)
    (tmp_path / "trees/labelmap.txt").write_text("tree:1,2,3::\n")
    (tmp_path / "trees/bad.txt").write_text("tree:1,2,3::\nbush:1,2::\n")
    code = 3 if line == "suffixed" else 2
    assert said in fcn("evaluate", "made", *line.split(), "--predictions", "masks", code=code).stderr


def test_colours_that_the_label_map_does_not_have(fcn: Fcn, truths: dict[str, Labels]) -> None:
    cvat(truths)
    save(np.zeros((*truths["a"].shape, 3), np.uint8) + 7, Path("CVAT/SegmentationClass/a.png"))
    done = fcn("evaluate", "made", "CVAT", "--predictions", "masks", "--json", code=1)
    assert "the colour (7, 7, 7) at x=0, y=0 is not one of the colours of CVAT/labelmap.txt" in done.stderr
    # What is no class of the predictions can be made one, or none.
    Path("CVAT/labelmap.txt").write_text(LABEL_MAP.replace("person", "human") + "ignored:7,7,7::\n")
    line = ("made", "CVAT", "--predictions", "masks")
    assert "human: a label of the ground truth" in fcn("evaluate", *line, code=2).stderr
    for rules in ("human=person", "human=person,*=background"):
        got = evaluated(fcn, *line, "--truth-map", rules)
        assert (got["images"], bool(got["classes"]["8"]["truth_pixels"])) == (3, "*" not in rules)
        assert got["void_fraction"] > 0.2


def test_values_that_pillow_would_shorten_are_refused(fcn: Fcn, truths: dict[str, Labels]) -> None:
    """RGB of 16 bits a sample, of which Pillow keeps the upper half."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = truths["a"].shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\0\x08" * 3 * width) * height)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    Path("deep").mkdir()
    Path("deep/a.png").write_bytes(png)
    assert "RGB of 16 bits" in fcn("evaluate", "made", "deep", "--predictions", "masks", code=2).stderr


@pytest.mark.parametrize("background", [None, 15])
def test_an_export_with_another_background(
    fcn: Fcn, truths: dict[str, Labels], tmp_path: Path, background: int | None
) -> None:
    output = make_output(tmp_path / "out", {f"{stem}.jpg": labels for stem, labels in truths.items()})
    classes = json.loads((output / "classes.json").read_text())
    classes["0"].update(name="ground", background=False)
    if background is not None:
        classes[str(background)]["background"] = True
    (output / "classes.json").write_text(json.dumps(classes))
    fcn("export", "out", "--format", "coco", "-o", "coco.json")
    got = evaluated(fcn, "made", "coco.json", "--predictions", "out")
    assert (got["images"], got["mean_iou"], got["void_fraction"]) == (3, 1, 0)
    assert got["classes_in_mean"] == 3


def test_an_export_is_the_truth_of_its_directory(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "sub/b.jpg"], size=(120, 90))
    with Image.open(SAMPLES / "chelsea.png") as opened:
        image = opened.convert("RGB").resize((225, 150))
        image.save(made / "sub/b.jpg")
        exif = Image.Exif()
        # A half turn, which does not show in the size.
        exif[0x0112] = 3
        # Not UTF-8, as on a disk from long ago.
        image.save(os.path.join(made, os.fsdecode(b"turned \xe9.jpg")), exif=exif)
    fcn("segment", made, *SMALL, "-o", "out")
    fcn("export", "out", "--format", "coco", "-o", "coco.json")
    fcn("export", "out", "--format", "voc", "-o", "voc")
    got = evaluated(fcn, made, "coco.json", "--predictions", "out")
    assert (got["images"], got["pixel_accuracy"], got["mean_iou"]) == (3, 1, 1)
    assert got["classes_in_mean"] > 1
    assert got["orientation"]["taken_upright"] == 1
    # The JPEGs of the tree are upright, and have other names.
    tree = "voc/VOCdevkit/VOC2012"
    got = evaluated(fcn, f"{tree}/JPEGImages", tree, "--predictions", f"{tree}/SegmentationClass")
    assert (got["images"], got["mean_iou"]) == (3, 1)
