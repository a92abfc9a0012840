"""A network's card: what its classes are called, which one is the background, how it wants its pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_cli import Segmenter
from fcn_cli.models.registry import BACKBONES, BundledWeights

from ..conftest import PREVIEW, SAMPLES, SMALL, Fcn, MakeImages, tree

assert isinstance(BACKBONES["efficientnet_lite0"].weights, BundledWeights)
BUNDLED = BACKBONES["efficientnet_lite0"].weights.path
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A checkpoint of one's own: of the preview's classes, background, cat and person in this order."""
    state = torch.load(BUNDLED, weights_only=True)
    path = tmp_path / "mine.pth"
    last = {name: state[name][[0, 8, 15]] for name in ("classifier.4.weight", "classifier.4.bias")}
    torch.save(state | last, path)
    return path


def write_card(tmp_path: Path, *lines: str) -> None:
    (tmp_path / "mine.toml").write_text("\n".join(lines))


def labels_of(tmp_path: Path, out: str) -> dict[str, Any]:
    labels: dict[str, Any] = json.loads((tmp_path / out / "settings.json").read_text())["labels"]
    return labels


@pytest.mark.long
def test_which_class_is_the_background(fcn: Fcn, own: Path, tmp_path: Path) -> None:
    """Without a card none is; with one, its pixels are left as they are, cut out, and no region anywhere."""
    write = ("--write", "masks,overlay,cutout", "--resize", "96")
    segment = ("segment", SAMPLES / "chelsea.png", *PREVIEW, *write, "--weights", own, "-o", "out")
    image = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))
    masks: set[bytes] = set()
    for card, background in (
        ((), None),
        (('class_names = ["rest", "cat", "person"]', 'background = "cat"'), 1),
        (("background = 0",), 0),
        (('background = "none"',), None),
    ):
        (tmp_path / "mine.toml").unlink(missing_ok=True)
        if card:
            write_card(tmp_path, *card)
        fcn(*segment)
        masks.add((tmp_path / "out/masks/chelsea.png").read_bytes())
        labels = np.asarray(Image.open(tmp_path / "out/masks/chelsea.png"))
        assert {0, 1} <= set(np.unique(labels).tolist())
        alpha = np.asarray(Image.open(tmp_path / "out/cutout/chelsea.png"))[..., 3]
        assert np.array_equal(alpha == 0, labels == background if background is not None else alpha > 255)
        overlay = np.asarray(Image.open(tmp_path / "out/overlay/chelsea.jpg"), int)
        changed = np.abs(overlay - image).mean(axis=2) > 40
        painted = {index for index in (0, 1) if changed[labels == index].mean() > 0.2}
        assert painted == {0, 1} - {background}
        exported(fcn, tmp_path, background)
    # Names and the background shape no label: the masks were made once.
    assert len(masks) == 1
    assert len((tmp_path / "out/manifest.jsonl").read_text().splitlines()) >= 1


def exported(fcn: Fcn, tmp_path: Path, background: int | None) -> None:
    """Check that all classes but the background are in each export."""
    regions = {0, 1, 2} - {background}
    for name in ("coco", "yolo", "voc", "binary"):
        fcn("export", "out", "--format", name, "-o", f"{name}.x", "--overwrite")
    coco = json.loads((tmp_path / "coco.x").read_text())
    assert {one["id"] for one in coco["categories"]} == regions
    assert (found := {one["category_id"] for one in coco["annotations"]}) <= regions
    assert len(list((tmp_path / "binary.x").rglob("*.png"))) == len(found)
    lines = (tmp_path / "yolo.x/labels/train/chelsea.txt").read_text().splitlines()
    assert {0, 1} - {background} <= {int(line.split()[0]) for line in lines} <= regions
    table = (tmp_path / "voc.x/VOCdevkit/VOC2012/labelmap.txt").read_text().splitlines()
    names = [line.partition(":")[0] for line in table[1:]]
    assert [index for index, name in enumerate(names) if name == "background"] == (
        [] if background is None else [background]
    )


def test_normalisation_and_size_shape_labels_and_names_do_not(fcn: Fcn, own: Path, tmp_path: Path) -> None:
    segment = ("segment", SAMPLES / "astronaut.png", *PREVIEW, "--weights", own)
    fcn(*segment, "--resize", "96", "-o", "plain")
    scaled = (f"mean = {(2 * MEAN - 1).tolist()}", f"std = {(2 * STD).tolist()}", "value_range = [-1, 1]")
    write_card(tmp_path, *scaled, "input_size = 96", 'licence = "CC0-1.0"', 'class_names = ["a", "b", "c"]')
    done = fcn(*segment, "-o", "out")
    assert "mine.toml: using mean, std, value_range, input_size, licence, class_names" in done.stderr
    # The same numbers in another range, and the card's size.
    assert tree(tmp_path / "out/masks") == tree(tmp_path / "plain/masks")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "out/masks/astronaut.png")))) > 1
    assert labels_of(tmp_path, "out")["resize"] == 96
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["checkpoint"]["licence"] == "CC0-1.0"
    assert '"name": "b"' in (tmp_path / "out/classes.json").read_text()
    # Other names are no other settings.
    write_card(tmp_path, *scaled, "input_size = 96", 'class_names = ["x", "y", "z"]')
    assert "nothing to do" in fcn(*segment, "-o", "out").stderr
    assert '"name": "y"' in (tmp_path / "out/classes.json").read_text()
    write_card(tmp_path, "mean = [0, 0, 0]", "std = [1, 1, 1]", "input_size = [80, 48]")
    refused = fcn(*segment, "-o", "out", code=2).stderr
    assert "mine.toml: 96 before, 80,48 now" in refused
    assert "--network-card: not given before, mean 0,0,0, std 1,1,1 now" in refused
    fcn(*segment, "-o", "exact")
    assert labels_of(tmp_path, "exact")["network_card"] == {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert Image.open(tmp_path / "exact/masks/astronaut.png").size == (512, 512)
    assert tree(tmp_path / "exact/masks") != tree(tmp_path / "plain/masks")
    # What a command line says comes first.
    fcn(*segment, "--resize", "none", "-o", "native")
    assert labels_of(tmp_path, "native")["resize"] == "none"


def test_the_normalisation_is_the_cards(own: Path, tmp_path: Path) -> None:
    """Against the network's own answer to pixels that were normalised by hand."""
    write_card(tmp_path, "mean = [100, 110, 120]", "std = [50, 60, 70]", "value_range = [0, 255]")
    pixels = np.random.default_rng(0).integers(0, 255, (48, 80, 3)).astype(np.uint8)
    ours = Segmenter("efficientnet_lite0", weights=own, resize=None, kernels="torch")
    batch = torch.from_numpy((pixels - np.array([100, 110, 120])) / np.array([50, 60, 70])).permute(2, 0, 1)
    with torch.inference_mode():
        low = ours.network.model(batch[None].float())
        exact = torch.nn.functional.interpolate(low, (48, 80), mode="bilinear", align_corners=False)[
            0
        ].argmax(0)
    assert (ours(pixels).labels == exact.numpy()).mean() > 0.999
    assert ours.network.background is None


def test_a_card_by_name_and_an_official_network(fcn: Fcn, make_images: MakeImages, own: Path) -> None:
    make_images(["a.png"])
    Path("other.toml").write_text('class_names = ["a", "b", "c"]\nbackground = "b"')
    fcn("segment", "made", *SMALL, "--weights", own, "--network-card", "other.toml", "-o", "out")
    assert json.loads(Path("out/classes.json").read_text())["1"]["background"] is True
    assert "card" in fcn("weights", "check", own).stdout or not Path("mine.toml").exists()
    # Names on the command line come first.
    line = ("segment", "made", *SMALL, "--weights", own, "--network-card", "other.toml", "--class-names")
    Path("names.txt").write_text("x\nb\nz\n")
    assert "other.toml: using background\n" in fcn(*line, "names.txt", "-o", "named").stderr
    assert '"name": "z"' in Path("named/classes.json").read_text()
    Path("two.txt").write_text("x\nb\n")
    refused = fcn(*line, "two.txt", "-o", "out", code=2)
    assert "--class-names: 2 names, but other.toml has 3" in refused.stderr
    refused = fcn("segment", "made", *SMALL, "--network-card", "other.toml", "-o", "x", code=2)
    assert "add --weights" in refused.stderr
    fcn("segment", "made", *SMALL, "-o", "official")
    assert "background" not in json.loads(Path("official/classes.json").read_text())["0"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mean = [1, 2, 3", "not TOML"),
        ("means = [1, 2, 3]", "means is not a key of a card; the keys are class_names, background, mean"),
        ("mean = [1, 2]", "mean takes three numbers, for red, green and blue, not [1, 2]"),
        ("mean = [0, 0, nan]\nstd = [1, 1, 1]", "mean takes three numbers"),
        ("mean = [0, 0, 0]\nstd = [1, 0, 1]", "std takes three numbers above 0"),
        ("mean = [0, 0, 0]", "mean and std belong together"),
        ("value_range = [0, 255]", "mean and std belong together"),
        ("value_range = [1, 0]\nmean = [0, 0, 0]\nstd = [1, 1, 1]", "value_range takes two numbers"),
        ("x = " + 2000 * "[", "not TOML"),
        ("mean = [0, 0, 1" + 5000 * "0" + "]", "not TOML"),
        ("mean = [0, 0, 1" + 400 * "0" + "]\nstd = [1, 1, 1]", "mean takes three numbers"),
        ('class_names = ["a\\n", "b", "c"]', "class_names takes different names"),
        ("input_size = 0", "input_size takes a short side, or [width, height], of 1 to 16384 pixels"),
        ("input_size = [512]", "input_size takes"),
        ('class_names = ["a", "a"]', "class_names takes different names"),
        ('class_names = ["a", "b"]', "2 names for the 3 classes"),
        ("background = true", 'background takes the index or the name of a class, or "none"'),
        ("background = 3", "background = 3; the classes go from 0 to 2"),
        ('background = "sky"', "'sky' is not one of the classes; it has no class_names"),
        (
            'class_names = ["a", "b", "c"]\nbackground = 3',
            "3 is not one of the classes; the classes are a, b, c",
        ),
        ("licence = 3", "licence takes a text in quotes"),
    ],
)
def test_a_card_that_says_something_else_is_refused(
    line: str, said: str, fcn: Fcn, make_images: MakeImages, own: Path, tmp_path: Path
) -> None:
    make_images(["a.png"])
    write_card(tmp_path, line)
    done = fcn("segment", "made", *SMALL, "--weights", own, "-o", "out", code=2)
    assert said in done.stderr
    assert "mine.toml" in done.stderr
    assert not (tmp_path / "out").exists()


def test_weights_check_looks_whether_the_card_fits(fcn: Fcn, own: Path, tmp_path: Path) -> None:
    write_card(tmp_path, 'class_names = ["a", "b", "c"]', 'background = "b"')
    done = fcn("weights", "check", own)
    assert f"{'card':20}{tmp_path / 'mine.toml'}: class_names, background\n" in done.stdout
    for line, said in (
        ('class_names = ["a", "b"]', "2 names for the 3 classes"),
        ("background = 3", "background = 3"),
    ):
        write_card(tmp_path, line)
        assert said in fcn("weights", "check", own, code=2).stderr
