"""What the next command finds in an output directory."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageFilter

from fcn_cli import __version__
from fcn_cli.common import files, palettes
from fcn_cli.common.class_names import VOC_CLASSES

from ..conftest import PREVIEW, SMALL, Fcn, MakeImages, journal_of
from ..report.pages import read_page


@pytest.fixture
def output(fcn: Fcn, images: Path, tmp_path: Path) -> Path:
    fcn("segment", images, *PREVIEW, "--resize", "200", "--write", "masks,color,overlay", "-o", "out")
    return tmp_path / "out"


def test_masks_colors_and_overlays_have_the_images_size_and_the_same_indices(
    output: Path, images: Path
) -> None:
    for image in sorted(images.iterdir()):
        mask = Image.open(output / "masks" / f"{image.stem}.png")
        color = Image.open(output / "color" / f"{image.stem}.png")
        overlay = Image.open(output / "overlay" / f"{image.stem}.jpg")
        assert mask.mode == "L"
        assert color.mode == "P"
        assert mask.size == color.size == overlay.size == Image.open(image).size
        assert np.array_equal(np.array(mask), np.array(color))


def test_the_palette_has_256_entries_of_the_hub_formula(output: Path) -> None:
    palette = Image.open(output / "color/chelsea.png").getpalette()
    assert palette is not None
    # The formula as the PyTorch Hub page states it.
    multipliers = torch.tensor([2**25 - 1, 2**15 - 1, 2**21 - 1])
    colors = (torch.as_tensor(list(range(255)))[:, None] * multipliers % 255).numpy().astype("uint8")
    assert len(palette) == 768
    assert palette[: 255 * 3] == colors.flatten().tolist()


def test_an_overlay_shows_the_image_where_class_0_is_and_its_colour_elsewhere(
    output: Path, images: Path
) -> None:
    labels = np.array(Image.open(output / "masks/chelsea.png"))
    image = Image.open(images / "chelsea.png").convert("RGB")
    overlay = Image.open(output / "overlay/chelsea.jpg")
    difference = np.array(ImageChops.difference(image, overlay)).astype(int).sum(2)
    expected = 0.5 * np.array(image) + 0.5 * palettes.hub()[labels]
    # Where the line between classes runs, neither shows.
    mask = Image.fromarray(labels)
    inside = np.array(mask.filter(ImageFilter.MinFilter(5))) == np.array(
        mask.filter(ImageFilter.MaxFilter(5))
    )
    assert np.abs(np.array(overlay) - expected)[inside & (labels > 0)].mean() < 8
    assert (inside & (labels == 0)).any()
    assert difference[inside & (labels == 0)].mean() < 8


def test_stats_csv_counts_the_masks(output: Path) -> None:
    with (output / "stats.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "width", "height", "class_id", "class_name", "pixels", "fraction"]
    assert rows == sorted(rows, key=lambda row: (row["image"], int(row["class_id"])))
    for name in ("astronaut.png", "grace_hopper.jpg"):
        labels = np.array(Image.open(output / "masks" / f"{Path(name).stem}.png"))
        counts = {int(row["class_id"]): int(row["pixels"]) for row in rows if row["image"] == name}
        indices, pixels = np.unique(labels, return_counts=True)
        assert counts == dict(zip(indices.tolist(), pixels.tolist(), strict=True))
    for row in rows:
        assert row["class_name"] == VOC_CLASSES[int(row["class_id"])]
        area = int(row["width"]) * int(row["height"])
        assert float(row["fraction"]) == pytest.approx(int(row["pixels"]) / area, abs=1e-6)


def test_the_journal_the_classes_and_the_summary_agree(output: Path, images: Path) -> None:
    records = journal_of(output)
    assert sorted(records) == sorted(path.name for path in images.iterdir())
    record = records["chelsea.png"]
    status = (images / "chelsea.png").stat()
    assert record["status"] == "ok"
    assert record["error"] is None
    assert (record["width"], record["height"]) == (451, 300)
    assert (record["size_bytes"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    bytes_read = (images / "chelsea.png").read_bytes()
    assert record["content"] == hashlib.blake2b(bytes_read, digest_size=16).hexdigest()
    assert record["version"] == __version__
    assert record["outputs"] == ["masks/chelsea.png", "color/chelsea.png", "overlay/chelsea.jpg"]
    assert record["output_bytes"] == [(output / name).stat().st_size for name in record["outputs"]]
    assert sum(record["classes"].values()) == 451 * 300
    classes = json.loads((output / "classes.json").read_text())
    assert [classes[str(i)]["name"] for i in range(21)] == list(VOC_CLASSES)
    assert classes["15"]["color"] == palettes.hub()[15].tolist()
    assert classes["255"]["name"] == "void"
    summary = json.loads((output / "summary.json").read_text())
    assert summary["run"]["images"] == summary["run"]["ok"] == summary["totals"]["images"] == 4
    assert summary["totals"]["pixels"] == sum(r["width"] * r["height"] for r in records.values())
    assert summary["run"]["versions"]["torch"] == torch.__version__


def test_voc_palette_is_the_development_kits() -> None:
    known = {
        1: (128, 0, 0),
        2: (0, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    for index, color in known.items():
        assert tuple(palettes.voc()[index]) == color


@pytest.mark.long
def test_a_palette_file(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    (tmp_path / "mine.json").write_text(json.dumps([[i, 2 * i, 255 - i] for i in range(21)]))
    fcn("segment", "made", *SMALL, "--palette", "mine.json", "-o", "out")
    palette = Image.open(tmp_path / "out/color/a.png").getpalette()
    assert palette is not None
    assert palette[15 * 3 : 15 * 3 + 3] == [15, 30, 240]
    (tmp_path / "short.json").write_text("[[0, 0, 0]]")
    assert "1 colour" in fcn("segment", "made", *SMALL, "--palette", "short.json", "-o", "o2", code=2).stderr
    for bad in ("nothing", "[[0, 0]]", "[[0, 0, 256]]", '"x"', "[[0, 0, 1e99]]"):
        (tmp_path / "bad.json").write_text(bad)
        assert (
            "bad.json" in fcn("segment", "made", *SMALL, "--palette", "bad.json", "-o", "o3", code=2).stderr
        )
    assert not (tmp_path / "o2").exists()
    assert not (tmp_path / "o3").exists()


def test_permissions_follow_the_umask(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    before = os.umask(0o027)
    try:
        fcn("segment", "made", *SMALL, "-o", "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out/masks/a.png").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out/stats.csv").stat().st_mode & 0o777 == 0o640


def test_what_shows_an_image_keeps_its_permissions(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """Its own, and not only the umask, decide who reads what has pixels of an image."""
    folder = make_images(["private.jpg", "group.png", "open.png"])
    modes = {"private.jpg": 0o600, "group.png": 0o640, "open.png": 0o644}
    for name, mode in modes.items():
        (folder / name).chmod(mode)
    fcn("segment", folder, *SMALL, "--write", "masks,overlay,cutout", "-o", "out", "--report")
    fcn("segment", folder / "private.jpg", *SMALL, "--write", "overlay", "-o", "one.png")
    for form in ("voc", "yolo"):
        fcn("export", "out", "--format", form, "-o", form)

    def mode_of(path: Path) -> int:
        return path.stat().st_mode & 0o777

    page = read_page(tmp_path / "out")
    for name, mode in modes.items():
        stem = Path(name).stem
        assert mode_of(tmp_path / f"out/overlay/{stem}.jpg") == mode
        assert mode_of(tmp_path / f"out/cutout/{stem}.png") == mode
        # A mask has no pixels of its image.
        assert mode_of(tmp_path / f"out/masks/{stem}.png") == 0o644
        assert {mode_of(page.picture(page.row(name), suffix)) for suffix in ("small", "large")} == {mode}
        assert mode_of(tmp_path / f"voc/VOCdevkit/VOC2012/JPEGImages/{stem}.jpg") == mode
        assert mode_of(tmp_path / f"yolo/images/train/{stem}.jpg") == mode
    assert mode_of(tmp_path / "one.png") == 0o600


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files to other groups")
def test_another_group_may_do_what_everybody_may(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    source.chmod(0o664)
    os.chown(source, -1, os.getegid() + 1)
    files.write_bytes(target, b"pixels", files.permissions_of(str(source)))
    assert target.stat().st_mode & 0o777 == 0o644
    source.unlink()
    files.write_bytes(target, b"pixels", files.permissions_of(str(source)))
    assert target.stat().st_mode & 0o777 == 0o600


def test_outputs_are_not_written_through_links(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["sub/a.png", "b.png"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out/masks").mkdir(parents=True)
    (tmp_path / "out/masks/sub").symlink_to(elsewhere)
    (tmp_path / "out/.fcn.lock").touch()
    victim = tmp_path / "victim.png"
    victim.write_bytes(b"precious")
    (tmp_path / "out/masks/b.png").symlink_to(victim)
    done = fcn("segment", "made", *SMALL, "-o", "out", code=1)
    assert "is a link" in done.stderr
    assert list(elsewhere.iterdir()) == []
    assert victim.read_bytes() == b"precious"
    assert journal_of(tmp_path / "out")["b.png"]["status"] == "ok"
    assert not (tmp_path / "out/masks/b.png").is_symlink()
