"""Overlays: the blend, the border line, the legend; each is a look that changes without the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFont

from fcn_cli import RequestError, Segmenter
from fcn_cli.common import palettes
from fcn_cli.common.errors import ImageError
from fcn_cli.outputs import legend, overlay, writers
from fcn_cli.outputs.looks import CutoutStyle, LookRequest, Style
from fcn_cli.outputs.writers import OverlayWriter

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, journal_of, preview_network, tree

Labels = NDArray[np.uint8]


def look(opacity: float = 0.5, *, borders: bool = True, names: bool = False) -> Style:
    class_names = ("other", "cat", "dog", "bird") if names else ()
    return Style(palettes.bright(), "bright", opacity, borders=borders, legend=names, class_names=class_names)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8).astype(np.uint8)
    )


def borders_pixel_by_pixel(labels: Labels, radius: int) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Return the line's colour at each of its pixels, from the definition."""
    height, width = labels.shape
    found = {}
    for y in range(height):
        for x in range(width):
            around = labels[
                max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1
            ].flatten()
            classes = [int(index) for index in around if index != 255]
            own = int(labels[y, x])
            if own == 255:
                continue
            if max(classes) > own:
                found[y, x] = (0, 0, 0)
            elif min(classes) < own:
                found[y, x] = (255, 255, 255)
    return found


maps = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).choice(
        np.array([0, 0, 0, 1, 7, 255], dtype=np.uint8), (drawn[0], drawn[1])
    )
)


@settings(max_examples=60)
@given(maps, st.integers(1, 4), st.integers(1, 3))
def test_the_line_is_where_two_classes_meet_whatever_the_strips(
    labels: Labels, radius: int, strip_rows: int
) -> None:
    image = noise(*labels.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "line_width", lambda width, height: radius)
        patch.setattr(overlay, "_STRIP_PIXELS", strip_rows * labels.shape[1])
        drawn = np.array(overlay.overlay(image, labels, look()))
    plain = np.array(overlay.overlay(image, labels, look(borders=False)))
    for (y, x), color in borders_pixel_by_pixel(labels, radius).items():
        plain[y, x] = color
    assert np.array_equal(drawn, plain)


@pytest.mark.parametrize("opacity", [0.0, 0.25, 0.5, 1.0])
def test_colours_are_blended_with_the_opacity_and_class_0_is_left_as_it_is(opacity: float) -> None:
    labels = np.random.default_rng(1).choice(np.array([0, 3, 20, 255], dtype=np.uint8), (40, 50))
    image = noise(40, 50)
    drawn = np.array(overlay.overlay(image, labels, look(opacity, borders=False)), dtype=float)
    pixels = np.array(image, dtype=float)
    expected = (1 - opacity) * pixels + opacity * palettes.bright()[labels]
    assert np.abs(drawn - expected)[labels > 0].max() < 1.5
    assert np.array_equal(drawn[labels == 0], pixels[labels == 0])


def test_the_line_is_a_pixel_on_either_side_of_small_images_and_grows_with_large_ones() -> None:
    assert overlay.line_width(1, 1) == overlay.line_width(451, 300) == overlay.line_width(65500, 1) == 1
    assert overlay.line_width(4000, 3000) == 5
    assert overlay.line_width(3000, 4000) == 5


def test_the_line_shows_on_black_on_white_and_on_its_own_colour() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 5
    for background in ("black", "white", tuple(palettes.bright()[5].tolist())):
        drawn = np.array(overlay.overlay(Image.new("RGB", (40, 40), background), labels, look()), dtype=int)
        across = drawn[20, 7:13].sum(1)
        assert across.max() == 765, "the white half"
        assert across.min() == 0, "the black half"


def test_an_image_of_another_size_than_its_labels_fails_alone() -> None:
    image, labels = noise(4, 5), np.zeros((5, 4), np.uint8)
    with pytest.raises(ImageError, match="changed"):
        overlay.overlay(image, labels, look())
    with pytest.raises(ImageError, match="changed"):
        overlay.cutout(image, labels, CutoutStyle())


# ---- the legend


def swatches(strip: Image.Image, colors: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the (row, column) where each colour first appears in a strip."""
    pixels = np.array(strip)
    places = []
    for color in colors:
        rows, columns = np.nonzero((pixels == color).all(2))
        assert rows.size, color
        places.append((int(rows[0]), int(columns.min())))
    return places


def test_the_legend_has_the_classes_present_the_largest_first_and_leaves_the_image_alone() -> None:
    labels = np.zeros((200, 300), np.uint8)
    labels[:40], labels[40:150] = 3, 1
    image = noise(200, 300)
    drawn = overlay.overlay(image, labels, look(names=True))
    assert drawn.width == 300
    assert drawn.height > 200
    without = overlay.overlay(image, labels, look())
    assert drawn.crop((0, 0, 300, 200)).tobytes() == without.tobytes()
    strip = drawn.crop((0, 200, 300, drawn.height))
    colors = [tuple(palettes.bright()[index].tolist()) for index in (1, 3)]
    cat, bird = swatches(strip, colors)
    assert cat[1] < bird[1]
    assert tuple(palettes.bright()[2].tolist()) not in {
        tuple(pixel) for pixel in np.array(strip).reshape(-1, 3).tolist()
    }
    # The names beside their swatches are dark text on white.
    assert np.array(strip.convert("L"))[:, cat[1] + 14 : bird[1]].min() < 80
    nothing = np.zeros_like(labels)
    assert overlay.overlay(image, nothing, look(names=True)).size == image.size


def entries(names: list[str]) -> list[legend.Entry]:
    colors = palettes.bright()
    return [
        legend.Entry(name, f"class_{index}", tuple(colors[index].tolist()))
        for index, name in enumerate(names, 1)
    ]


@pytest.mark.long
@pytest.mark.parametrize("size", [(60, 48), (451, 300), (4000, 3000), (65500, 1), (1, 3000)])
def test_it_wraps_and_can_be_read_below_images_of_any_size(size: tuple[int, int]) -> None:
    names = [f"a name {number}" for number in range(21)]
    strip = legend.draw(entries(names), size)
    assert strip.width >= size[0]
    # Text of at least 12 pixels, and of about a 45th of the side of a large image.
    one = legend.draw(entries(["a"]), size)
    text = max(12, round((size[0] * size[1]) ** 0.5 / 45))
    assert 1.9 * text <= one.height <= 2.4 * text
    places = swatches(strip, [entry.color for entry in entries(names)])
    rows = sorted({row for row, _ in places})
    assert (len(rows) > 1) == (size[0] < 65500)
    assert places == sorted(places)
    if size[0] <= 60:
        assert strip.width < 200, "as wide as one entry"
        assert len(rows) == 21


def drawn_text(name: str) -> bytes:
    return legend.draw(entries([name]), (400, 300)).tobytes()


def test_names_that_no_font_has_are_written_without_accents_or_by_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(legend, "_INSTALLED_FONTS", ("no such font.ttf",))
    assert drawn_text("café") == drawn_text("cafe") == drawn_text("cafe\u0301")
    assert drawn_text("猫") == drawn_text("класс") == drawn_text("a\tb") == drawn_text("class_1")
    assert drawn_text("cat") != drawn_text("class_1")
    assert drawn_text("x" * 1000) == drawn_text("x" * 37 + "...")
    with_digits = drawn_text("7-up & co. (new) {!}")
    assert with_digits != drawn_text("class_1")


def test_names_that_an_installed_font_has_are_written_in_it() -> None:
    try:
        font = ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("needs the font DejaVu Sans")
    assert drawn_text("кошка") != drawn_text("class_1")
    assert drawn_text("café") != drawn_text("cafe")
    chosen, used = legend._Fonts(20).choose(entries(["кошка"])[0])
    assert (chosen, used.getname()) == ("кошка", font.getname())
    # Names in ASCII do not depend on the machine.
    assert legend._Fonts(20).choose(entries(["cat"])[0])[1].getname()[0] != font.getname()[0]


# ---- as looks


@pytest.fixture
def cats(tmp_path: Path) -> None:
    """Make two small images in which the network sees a cat and background."""
    (tmp_path / "made").mkdir()
    with Image.open(SAMPLES / "chelsea.png") as opened:
        for name, size in (("a.png", (150, 100)), ("b.png", (120, 80))):
            opened.convert("RGB").resize(size).save(tmp_path / "made" / name)


@pytest.fixture
def out(fcn: Fcn, cats: None, tmp_path: Path) -> Path:
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,overlay")
    return tmp_path / "out"


def test_another_look_is_made_from_the_masks_without_the_network(out: Path, fcn: Fcn, tmp_path: Path) -> None:
    masks, before = tree(out / "masks"), tree(out / "overlay")
    arguments = ("segment", "made", *SMALL, "--write", "overlay", "-o")
    last = "hub, opacity 0.5, borders"
    for options, text in (
        (("--opacity", "0.3"), "hub, opacity 0.3, borders"),
        (("--legend",), "hub, opacity 0.5, borders, legend"),
        (("--palette", "bright"), "bright, opacity 0.5, borders"),
    ):
        plan = fcn(*arguments, "out", *options, "--dry-run").stdout.splitlines()
        assert plan[0] == f"repaint\ta.png\toverlay was {last}, is now {text}"
        # A device that is not there: it is not needed.
        fcn(*arguments, "out", *options, "--device", "cuda:99")
        assert {record["looks"]["overlay"] for record in journal_of(out).values()} == {text}
        assert tree(out / "masks") == masks
        assert tree(out / "overlay") != before
        before, last = tree(out / "overlay"), text
    fcn(*arguments, "fresh", "--palette", "bright")
    assert tree(tmp_path / "fresh/overlay") == before


def test_a_record_without_the_overlay_comes_before_the_new_one(out: Path, fcn: Fcn) -> None:
    count = len((out / "manifest.jsonl").read_bytes().splitlines())
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "overlay", "--legend")
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()][count:]
    for image in ("a.png", "b.png"):
        withdrawn, full = (line for line in lines if line["image"] == image)
        assert withdrawn["outputs"] == [f"masks/{image}"]
        assert withdrawn["looks"] == {}
        assert full["looks"] == {"overlay": "hub, opacity 0.5, borders, legend"}
        assert len(full["outputs"]) == 2


def test_overlays_of_an_earlier_version_get_borders(out: Path, fcn: Fcn) -> None:
    journal = out / "manifest.jsonl"
    journal.write_text(journal.read_text().replace("opacity 0.5, borders", "opacity 0.5"))
    assert "2 images: 2 done" in fcn("segment", "made", *SMALL, "-o", "out", "--write", "overlay").stderr


@pytest.mark.parametrize("opacity", ["1.5", "-1", "half", "nan"])
def test_an_opacity_out_of_range_is_refused(fcn: Fcn, make_images: MakeImages, opacity: str) -> None:
    done = fcn("segment", make_images(["a.png"]), *SMALL, "--opacity", opacity, code=2)
    assert "--opacity takes a number from 0 to 1" in done.stderr


@pytest.mark.long
def test_the_legend_has_the_names_of_ones_own_classes(fcn: Fcn, cats: None, tmp_path: Path) -> None:
    torch.save(preview_network().model.state_dict(), tmp_path / "own.pth")
    arguments = ("segment", "made", *SMALL, "--weights", "own.pth", "--write", "masks,overlay", "--legend")
    fcn(*arguments, "-o", "unnamed")
    (tmp_path / "names").write_text("\n".join(f"thing {index}" for index in range(21)))
    fcn(*arguments, "-o", "named", "--class-names", "names")
    labels = np.array(Image.open(tmp_path / "named/masks/a.png"))
    assert labels.any()
    image = Image.open("made/a.png").convert("RGB")
    for folder, names in (
        ("unnamed", [f"class_{index}" for index in range(21)]),
        ("named", [f"thing {index}" for index in range(21)]),
    ):
        expected = overlay.overlay(
            image, labels, Style(palettes.hub(), "hub", legend=True, class_names=names)
        )
        written = Image.open(tmp_path / folder / "overlay/a.jpg")
        assert written.size == expected.size
        difference = np.abs(np.array(written, dtype=int) - np.array(expected, dtype=int))
        assert difference[image.height :].mean() < 6


def test_a_legend_that_makes_a_jpeg_too_tall_fails_that_image_with_the_reason(
    out: Path, fcn: Fcn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_JPEG_LONGEST_SIDE", 150)
    arguments = ("segment", "made", *SMALL, "--write", "overlay", "-o", "out")
    assert "nothing to do" in fcn(*arguments).stderr
    fcn(*arguments, "--opacity", "0.4")
    assert Image.open(out / "overlay/a.jpg").size == (150, 100)
    monkeypatch.setattr(writers, "_JPEG_LONGEST_SIDE", 149)
    done = fcn(*arguments, "--legend", code=1)
    assert "a JPEG has at most 149 pixels a side, this one would have 150x125" in done.stderr


def test_python_users_have_the_same_looks() -> None:
    result = Segmenter("efficientnet_lite0", resize=128)(SAMPLES / "chelsea.png")
    request = LookRequest("bright", 0.7, legend=True)
    expected = overlay.overlay(result.image, result.labels, request.resolve(result.class_names))
    assert result.overlay("bright", opacity=0.7, legend=True).tobytes() == expected.tobytes()
    assert OverlayWriter.describe(request.resolve(None)) == "bright, opacity 0.7, borders, legend"
    plain = np.array(result.overlay(borders=False), dtype=float)
    blend = (np.array(result.image, dtype=float) + palettes.hub()[result.labels]) / 2
    assert np.abs(plain - blend)[result.labels > 0].max() < 1.5
    with pytest.raises(RequestError, match="opacity 2"):
        result.overlay(opacity=2)
