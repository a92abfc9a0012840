"""Cutouts: the image in RGBA with only some classes kept, chosen by name or index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fcn_cli import RequestError, Segmenter
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.outputs import overlay
from fcn_cli.outputs.looks import CutoutStyle, find_classes

from ..conftest import PREVIEW, SAMPLES, SMALL, Fcn, MakeImages, journal_of, preview_network, tree
from ..made_output import blobs, make_output

CUTOUTS = ("segment", "made", *SMALL, "--write", "masks,cutout", "-o", "out")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Make an image in which the network sees a cat, and one with a person and bottles, turned by EXIF."""
    folder = tmp_path / "made"
    folder.mkdir()
    with Image.open(SAMPLES / "chelsea.png") as cat, Image.open(SAMPLES / "astronaut.png") as person:
        cat.convert("RGB").resize((150, 100)).save(folder / "cat.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        sideways = person.convert("RGB").resize((128, 140)).transpose(Image.Transpose.ROTATE_90)
        sideways.save(folder / "person.jpg", exif=exif, quality=95)
    return folder


def assert_cut_out(output: Path, image: Image.Image, name: str, kept: set[int] | None) -> NDArray[np.uint8]:
    """Check a cutout against the mask; return the alpha channel."""
    labels = np.array(Image.open(output / f"masks/{name}.png"))
    cutout = Image.open(output / f"cutout/{name}.png")
    assert (cutout.format, cutout.mode, cutout.size) == ("PNG", "RGBA", image.size)
    keep = (labels != 255) & (labels > 0 if kept is None else np.isin(labels, list(kept)))
    expected = np.zeros((*labels.shape, 4), np.uint8)
    expected[keep, :3] = np.array(image)[keep]
    expected[keep, 3] = 255
    assert np.array_equal(np.array(cutout), expected)
    return expected[..., 3]


def upright(path: Path) -> Image.Image:
    from PIL import ImageOps

    with Image.open(path) as opened:
        turned = ImageOps.exif_transpose(opened)
        assert turned is not None
        return turned.convert("RGB")


def test_cutouts_keep_the_images_pixels_and_nothing_else(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    fcn(*CUTOUTS)
    for name, file in (("cat", "cat.png"), ("person", "person.jpg")):
        alpha = assert_cut_out(tmp_path / "out", upright(made / file), name, None)
        assert alpha.any()
    assert not alpha.all()
    record = journal_of(tmp_path / "out")["cat.png"]
    assert record["looks"]["cutout"] == "all classes"
    assert "cutout/cat.png" in record["outputs"]
    assert "nothing to do" in fcn(*CUTOUTS).stderr
    assert "nothing to do" in fcn(*CUTOUTS, "--cutout", "all").stderr


@pytest.mark.parametrize(
    ("look", "shape"),
    [
        (("--cutout", "person", "--crop", "--background", "#fe0102"), ()),
        (("--cutout", "2", "--crop=7"), ("--map", "pet:cat+dog=2,*=0", "--min-region", "20")),
    ],
)
def test_an_export_of_cutouts_is_what_segment_writes(
    look: tuple[str, ...], shape: tuple[str, ...], fcn: Fcn, made: Path, tmp_path: Path
) -> None:
    fcn(*CUTOUTS, *look, *shape)
    fcn("segment", "made", *SMALL, "-o", "plain")
    fcn("export", "plain", "--format", "cutout", "-o", "to/cut", *look, *shape)
    exported = tree(tmp_path / "to/cut")
    assert exported.pop(".fcn-export.json")
    assert exported == tree(tmp_path / "out/cutout")
    (made / "cat.png").touch()
    again = ("export", "plain", "--format", "cutout", "-o", "to/cut", "--overwrite")
    assert "cat.png: changed since it was segmented; segment it again" in fcn(*again, code=1).stderr
    assert set(tree(tmp_path / "to/cut")) == {".fcn-export.json", "person.png"}


def test_cutouts_of_another_format_are_refused(fcn: Fcn, tmp_path: Path) -> None:
    make_output(tmp_path / "out", {"a.png": blobs(1)})
    for option in ("--cutout=cat", "--crop", "--background=white"):
        done = fcn("export", "out", "--format", "masks", "-o", "x", option, code=2)
        assert "--cutout, --crop and --background are for --format cutout, not masks" in done.stderr
    done = fcn("export", "out", "--format", "cutout", "-o", "x", "--cutout", "cta", code=2)
    assert "--cutout cta: no such class; did you mean cat or car?" in done.stderr


def test_other_classes_are_another_look(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    fcn(*CUTOUTS)
    masks = tree(tmp_path / "out/masks")
    before = "all classes"
    for classes, kept, text in (
        ("cat,dog", {8, 12}, "classes 8, 12"),
        ("15", {15}, "classes 15"),
        (" person , cat,8", {8, 15}, "classes 8, 15"),
        ("__background__", {0}, "classes 0"),
    ):
        plan = fcn(*CUTOUTS, "--cutout", classes, "--dry-run").stdout.splitlines()
        assert plan[0] == f"repaint\tcat.png\tcutout was {before}, is now {text}"
        # Without the network, as a device that is not there proves.
        fcn(*CUTOUTS, "--cutout", classes, "--device", "cuda:99")
        assert_cut_out(tmp_path / "out", upright(made / "cat.png"), "cat", kept)
        assert_cut_out(tmp_path / "out", upright(made / "person.jpg"), "person", kept)
        assert tree(tmp_path / "out/masks") == masks
        assert journal_of(tmp_path / "out")["cat.png"]["looks"] == {"cutout": text}
        before = text


def test_cutouts_are_added_to_what_is_done(
    fcn: Fcn, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcn("segment", "made", *SMALL, "-o", "out")
    monkeypatch.setenv("FCN_CUTOUT", "cat")
    fcn(*CUTOUTS, "--device", "cuda:99")
    assert_cut_out(tmp_path / "out", upright(made / "cat.png"), "cat", {8})


def test_void_is_transparent_whatever_is_asked_for(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    fcn(*CUTOUTS, "--min-confidence", "0.9")
    labels = np.array(Image.open(tmp_path / "out/masks/cat.png"))
    assert (labels == 255).any()
    assert_cut_out(tmp_path / "out", upright(made / "cat.png"), "cat", None)
    for classes in ("255", "void"):
        done = fcn(*CUTOUTS, "--min-confidence", "0.9", "--cutout", classes, code=2)
        assert f"--cutout {classes}" in done.stderr


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("persom", "--cutout persom: no such class; did you mean person?"),
        ("cat,Doggo,dog", "--cutout Doggo: no such class; did you mean dog?"),
        ("zzzzz", "--cutout zzzzz: no such class; the classes are __background__, aeroplane, "),
        ("21", "--cutout 21: the network has 21 classes, from 0 to 20"),
        ("-1", "--cutout -1: no such class"),
        (",", "--cutout takes all, or names or indices of classes, separated by commas, not ','"),
    ],
)
def test_a_class_that_does_not_exist_is_refused_before_anything_is_written(
    fcn: Fcn, made: Path, tmp_path: Path, classes: str, message: str
) -> None:
    assert message in fcn(*CUTOUTS, "--cutout", classes, code=2).stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("classes", ["cat", "all"])
def test_cutouts_are_written_beside_what_is_written_anyway(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, classes: str
) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL, "-o", "out", "--cutout", classes)
    assert {name for name in tree(tmp_path / "out") if name.endswith("a.png")} == {
        "masks/a.png",
        "color/a.png",
        "cutout/a.png",
    }


@pytest.mark.long
def test_ones_own_classes(fcn: Fcn, made: Path, tmp_path: Path) -> None:
    torch.save(preview_network().model.state_dict(), tmp_path / "own.pth")
    own = ("--weights", "own.pth")
    fcn(*CUTOUTS, *own, "--cutout", "class_8,15")
    assert_cut_out(tmp_path / "out", upright(made / "cat.png"), "cat", {8, 15})
    # How many classes there are is known only when the network is loaded.
    done = fcn(
        "segment", "made", *SMALL, *own, "--write", "cutout", "--cutout", "class_40", "-o", "o2", code=2
    )
    assert "--cutout class_40: no such class" in done.stderr
    assert not (tmp_path / "o2/cutout").exists()
    names = [f"thing {index}" for index in range(20)]
    (tmp_path / "names").write_text("\n".join([*names, "8"]))
    named = (*SMALL, *own, "--class-names", "names", "--write", "masks,cutout", "-o", "named")
    # A name comes before an index.
    fcn("segment", "made", *named, "--cutout", "thing 15,8")
    assert_cut_out(tmp_path / "named", upright(made / "cat.png"), "cat", {15, 20})


def test_python_users_have_cutouts_too(made: Path) -> None:
    result = Segmenter("efficientnet_lite0", resize=64)(made / "cat.png")
    alpha = np.array(result.cutout())[..., 3]
    assert np.array_equal(alpha == 255, result.labels > 0)
    assert np.array_equal(np.array(result.cutout(["cat", 0]))[..., 3] == 255, np.isin(result.labels, [0, 8]))
    with pytest.raises(RequestError, match="did you mean cat"):
        result.cutout(["cats"])


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_strips_make_no_difference(height: int, width: int, seed: int, strip_pixels: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (height, width))
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8).astype(np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "_STRIP_PIXELS", strip_pixels)
        cut = np.array(overlay.cutout(image, labels, CutoutStyle(frozenset({1, 255}))))
    expected = np.dstack([np.array(image), np.full_like(labels, 255)]) * (labels == 1)[..., None]
    assert np.array_equal(cut, expected)


@given(st.lists(st.sampled_from([*VOC_CLASSES, *map(str, range(21))]), min_size=1))
def test_every_name_and_every_index_finds_its_class(wanted: list[str]) -> None:
    expected = {int(text) if text.isdigit() else VOC_CLASSES.index(text) for text in wanted}
    for change in (str, str.upper, str.title, lambda text: text.strip("_")):
        assert find_classes([change(text) for text in wanted], VOC_CLASSES) == expected


def test_the_name_as_it_is_goes_before_others() -> None:
    names = ["Cat", "cat", "_cat_", "1", "cat"]
    for text, index in (("cat", 1), ("Cat", 0), ("CAT", 0), ("_cat_", 2), ("1", 3), ("4", 4), ("0", 0)):
        assert find_classes([text], names) == {index}


def box_of(kept: NDArray[np.bool_], margin: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    return (
        max(columns[0] - margin, 0),
        max(rows[0] - margin, 0),
        min(columns[-1] + margin + 1, kept.shape[1]),
        min(rows[-1] + margin + 1, kept.shape[0]),
    )


@pytest.mark.parametrize(
    ("options", "margin", "color"),
    [
        (("--crop",), 0, None),
        (("--crop=7",), 7, None),
        (("--crop=1000", "--background", "#0a0b0c"), 1000, (10, 11, 12)),
        (("--background", "white"), None, (255, 255, 255)),
    ],
)
def test_cropped_and_on_a_background(
    fcn: Fcn,
    made: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    margin: int | None,
    color: tuple[int, int, int] | None,
) -> None:
    line = ("segment", "made", *SMALL, "--cutout", "cat", "-o", "out")
    fcn(*line, *options)
    for name, file in (("cat", "cat.png"), ("person", "person.jpg")):
        image = upright(made / file)
        kept = np.array(Image.open(tmp_path / f"out/masks/{name}.png")) == 8
        expected = np.zeros((*kept.shape, 4), np.uint8)
        expected[kept, :3] = np.array(image)[kept]
        expected[kept, 3] = 255
        if color is not None:
            expected[~kept, :3] = color
            expected = expected[..., :3]
        if margin is not None and kept.any():
            left, upper, right, lower = box_of(kept, margin)
            expected = expected[upper:lower, left:right]
        with Image.open(tmp_path / f"out/cutout/{name}.png") as cutout:
            assert cutout.mode == ("RGBA" if color is None else "RGB")
            assert np.array_equal(np.array(cutout), expected)
        own = Segmenter(PREVIEW[1], resize=64)(made / file).cutout(
            "cat", crop=margin, background=None if color is None else f"#{bytes(color).hex()}"
        )
        assert np.array_equal(np.array(own), expected)
    assert "no problem" in fcn("verify", "out").stderr
    assert "nothing to do" in fcn(*line, *options).stderr
    # They are looks: the network is not needed for others.
    masks = tree(tmp_path / "out/masks")
    fcn(*line)
    assert tree(tmp_path / "out/masks") == masks
    assert_cut_out(tmp_path / "out", upright(made / "cat.png"), "cat", {8})


def test_what_is_no_color_or_margin(fcn: Fcn, made: Path) -> None:
    line = ("segment", "made", *SMALL, "-o", "out")
    assert "a colour such as white" in fcn(*line, "--background", "#12345678", code=2).stderr
    assert "a colour such as white" in fcn(*line, "--background", "whight", code=2).stderr
    assert "--crop" in fcn(*line, "--crop=-1", code=2).stderr
    with pytest.raises(RequestError, match="background 'whight'"):
        Segmenter(PREVIEW[1], resize=64)(made / "cat.png").cutout(background="whight")
