"""Wrong calls of `fcn evaluate` end before weights are looked for, with what the call should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_cli.common import palettes

from ..conftest import SMALL, Fcn, MakeImages
from .test_evaluate import evaluated, save

# No weights are on this machine, and none may be fetched: what is said must not be about weights.
NO_WEIGHTS = ("--backbone", "resnet50", "--offline")


def truth_for(
    images: Path, truth: Path, values: tuple[int, ...] = (0, 8, 255), *, paletted: bool = False
) -> None:
    for path in images.iterdir():
        with Image.open(path) as opened:
            labels = np.resize(np.array(values, np.uint8), opened.size[::-1])
        save(labels, truth / f"{path.stem}.png", paletted=paletted)


@pytest.fixture
def made(make_images: MakeImages, tmp_path: Path) -> Path:
    """Images in `made`, their masks in `truth`."""
    images = make_images(["a.jpg", "b.jpg", "c.jpg"])
    truth_for(images, tmp_path / "truth")
    return images


def refused(fcn: Fcn, *arguments: str | Path, code: int = 2) -> str:
    said = fcn("evaluate", *arguments, *NO_WEIGHTS, code=code).stderr
    assert said.count("\n") == 1, said
    return said


def test_a_right_call_gets_as_far_as_the_weights(fcn: Fcn, made: Path) -> None:
    """Else the other tests could not fail."""
    assert "is not on this machine" in refused(fcn, "made", "truth")


def test_a_missing_truth_is_called_missing(fcn: Fcn, made: Path) -> None:
    assert "nowhere: no such file or directory" in refused(fcn, "made", "nowhere")
    assert "no.json: no such file or directory" in refused(fcn, "made", "no.json")
    assert "nowhere: no such directory" in refused(fcn, "made", "truth", "--predictions", "nowhere")
    assert "nowhere" in refused(fcn, "nowhere", "truth")
    said = fcn("compare", "truth", "nowhere", code=2).stderr
    assert "nowhere: no such directory" in said


def test_swapped_directories_are_noticed(
    fcn: Fcn, made: Path, make_images: MakeImages, tmp_path: Path
) -> None:
    said = refused(fcn, "truth", "made")
    assert "truth: expected images, found masks; images are in made, and come first" in said
    assert "fcn evaluate made truth" in said
    # Images that are PNGs themselves, under the same names.
    png = make_images(["a.png", "b.png"], folder="photos")
    truth_for(png, tmp_path / "labels", paletted=True)
    assert "fcn evaluate photos labels" in refused(fcn, "labels", "photos")
    # And with other names.
    (tmp_path / "photos/a.png").rename(tmp_path / "photos/x.png")
    (tmp_path / "photos/b.png").rename(tmp_path / "photos/y.png")
    assert "fcn evaluate photos labels" in refused(fcn, "labels", "photos")
    # Two directories of images are not swapped.
    assert "come first" not in refused(fcn, "made", "photos", code=3)
    # Nor are images and masks that somebody saved as JPEG.
    assert "expected masks, found 3 .jpg (JPEG changes pixel values" in refused(fcn, "made", "made")


def test_annotations_in_the_place_of_images(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{}")
    assert "the images come first: fcn evaluate made instances.json" in refused(fcn, "instances.json", "made")


def test_a_pascal_voc_root_in_the_place_of_images(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    (tmp_path / "VOC2012").mkdir()
    made.rename(tmp_path / "VOC2012/JPEGImages")
    (tmp_path / "truth").rename(tmp_path / "VOC2012/SegmentationClass")
    assert "fcn evaluate VOC2012/JPEGImages VOC2012" in refused(fcn, "VOC2012", "VOC2012")


def test_label_maps_in_a_directory_inside(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "truth").rename(tmp_path / "root/SegmentationClass")
    said = refused(fcn, "made", "root")
    assert (
        "expected a.png (for made/a.jpg), found SegmentationClass/a.png; give root/SegmentationClass" in said
    )
    truth_for(made, tmp_path / "root/SegmentationObject", (1, 2, 3))
    assert "give the directory SegmentationClass beside it" in refused(fcn, "made", "root/SegmentationObject")
    (tmp_path / "above").mkdir()
    made.rename(tmp_path / "above/val")
    said = refused(fcn, "above", "root/SegmentationClass")
    assert "expected val/a.png (for above/val/a.jpg), found a.png; give the images as above/val" in said


@pytest.mark.long
def test_an_output_directory_is_not_taken_for_truth(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    fcn("segment", made, *SMALL, "-o", "out")
    said = refused(fcn, "made", "out")
    assert "--predictions out" in said
    assert "give out/masks" in said
    assert evaluated(fcn, "made", "out/masks", *SMALL)["pixel_accuracy"] == 1


@pytest.mark.parametrize("names", ["gt_{}", "{}_mask", "{}.labels", "x{}y"])
def test_names_with_a_prefix_or_a_suffix_are_shown(fcn: Fcn, made: Path, tmp_path: Path, names: str) -> None:
    (tmp_path / "truth/other.png").write_bytes((tmp_path / "truth/a.png").read_bytes())
    for stem in ("a", "b", "c"):
        (tmp_path / f"truth/{stem}.png").rename(tmp_path / f"truth/{names.format(stem)}.png")
    said = refused(fcn, "made", "truth", code=3)
    assert f"expected a.png (for made/a.jpg), found {names.format('a')}.png" in said


def test_names_that_have_nothing_in_common_are_shown_too(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    save([[1]], tmp_path / "numbers/0001.png")
    assert "expected a.png (for made/a.jpg), found 0001.png" in refused(fcn, "made", "numbers", code=3)
    said = refused(fcn, "made", "truth", "--predictions", "numbers", code=3)
    assert "numbers: expected a.png" in said


def test_directories_without_label_maps_say_what_they_hold(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/captions_val.json").write_text("{}")
    (tmp_path / "annotations/instances_val.json").write_text("{}")
    assert "give annotations/instances_val.json" in refused(fcn, "made", "annotations")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    assert "texts: expected masks, found 1 .txt" in refused(fcn, "made", "texts")
    (tmp_path / "empty").mkdir()
    assert "empty: expected masks, found no files" in refused(fcn, "made", "empty")
    assert "no images found" in refused(fcn, "empty", "truth", code=3)
    assert "--split: only a Pascal VOC root has splits" in refused(fcn, "made", "truth", "--split", "val")
    masks = ("--predictions", "truth", "--protocol", "torchvision")
    assert "leave --predictions out" in refused(fcn, "made", "truth", *masks)
    (made / "a.png").write_bytes((made / "a.jpg").read_bytes())
    assert "have the same ground truth, a.png; keep one of the images" in refused(fcn, "made", "truth")
    assert "texts/a.txt: expected a directory of masks, a" in refused(fcn, "made", "texts/a.txt")


def colour(path: Path, mode: str = "RGB") -> None:
    Image.fromarray(palettes.voc()[np.array(Image.open(path))]).convert(mode).save(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_truth_in_colours_names_the_remedy(fcn: Fcn, made: Path, tmp_path: Path, mode: str) -> None:
    checkpoint = ("--weights", "nowhere.pth")
    assert "nowhere.pth" in refused(fcn, "made", "truth", *checkpoint)
    for path in (tmp_path / "truth").iterdir():
        colour(path, mode)
    # The truth is read before a checkpoint.
    said = refused(fcn, "made", "truth", *checkpoint)
    assert "none of the first 3 ground truth masks can be used" in said
    assert f"truth/a.png: {mode} colours" in said
    assert "--truth-colors voc" in said


def test_colours_count_and_not_their_numbers(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    """In some program's own palette."""
    random = np.random.default_rng(0)
    for path in (tmp_path / "truth").iterdir():
        labels = random.choice([0, 1, 7, 15, 20, 255], np.array(Image.open(path)).shape).astype(np.uint8)
        save(labels, tmp_path / f"indices/{path.name}")
        image = Image.fromarray(palettes.voc()[labels]).quantize(6)
        assert len(np.unique(np.array(image))) == 6
        image.save(path)
    measured = ("--predictions", "indices", "--truth-colors", "voc")
    got = evaluated(fcn, "made", "truth", *measured)
    assert (got["images"], got["mean_iou"], got["classes_in_mean"]) == (3, 1, 5)
    assert got["void_fraction"] > 0.1


def test_an_unknown_colour_fails_that_image_by_name(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "truth").iterdir():
        pixels = palettes.voc()[np.array(Image.open(path))]
        if path.stem == "b":
            pixels[5, 9] = (1, 2, 3)
        Image.fromarray(pixels).save(path)
    done = fcn("evaluate", "made", "truth", *SMALL, "--truth-colors", "voc", "--json", code=1)
    got = json.loads(done.stdout)
    assert got["images"] == 2
    assert [(one["image"], one["kind"]) for one in got["failures"]] == [("made/b.jpg", "BadLabels")]
    assert (
        "made/b.jpg: truth/b.png: the colour (1, 2, 3) at x=9, y=5 is not one of Pascal VOC's" in done.stderr
    )


def test_black_and_white_truth_is_refused_unless_void_is_meant(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    truth_for(made, tmp_path / "masks", (0, 0, 255))
    said = refused(fcn, "made", "masks")
    assert "masks/a.png: the ground truth has only the values 0 and 255" in said
    meant = ("made", "masks", "--predictions", "masks", "--truth-colors", "index")
    assert evaluated(fcn, *meant)["void_fraction"] == pytest.approx(1 / 3, abs=0.01)
    assert "the ground truth has no class except __background__" in fcn("evaluate", *meant).stdout
    # Among others, and with a palette, 255 is void.
    truth_for(made, tmp_path / "paletted", (0, 0, 255), paletted=True)
    assert evaluated(fcn, "made", "paletted", "--predictions", "masks")["images"] == 3
    save(np.array(Image.open("truth/b.png")), tmp_path / "masks/b.png")
    assert evaluated(fcn, "made", "masks", "--predictions", "masks")["images"] == 3


def test_more_classes_than_the_network_has_are_noticed(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    truth_for(made, tmp_path / "many", (0, 128, 200))
    assert "many/a.png: has class index 200, but there are 21 classes" in refused(fcn, "made", "many")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused_before_weights_are_looked_for(fcn: Fcn, made: Path) -> None:
    assert "--device cuda: this machine has no usable CUDA device" in refused(
        fcn, "made", "truth", "--device", "cuda"
    )
    said = refused(fcn, "made", "truth", "--device", "cuda", "--weights", "nowhere.pth")
    assert "--device cuda" in said


@pytest.mark.long
def test_notes_about_images_are_counted_and_reported(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["plain.png", "thin.png", "thinner.png"])
    for name, width in (("thin", 1200), ("thinner", 2400)):
        Image.open(made / "plain.png").resize((width, 20)).save(made / f"{name}.png")
    frames = [Image.open(made / "plain.png").convert("RGB")] * 3
    frames[0].save(made / "frames.tif", save_all=True, append_images=frames[1:])
    truth_for(made, tmp_path / "truth")
    got = evaluated(fcn, made, "truth", *SMALL)
    assert got["images_fed_smaller"] == 2
    assert got["notes_by_kind"] == {"long and thin: fed to the network at NxN": 2, "first of N frames": 1}
    assert {Path(one["image"]).name: len(one["notes"]) for one in got["notes"]} == {
        "frames.tif": 1,
        "thin.png": 1,
        "thinner.png": 1,
    }
    # What a directory of masks was made from is not known.
    assert evaluated(fcn, made, "truth", "--predictions", "truth")["images_fed_smaller"] is None
    shown = " ".join(fcn("evaluate", made, "truth", *SMALL).stdout.split())
    assert "2 long and thin, with a smaller network input than the others" in shown
    assert "note on 1 image: first of N frames" in shown
