"""Every pixel format becomes the upright RGB that one would expect; what cannot, is refused by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import functional

from fcn_cli.common.errors import FailureKind, ImageError
from fcn_cli.inputs import decoder, formats, resizing

from ..conftest import SAMPLES


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.open(SAMPLES / "chelsea.png").convert("RGB").resize((90, 60))


def decoded(path: Path) -> np.ndarray:
    return np.array(decoder.decode_here(path).image)


# test_formats has the others.
EVERYDAY = [
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".gif",
        ".bmp",
        ".dib",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ),
    *(".webp", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"),
]


@pytest.mark.parametrize("suffix", [one for one in EVERYDAY if one in formats.image_suffixes()])
def test_every_everyday_suffix_can_be_read_back(image: Image.Image, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    image.convert(mode).save(path)
    expected = np.array(Image.open(path).convert("RGB"))
    got = decoder.decode_here(path)
    assert np.array_equal(np.array(got.image), expected)
    assert got.image.mode == "RGB"
    assert got.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_applied_once(
    image: Image.Image, orientation: int, suffix: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x{suffix}"
    image.save(path, exif=exif)
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    assert np.array_equal(decoded(path), np.array(expected))
    assert decoder.decode_here(path).image.size == ((90, 60) if orientation < 5 else (60, 90))


def test_broken_exif_is_no_reason_to_fail(image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    image.save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decoded(path).shape == (60, 90, 3)


def test_alpha_is_composited_on_white(image: Image.Image, tmp_path: Path) -> None:
    alpha = Image.linear_gradient("L").resize(image.size)
    rgba = image.copy()
    rgba.putalpha(alpha)
    a = np.array(alpha)[..., None] / 255
    for mode, suffix in (("RGBA", ".png"), ("LA", ".png"), ("RGBA", ".webp"), ("RGBA", ".tif")):
        path = tmp_path / f"{mode}{suffix}"
        options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        rgba.convert(mode).save(path, **options)
        base = image if mode == "RGBA" else image.convert("L").convert("RGB")
        expected = np.array(base) * a + 255 * (1 - a)
        assert np.abs(decoded(path) - expected).max() <= 1.5


def test_palettes_with_and_without_transparency(image: Image.Image, tmp_path: Path) -> None:
    paletted = image.quantize(16)
    paletted.save(tmp_path / "p.png")
    assert np.array_equal(decoded(tmp_path / "p.png"), np.array(paletted.convert("RGB")))
    paletted.save(tmp_path / "t.png", transparency=3)
    expected = np.array(paletted.convert("RGB"))
    expected[np.array(paletted) == 3] = 255
    assert np.array_equal(decoded(tmp_path / "t.png"), expected)
    image.convert("L").save(tmp_path / "l.png", transparency=int(np.array(image.convert("L"))[5, 5]))
    assert decoded(tmp_path / "l.png")[5, 5].tolist() == [255, 255, 255]


def test_sixteen_bits_are_shifted_not_clipped(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    for suffix in (".png", ".tif", ".pgm", ".jp2"):
        path = tmp_path / f"x{suffix}"
        Image.fromarray(values).save(path)
        assert np.array_equal(decoded(path), expected), suffix


def test_32_bit_images_are_scaled_with_a_note(tmp_path: Path) -> None:
    values = np.linspace(-3, 5, 400, dtype=np.float32).reshape(20, 20)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "f.tif")
    got = decoder.decode_here(tmp_path / "f.tif")
    assert "scaled from" in got.notes[0]
    assert "1 that is not finite" in got.notes[0]
    low, high = np.nanmin(values), 5.0
    expected = np.nan_to_num(np.rint((values.astype(float) - low) / (high - low) * 255))
    assert np.array_equal(np.array(got.image)[..., 0], expected)
    Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)).save(tmp_path / "i.tif")
    got = decoder.decode_here(tmp_path / "i.tif")
    assert "32-bit integer" in got.notes[0]
    assert not np.array(got.image).any()


def test_cmyk_and_one_bit(image: Image.Image, tmp_path: Path) -> None:
    image.convert("CMYK").save(tmp_path / "c.jpg", quality=100, subsampling=0)
    assert np.abs(decoded(tmp_path / "c.jpg").astype(int) - np.array(image)).mean() < 4
    image.convert("1").save(tmp_path / "b.png")
    assert set(np.unique(decoded(tmp_path / "b.png"))) == {0, 255}


def test_lab(image: Image.Image, tmp_path: Path) -> None:
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(image, to_lab)
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    assert np.abs(decoded(tmp_path / "lab.tif").astype(int) - np.array(image)).mean() < 3


def test_of_several_frames_the_first_is_taken_and_said(image: Image.Image, tmp_path: Path) -> None:
    frames = [ImageOps.invert(image), image.rotate(180), image]
    for suffix in (".gif", ".tif", ".webp", ".png"):
        path = tmp_path / f"x{suffix}"
        options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
        image.save(path, save_all=True, append_images=frames, **options)
        got = decoder.decode_here(path)
        assert got.notes == ("first of 4 frames",)
        assert np.abs(np.array(got.image).astype(int) - np.array(image)).mean() < 8


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", FailureKind.EMPTY_FILE),
        (b"GIF89a", FailureKind.NOT_AN_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", FailureKind.NOT_AN_IMAGE),
        (b"P6\n100 100\n255\nfew", FailureKind.TRUNCATED),
    ],
)
def test_refusals(content: bytes, kind: FailureKind, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        decoder.decode_here(path)
    assert caught.value.failure.kind == kind
    assert "\n" not in str(caught.value)


def test_the_pixel_limit_counts_before_decoding(image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    image.save(path)
    decoder.decode_here(path, max_pixels=90 * 60)
    with pytest.raises(ImageError, match="--max-image-pixels") as caught:
        decoder.decode_here(path, max_pixels=90 * 60 - 1)
    assert caught.value.failure.limit == 90 * 60 - 1


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(1, 600))
def test_the_size_rule_is_torchvisions(width: int, height: int, short_side: int) -> None:
    size = resizing.network_size(width, height, short_side)
    assert size[0] * size[1] <= resizing.CAP_ASPECT * short_side**2
    assert min(size) >= 1
    if max(width, height) < resizing.CAP_ASPECT * min(width, height):
        tiny = Image.new("1", (width, height))
        assert size == functional.resize(tiny, short_side).size
    assert resizing.network_size(width, height, None) == (width, height)


@given(st.integers(1, 70000), st.integers(1, 70000), st.integers(1, 2000))
def test_the_cap_holds_for_any_strip(width: int, height: int, short_side: int) -> None:
    new_width, new_height = resizing.network_size(width, height, short_side)
    assert 1 <= new_width * new_height <= resizing.CAP_ASPECT * short_side**2
    assert (new_width >= new_height) == (width >= height) or new_width == new_height


def test_a_strip_is_capped_with_a_note() -> None:
    assert resizing.network_size(451, 300, 520) == (781, 520)
    pixels, notes = resizing.network_input(Image.new("RGB", (65500, 1)), 520)
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] * pixels.shape[1] <= 8 * 520**2
    assert "long and thin" in notes[0]
    _, notes = resizing.network_input(Image.new("RGB", (100, 300)), None)
    assert "224" in notes[0]
