"""`fcn evaluate --report`: figures, the confusion matrix, and the images, the worst one first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ..conftest import PREVIEW, Fcn, MakeImages, tree
from .made import write_run
from .pages import Page, read_page

Labels = NDArray[np.uint8]
RANDOM = np.random.default_rng(3)
NAMES = ("good.png", "worst.png", "middle.png", "void.png")


def drawn(size: tuple[int, int], *classes: int) -> Labels:
    """Return stripes of classes, (height, width)."""
    width, height = size
    return np.repeat(np.resize(np.array(classes, np.uint8), width)[None], height, 0)


@pytest.fixture
def measured(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Page:
    """The report on masks that are right, wrong, half right, and not to be judged."""
    folder = make_images(NAMES)
    for kind in ("truth", "masks"):
        (tmp_path / kind).mkdir()
    for name in NAMES:
        with Image.open(folder / name) as image:
            size = image.size
        truth, mask = drawn(size, 0, 8, 8, 15), drawn(size, 0, 8, 8, 15)
        if name == "worst.png":
            mask = drawn(size, 12)
        elif name == "middle.png":
            mask[: size[1] // 2] = 255
        elif name == "void.png":
            truth[:] = 255
        truth[0] = 255
        Image.fromarray(truth).save(tmp_path / "truth" / name)
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    done = fcn("evaluate", folder, "truth", "--predictions", "masks", "--report", "found", "--json")
    figures = json.loads(done.stdout)
    assert json.loads((tmp_path / "found/evaluation.json").read_text()) == figures
    return read_page(tmp_path / "found")


def labels(page: Page, name: str) -> tuple[Labels, Labels]:
    folder = page.root.parent
    return np.array(Image.open(folder / "truth" / name)), np.array(Image.open(folder / "masks" / name))


def iou_of(truth: Labels, mask: Labels) -> dict[int, float]:
    judged = truth != 255
    found = {}
    for index in np.unique(np.concatenate([truth[judged], mask[judged]])):
        both, either = (truth == index) & (mask == index), (truth == index) | (mask == index)
        if index != 255:
            found[int(index)] = float((both & judged).sum() / (either & judged).sum())
    return found


def test_the_worst_image_comes_first(measured: Page) -> None:
    assert [row["name"] for row in measured.rows] == ["worst.png", "middle.png", "good.png", "void.png"]
    for row in measured.rows:
        truth, mask = labels(measured, row["name"])
        expected = iou_of(truth, mask)
        assert dict(zip(row["ious"][::2], row["ious"][1::2], strict=True)) == pytest.approx(
            expected, abs=1e-4
        )
        if expected:
            assert row["iou"] == pytest.approx(np.mean(list(expected.values())), abs=1e-4)
            assert row["accuracy"] == pytest.approx((truth == mask)[truth != 255].mean(), abs=1e-4)
        else:
            assert (row["iou"], row["accuracy"]) == (None, None)
    worst = measured.row("worst.png")
    truth, _ = labels(measured, "worst.png")
    assert worst["mistakes"][:2] == [256 * 8 + 12, int((truth == 8).sum())]
    assert measured.row("good.png")["mistakes"] == []
    assert {cell % 256 for cell in measured.row("middle.png")["mistakes"][::2]} == {255}


def test_image_truth_prediction_and_wrong_pixels(measured: Page) -> None:
    for row in measured.rows:
        truth, mask = labels(measured, row["name"])
        assert all(row[name] for name in ("small", "large", "grid", "truth", "prediction", "wrong"))
        with Image.open(measured.picture(row, "large")) as image:
            assert image.size == truth.shape[::-1]
        assert np.array_equal(measured.grid(row, "truth"), truth)
        assert np.array_equal(measured.grid(row, "prediction"), mask)
        with Image.open(measured.layer(row, "wrong")) as wrong:
            marked = np.asarray(wrong.convert("RGBA"))[..., 3] > 0
        assert np.array_equal(marked, (truth != mask) & (truth != 255))


def test_the_confusion_matrix_is_shares_of_the_truth(measured: Page) -> None:
    pairs = [labels(measured, name) for name in NAMES]
    truth = np.concatenate([a[a != 255] for a, _ in pairs])
    mask = np.concatenate([b[a != 255] for a, b in pairs])
    names = {0: "__background__", 8: "cat", 12: "dog", 15: "person", 255: "void"}
    said = {
        int(str(attributes["data-cell"])): str(attributes["aria-label"])
        for _, attributes in measured.tags
        if "data-cell" in attributes
    }
    assert len(said) == 4 * 5
    for index, predicted in ((8, 8), (8, 12), (8, 255), (0, 12), (15, 0), (12, 12)):
        pixels = int(((truth == index) & (mask == predicted)).sum())
        images = sum(bool(((a == index) & (b == predicted)).any()) for a, b in pairs)
        share = f"{pixels / max(1, (truth == index).sum()):.1%}".replace("%", " %")
        text = f"{names[index]} predicted as {names[predicted]}: {share}, {pixels:,} pixels in {images} image"
        assert said[256 * index + predicted] in {text, f"{text}s"}


def test_bars_of_iou_and_recall_and_figures_beside_them(measured: Page) -> None:
    figures = json.loads((measured.root / "evaluation.json").read_text())
    seen = [entry for entry in figures["classes"].values() if entry["iou"] is not None]
    expected: list[float] = []
    for entry in sorted(seen, key=lambda entry: entry["iou"]):
        expected += [100 * value for value in (entry["iou"], entry["recall"]) if value is not None]
    bars = [
        attributes for tag, attributes in measured.tags if tag == "rect" and attributes.get("class") == "fill"
    ]
    assert [float(str(bar["width"]).rstrip("%")) for bar in bars] == pytest.approx(expected, abs=1e-3)
    shown = [figures["mean_iou"], figures["mean_dice"], figures["frequency_weighted_iou"]]
    shown += [entry[figure] for entry in seen for figure in ("precision", "dice") if entry[figure]]
    assert all(f"{value:.1%}".replace("%", " %") in measured.text for value in shown)
    assert "tvmonitor" in measured.text


def test_of_a_network_and_of_a_turned_image(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png", "turned.jpg"], size=(64, 40))
    with Image.open(folder / "turned.jpg") as opened:
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = opened.convert("RGB")
        stored.save(folder / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "truth").mkdir()
    # The truth was drawn on the image as it is stored.
    Image.fromarray(drawn((65, 40), 0, 1)).save(tmp_path / "truth/turned.png")
    Image.fromarray(drawn((64, 40), 0, 1)).save(tmp_path / "truth/a.png")
    fcn(
        "evaluate",
        folder,
        "truth",
        *PREVIEW,
        "--resize",
        "48",
        "--protocol",
        "torchvision",
        "--report",
        "found",
    )
    page = read_page(tmp_path / "found")
    assert "efficientnet_lite0" in page.text
    turned = page.row("turned.jpg")
    with Image.open(page.picture(turned, "large")) as shown:
        assert np.abs(np.asarray(shown, float) - np.asarray(stored, float)).mean() < 8
    # Label maps are compared at the size of the network's input.
    assert min(page.grid(turned, "prediction").shape) == 48


def test_failures_and_odd_names(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    names = ["<img src=x onerror=alert(1)>.png", "small.png"]
    folder = make_images(names)
    write_run(folder, tmp_path / "out")
    shutil.copytree(tmp_path / "out/masks", tmp_path / "truth")
    Image.new("L", (7, 7)).save(tmp_path / "truth/small.png")
    fcn("evaluate", folder, "truth", "--predictions", "out", "--report", "found", code=1)
    page = read_page(tmp_path / "found")
    assert [row["name"] for row in page.rows] == names[:1]
    assert "<img src=x" not in page.html
    assert "SizesDiffer" in page.text
    assert "7x7" in page.text


def test_where_a_report_may_go(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png"])
    write_run(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    masks = ("evaluate", folder, "out/masks", "--predictions", "out")
    assert "output directory" in fcn(*masks, "--report", "out", code=2).stderr
    for images in (folder, f"file://{folder}"):
        line = ("evaluate", images, "out/masks", "--predictions", "out", "--report", folder / "found")
        assert "taken for images" in fcn(*line, code=2).stderr
    assert "--report" in fcn(*masks, "--report", "", code=2).stderr
    (tmp_path / "file").touch()
    assert "is a file" in fcn(*masks, "--report", "file", code=2).stderr
    assert tree(tmp_path / "out") == before
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_figures_are_printed_when_the_report_cannot_be_written(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    folder = make_images(["a.png"])
    write_run(folder, tmp_path / "out")
    (tmp_path / "found").mkdir()
    (tmp_path / "found/report").write_text("in the way")
    line = ("evaluate", folder, "out/masks", "--predictions", "out", "--report", "found", "--json")
    done = fcn(*line, code=5)
    assert json.loads(done.stdout)["mean_iou"] == 1.0
    assert "cannot be written" in done.stderr
    assert not (tmp_path / "found/report.html").exists()
