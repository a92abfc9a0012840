"""ICC profiles: people see sRGB; the network sees pixels as they are stored."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fcn_cli import Segmenter
from fcn_cli.inputs import decoder, workers
from fcn_cli.inputs.samples import BY_THE_FILE

from ..conftest import SAMPLES, SMALL, Fcn, journal_of
from ..report.pages import read_page


def swapped_primaries() -> bytes:
    """Return sRGB's profile with red for green and green for red: no one can take it for sRGB."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


def grey_profile() -> bytes:
    """Return sRGB's profile as one of grey, whose values are light itself (gamma 1)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    linear = b"curv" + bytes(8)
    place = profile.index(b"rTRC")
    profile[place : place + 12] = b"kTRC" + struct.pack(">2I", len(profile), len(linear))
    profile += linear
    profile[:4] = struct.pack(">I", len(profile))
    return bytes(profile)


def in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return converted


@pytest.fixture
def cat() -> Image.Image:
    with Image.open(SAMPLES / "chelsea.png") as opened:
        return opened.convert("RGB").resize((96, 64))


@pytest.mark.long
def test_what_people_look_at_is_srgb_and_what_the_network_sees_is_not(
    fcn: Fcn, cat: Image.Image, tmp_path: Path
) -> None:
    profile, folder = swapped_primaries(), tmp_path / "images"
    folder.mkdir()
    cat.save(folder / "plain.png")
    cat.save(folder / "wide.png", icc_profile=profile)
    cat.convert("RGBA").save(folder / "alpha.png", icc_profile=profile)
    cat.save(folder / "photo.jpg", icc_profile=profile, quality=95)
    cat.save(folder / "broken.png", icc_profile=b"no profile")
    expected = np.asarray(in_srgb(cat, profile), int)
    assert np.abs(expected - np.asarray(cat, int)).mean() > 20
    fcn("segment", folder, *SMALL, "--write", "masks,overlay", "--cutout", "all", "-o", "out", "--report")
    fcn("export", "out", "--format", "voc", "-o", "voc")
    page, masks = read_page(tmp_path / "out"), tmp_path / "out/masks"
    for name, colours in (
        ("plain", cat), ("broken", cat), ("wide", expected), ("alpha", expected), ("photo", expected)
    ):  # fmt: skip
        labels = np.array(Image.open(masks / f"{name}.png"))
        cutout = np.array(Image.open(tmp_path / f"out/cutout/{name}.png"))
        kept = cutout[..., 3] > 0
        assert kept.any()
        near = 0 if name != "photo" else 4
        assert np.abs(cutout[kept][:, :3] - np.asarray(colours, int)[kept]).mean() <= near
        (row,) = (row for row in page.rows if row["name"].startswith(name))
        shown = page.picture(row, "large")
        overlay = tmp_path / f"out/overlay/{name}.jpg"
        exported = tmp_path / f"voc/VOCdevkit/VOC2012/JPEGImages/{name}.jpg"
        for path, where in ((shown, kept), (overlay, labels == 0), (exported, kept)):
            with Image.open(path) as picture:
                assert "icc_profile" not in picture.info
                difference = np.abs(np.asarray(picture, int) - np.asarray(colours, int))
            # The lines between classes are of no colour of the image.
            assert not where.any() or np.median(difference[where]) < 8
        if name != "photo":
            assert np.array_equal(labels, np.array(Image.open(masks / "plain.png")))
        assert ("unusable colour profile ignored" in row["notes"]) == (name == "broken")
    assert "unusable colour profile ignored" in journal_of(tmp_path / "out")["broken.png"]["notes"]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB"])
def test_profiles_of_grey_and_of_palettes(cat: Image.Image, tmp_path: Path, mode: str) -> None:
    profile = grey_profile() if mode.startswith("L") else swapped_primaries()
    image = cat.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=profile)
    shown = workers.decode_for_people(tmp_path / "a.png", cat.width * cat.height, BY_THE_FILE).image
    stored = image.convert("L" if mode.startswith("L") else "RGB")
    assert np.array_equal(np.asarray(shown), np.asarray(in_srgb(stored, profile)))
    plain = decoder.decode_here(tmp_path / "a.png").image
    assert np.array_equal(np.asarray(plain), np.asarray(stored.convert("RGB")))


def test_srgb_stays_as_it_is(cat: Image.Image, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cat.save(tmp_path / "a.png", icc_profile=profile)
    shown = workers.decode_for_people(tmp_path / "a.png", cat.width * cat.height, BY_THE_FILE).image
    assert np.array_equal(np.asarray(shown), np.asarray(cat))


def test_results_in_python(cat: Image.Image, tmp_path: Path) -> None:
    profile = swapped_primaries()
    cat.save(tmp_path / "a.png", icc_profile=profile)
    result = Segmenter("efficientnet_lite0", resize=64)(tmp_path / "a.png")
    assert np.array_equal(np.asarray(result.image), np.asarray(cat))
    background = result.labels == 0
    overlay = np.asarray(result.overlay(opacity=0, borders=False))
    assert np.array_equal(overlay, np.asarray(in_srgb(cat, profile)))
    assert background.shape == overlay.shape[:2]
