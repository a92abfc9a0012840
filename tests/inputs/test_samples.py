"""Samples of any depth and type: shifted, scaled or stretched as expected, and refused by name."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn_cli import Segmenter
from fcn_cli.common.errors import FailureKind, ImageError, RequestError
from fcn_cli.inputs import decoder, tiff_strips
from fcn_cli.inputs.samples import BY_THE_FILE, Rendering

from ..conftest import SAMPLES, SMALL, Fcn, journal_of
from ..fuzz import chunk
from ..tiff_files import Tag, no_data, tiff, with_image_after

Pixels = NDArray[np.uint8]
STRETCHED = Rendering(stretch=True)


@pytest.fixture(scope="module")
def grey() -> Pixels:
    with Image.open(SAMPLES / "chelsea.png") as opened:
        return np.asarray(opened.convert("L").resize((70, 45)))


@pytest.fixture(scope="module")
def color() -> Pixels:
    with Image.open(SAMPLES / "chelsea.png") as opened:
        return np.asarray(opened.convert("RGB").resize((70, 45)))


def rgb_of(values: NDArray[Any]) -> Pixels:
    """Return one band of 8-bit values as RGB."""
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)


def read(data: bytes, rendering: Rendering = BY_THE_FILE) -> tuple[Pixels, tuple[str, ...]]:
    image, notes = decoder.from_bytes(data, rendering)[:2]
    return np.asarray(image), notes


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decoder.from_bytes(data)
    assert caught.value.failure.kind == FailureKind.NOT_AN_IMAGE
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png(samples: NDArray[Any], color_type: int, extra: bytes = b"") -> bytes:
    """Return a PNG of 16-bit samples."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"order": ">", "rows": 7},
    {"deflate": True, "tile": (16, 32)},
    {"deflate": True, "predictor": 2, "rows": 11, "order": ">"},
    {"planar": 2, "deflate": True, "tile": (32, 16)},
    {"planar": 2, "rows": 7},
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_16_bits_in_any_layout(layout: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    for bands, extra, photometric in ((1, (), 1), (1, (), 0), (3, (), 2), (4, (0,), 2), (4, (2,), 2)):
        samples = random.integers(0, 65536, (45, 70, bands), dtype=np.uint16)
        expected = (samples >> 8).astype(np.uint8)
        if photometric == 0:
            expected = 255 - expected
        if extra == (2,):
            opaque = Image.new("RGB", (70, 45), "white")
            opaque.paste(Image.fromarray(expected), mask=Image.fromarray(expected[..., 3]))
            expected = np.asarray(opaque)
        got, _ = read(tiff(samples, photometric, extra=extra, **layout))
        want = np.repeat(expected, 3, axis=2) if bands == 1 else expected[..., :3]
        assert np.array_equal(got, want), (bands, extra, photometric)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float32])
@pytest.mark.parametrize("deflate", [False, True])
def test_min_is_white_is_no_negative(dtype: type[Any], deflate: bool, grey: Pixels) -> None:
    largest = 255 if dtype is np.uint8 else 65535 if dtype is np.uint16 else 20000
    samples = (largest - np.round(grey.astype(float) / 255 * largest)).astype(dtype)
    got, _ = read(tiff(samples, 0, deflate=deflate))
    low, high = grey.min(), grey.max()
    scaled = (grey.astype(float) - low) / (high - low) * 255
    expected = rgb_of(grey) if dtype in {np.uint8, np.uint16} else rgb_of(scaled)
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_min_is_white_of_a_large_tiff(grey: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_strips, "LARGE_PIXELS", 1)
    bits = np.packbits(grey < 128, axis=1)
    one_bit: list[Tag] = [(256, 4, [70]), (258, 3, [1])]
    for data, expected in (
        (tiff(255 - grey, 0, deflate=True, rows=7), rgb_of(grey)),
        (tiff(65535 - grey * np.uint16(257), 0, tile=(16, 16)), rgb_of(grey)),
        (tiff(bits, 0, rows=5, tags=one_bit), rgb_of(np.where(grey < 128, 0, 255))),
    ):
        (tmp_path / "x.tif").write_bytes(data)
        made = decoder.decode_with(
            tmp_path / "x.tif",
            1 << 20,
            lambda image, _: (
                np.asarray(image)
                if isinstance(image, Image.Image)
                else np.concatenate([np.asarray(part) for part in image.rows()])
            ),
        )
        assert np.array_equal(made.image, expected)


def test_transparent_colours_of_16_bits(color: Pixels) -> None:
    """Samples that differ from the transparent colour in their lower 8 bits are not transparent."""
    random = np.random.default_rng(0)
    deep = (color.astype(np.uint16) << 8) + random.integers(0, 256, color.shape, dtype=np.uint16)
    deep[3, 4], deep[5, 6] = (1000, 2000, 3000), (1000, 2000, 3001)
    expected = (deep >> 8).astype(np.uint8)
    expected[3, 4] = 255
    data = png(deep, 2, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    assert np.array_equal(read(data)[0], expected)
    assert np.array_equal(read(data, Rendering(alpha="ignore"))[0], deep >> 8)
    one = deep[..., 0]
    one[0, 0], one[0, 1] = 4660, 4661
    expected = (one >> 8).astype(np.uint8)
    expected[one == 4660] = 255
    data = png(one, 0, chunk(b"tRNS", struct.pack(">H", 4660)))
    assert np.array_equal(read(data)[0], rgb_of(expected))


def test_12_bits_in_16_are_dark_with_a_note(grey: Pixels, color: Pixels) -> None:
    deep, deep_color = grey * np.uint16(16), color * np.uint16(16)
    deep[0, 0], deep_color[0, 0] = 4095, 4095
    note = "dark: samples only reach 4095 of 65535; --stretch brightens them"
    for data, samples in (
        (png(deep, 0), deep),
        (tiff(deep), deep),
        (png(deep_color, 2), deep_color),
        (tiff(deep_color, 2), deep_color),
        (tiff(deep_color, 2, planar=2, order=">"), deep_color),
    ):
        got, notes = read(data)
        assert notes == (note,)
        assert np.array_equal(got, rgb_of(samples >> 8) if samples.ndim == 2 else samples >> 8)
        low, high = np.percentile(samples, (2, 98))
        expected = np.clip((samples - low) / (high - low), 0, 1) * 255
        got, notes = read(data, STRETCHED)
        assert np.abs(got - (expected if samples.ndim == 3 else expected[..., None])).max() <= 0.51
        assert notes == (f"16-bit samples scaled from {low:g}..{high:g}, their percentiles 2 and 98",)
    bright = np.full((9, 9), 40000, np.uint16)
    assert read(tiff(bright))[1] == read(png(bright, 0))[1] == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_what_says_that_it_has_fewer_bits_is_not_dark(bits: int, grey: Pixels) -> None:
    samples = grey.astype(np.uint16) << (bits - 8)
    ones = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(ones.reshape(45, -1).astype(np.uint8), axis=1)
    data = tiff(packed, tags=[(256, 4, [70]), (258, 3, [bits])])
    pixels, notes = read(data)
    assert np.array_equal(pixels, rgb_of(grey))
    assert notes == ()


def test_8_bits_are_never_stretched(color: Pixels) -> None:
    assert np.array_equal(read(tiff(color, 2), STRETCHED)[0], color)


@pytest.mark.parametrize(
    ("missing", "tags", "said"),
    [
        (-9999, [], "5 of -9999 taken as no data"),
        (-9999, [no_data("-9999")], "5 of -9999 taken as no data"),
        (1234.5, [no_data(" 1234.5 ")], "5 of 1234.5 taken as no data"),
        (np.finfo(np.float32).min, [], "5 of -3.40282e+38 taken as no data"),
        (np.nan, [no_data("nan")], "5 that are not finite taken as black"),
        (np.inf, [], "5 that are not finite taken as black"),
    ],
)
def test_what_is_no_data_scales_nothing(missing: float, tags: list[Tag], said: str, grey: Pixels) -> None:
    samples = grey.astype(np.float32) * 3 + 100
    samples[2, :5] = missing
    valid = np.ones(samples.shape, bool)
    valid[2, :5] = False
    for dtype, rendering in itertools.product((np.float32, np.float64), (Rendering(), STRETCHED)):
        known = samples[valid].astype(float)
        low, high = np.percentile(known, (2, 98)) if rendering.stretch else (known.min(), known.max())
        expected = np.where(valid, np.clip((samples - low) / (high - low), 0, 1) * 255, 0)
        if missing == np.finfo(np.float32).min and dtype is np.float64:
            continue
        got, notes = read(tiff(samples.astype(dtype), tags=tags), rendering)
        assert np.abs(got[..., 0] - expected).max() <= 0.51
        assert notes[0].startswith(
            f"{np.dtype(dtype).itemsize * 8}-bit float samples scaled from {low:g}..{high:g}"
        )
        assert notes[0].endswith(said)


def test_a_value_among_the_others_is_data(grey: Pixels) -> None:
    samples = grey.astype(np.float32) * 200 - 20000
    samples[0, 0] = -9999
    got, notes = read(tiff(samples))
    low, high = samples.min(), samples.max()
    assert np.abs(got[..., 0] - (samples - low) / (high - low) * 255).max() <= 0.51
    assert "no data" not in notes[0]
    assert not read(tiff(np.full((5, 5), -9999, np.float32)))[0].any()


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.uint32, np.int16, np.int32, np.uint64, np.int64]
)
def test_samples_of_any_type(dtype: type[Any], color: Pixels) -> None:
    samples = color.astype(dtype)
    low, high = int(color.min()), int(color.max())
    expected = (color.astype(float) - low) / (high - low) * 255
    layouts = [*LAYOUTS, {"deflate": True, "predictor": 3}, {"deflate": True, "predictor": 3, "order": ">"}]
    for layout in layouts if np.dtype(dtype).kind == "f" else LAYOUTS:
        got, notes = read(tiff(samples, 2, **layout))
        assert np.abs(got - expected).max() <= 0.51
        assert notes[0].endswith(f"samples scaled from {low}..{high}")
    got, notes = read(tiff(samples[..., 0]))
    one = color[..., 0].astype(float)
    assert np.abs(got[..., 0] - (one - one.min()) / (one.max() - one.min()) * 255).max() <= 0.51


def test_three_bands_that_nobody_calls_rgb(color: Pixels) -> None:
    four = np.dstack([color, 255 - color[..., 0]])
    for samples in (four, four.astype(np.uint16) * 257):
        got, notes = read(tiff(samples, 1, extra=(0, 0, 0)))
        assert np.array_equal(got, color)
        assert notes == ("bands 1 to 3 of 4 taken as red, green and blue",)


def test_samples_that_are_not_read_are_named(color: Pixels) -> None:
    complex_samples = color[..., 0].astype(np.complex64)
    assert "1 complex sample of 64 bits a pixel" in refusal(tiff(complex_samples))
    many = np.repeat(color[..., :1], 13, axis=2).astype(np.uint16)
    assert "13 unsigned samples of 16 bits a pixel" in refusal(tiff(many, 1, extra=(0,) * 12))
    assert "convert it" in refusal(tiff(color[..., 0], 1, tags=[(259, 3, [34887])]))


def test_a_fourth_band_that_is_no_alpha(color: Pixels) -> None:
    infrared = np.clip(color[..., 1].astype(int) // 2 + 60, 1, 254).astype(np.uint8)
    four = np.dstack([color, infrared])
    white = Image.new("RGB", (70, 45), "white")
    white.paste(Image.fromarray(color), mask=Image.fromarray(infrared))
    on_white = np.asarray(white)
    doubt = ("more than half of its alpha is between 0 and 255: if it is not alpha, use --alpha ignore",)
    stream = io.BytesIO()
    Image.fromarray(four).save(stream, "PNG")
    deep = four.astype(np.uint16) * 257
    for data, by_the_file, notes in (
        (tiff(four, 2, extra=(2,)), on_white, doubt),
        (tiff(four, 2, extra=(0,)), color, ()),
        (tiff(deep, 2, extra=(2,), deflate=True), on_white, doubt),
        (tiff(deep, 2, extra=(0,)), color, ()),
        (stream.getvalue(), on_white, doubt),
        (png(deep, 6), on_white, doubt),
    ):
        assert np.array_equal(read(data)[0], by_the_file)
        assert read(data)[1] == notes
        assert np.array_equal(read(data, Rendering(alpha="use"))[0], on_white)
        ignored = read(data, Rendering(alpha="ignore"))
        assert np.array_equal(ignored[0], color)
        assert ignored[1] == ()
    # Pillow would divide the colours by it.
    assert np.array_equal(read(tiff(four, 2, extra=(1,)), Rendering(alpha="ignore"))[0], color)
    clear = np.dstack([color, np.zeros_like(infrared)])
    pixels, (note,) = read(tiff(clear, 2, extra=(2,)))
    assert (pixels == 255).all()
    assert note.startswith("fully transparent")


def test_the_full_image_and_not_a_reduced_one(color: Pixels) -> None:
    small = color[::3, ::3]
    reduced: list[Tag] = [(254, 4, [1])]
    old: list[Tag] = [(255, 3, [2])]
    for tags, below in itertools.product((reduced, old), (False, True)):
        data = with_image_after(tiff(small, 2, tags=tags), tiff(color, 2, deflate=True), below=below)
        pixels, notes = read(data)
        assert np.array_equal(pixels, color)
        assert notes == (f"the full image; the first in the file is a reduced one ({small.shape[1]}x15)",)
    # A full image first, and reduced ones after it, is what everybody writes.
    data = with_image_after(tiff(color, 2), tiff(small, 2, tags=reduced), below=False)
    assert np.array_equal(read(data)[0], color)
    assert read(data)[1] == ("first of 2 frames",)
    assert "only a reduced image (24x15)" in refusal(tiff(small, 2, tags=reduced))


def test_raw_files_of_cameras_are_named(color: Pixels) -> None:
    thumbnail = color[::3, ::3]
    mosaic: list[Tag] = [(262, 3, [32803])]
    reduced: list[Tag] = [(254, 4, [1])]

    def made_by(maker: str, *tags: Tag) -> bytes:
        first = tiff(thumbnail, 2, tags=[*reduced, (271, 2, maker), *tags])
        return with_image_after(first, tiff(color[..., 0].astype(np.uint16), tags=mosaic), below=True)

    for name, data in (
        ("NEF", made_by("NIKON CORPORATION")),
        ("ARW", made_by("SONY")),
        ("PEF", made_by("RICOH IMAGING COMPANY, LTD.")),
        ("DNG", made_by("Apple", (50706, 4, [0x0401]))),
        ("RAW", made_by("Somebody")),
        ("RAW", tiff(color[..., 0].astype(np.uint16), tags=mosaic)),
    ):
        assert f"a camera's RAW file ({name})" in refusal(data)
    canon = tiff(np.frombuffer(b"CR\2\0", np.uint8).reshape(1, 4))
    assert "RAW file (CR2)" in refusal(canon)
    assert "RAW file (CR3)" in refusal(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(90))
    assert "RAW file (RAF)" in refusal(b"FUJIFILMCCD-RAW 0201" + bytes(90))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\x0a\xfa\x7f" + bytes(50), "JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "djxl"),
        (b"II\xbc\x01" + bytes(50), "JPEG XR image"),
        (b"v/1\x01" + bytes(50), "OpenEXR image"),
        (b"%PDF-1.7\n" + bytes(50), "pdftoppm"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG drawing"),
        (b"<!DOCTYPE html>\n<html><title>404</title>", "a web page (HTML), not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (bytes(5000), "nothing but zero bytes"),
        (b"PK\x03\x04" + bytes(50), "ZIP archive"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM"),
        (b"\0\0\0\x20ftypisom" + bytes(50), "a video"),
    ],
)
def test_other_formats_are_named_with_the_way_out(data: bytes, said: str) -> None:
    assert said in refusal(data)


def test_a_jpeg_of_12_bits_is_named(color: Pixels) -> None:
    stream = io.BytesIO()
    Image.fromarray(color).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4] = 0xC1, 12
    assert "a JPEG of 12 bits a sample" in refusal(bytes(data))


def test_damaged_tiffs_fail_by_name(color: Pixels) -> None:
    deep = color.astype(np.float32)
    for data in (
        tiff(deep, 2)[:-40],
        tiff(deep, 2, tags=[(273, 4, [1 << 30])]),
        tiff(deep, 2, tags=[(277, 3, [0])]),
        tiff(deep, 2, tags=[(278, 4, [0])]),
        tiff(deep, 2, tile=(16, 16), tags=[(322, 4, [0])]),
        tiff(deep, 2, deflate=True, tags=[(317, 3, [2]), (257, 4, [90])]),
    ):
        with pytest.raises(ImageError) as caught:
            read(data)
        assert "\n" not in str(caught.value)
    # Directories of other images that are not there do not matter.
    assert np.array_equal(read(tiff(color, 2, tags=[(330, 4, [8, 8, 1 << 31])]))[0], color)


def test_stretch_and_alpha_through_the_command(fcn: Fcn, color: Pixels, tmp_path: Path) -> None:
    """Masks are those of the image made by hand; the options are part of the settings only where given."""
    (tmp_path / "in").mkdir()
    deep = color.astype(np.uint16) * 16
    (tmp_path / "in/deep.tif").write_bytes(tiff(deep, 2, deflate=True))
    infrared = np.full(color.shape[:2], 90, np.uint8)
    (tmp_path / "in/four.tif").write_bytes(tiff(np.dstack([color, infrared]), 2, extra=(2,)))
    low, high = np.percentile(deep, (2, 98))
    by_hand = np.rint(np.clip((deep - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    (tmp_path / "expected").mkdir()
    Image.fromarray(by_hand).save(tmp_path / "expected/deep.png")
    Image.fromarray(color).save(tmp_path / "expected/four.png")
    kinds = ("--write", "masks,overlay")
    fcn("segment", "in", *SMALL, "-o", "plain", *kinds)
    # The fingerprint of a run without the new options is what 0.2 made of these settings.
    settings = json.loads((tmp_path / "plain/settings.json").read_text())
    old = "backbone weights resize precision kernels class_names min_confidence tile overlap scales flip"
    assert list(settings["labels"]) == old.split()
    hashed = hashlib.sha256(json.dumps(settings["labels"], sort_keys=True).encode()).hexdigest()
    assert settings["fingerprint"] == hashed[:16]
    options = ("--stretch", "--alpha", "ignore")
    fcn("segment", "in", *SMALL, *options, "-o", "out", *kinds)
    fcn("segment", "expected", *SMALL, "-o", "want", *kinds)
    for name in ("masks/deep.png", "masks/four.png", "overlay/four.jpg", "overlay/deep.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "want" / name).read_bytes(), name
    labels = json.loads((tmp_path / "out/settings.json").read_text())["labels"]
    assert (labels["stretch"], labels["alpha"]) == (True, "ignore")
    assert "dark: samples only reach" in journal_of(tmp_path / "plain")["deep.tif"]["notes"][0]
    assert "nothing to do" in fcn("segment", "in", *SMALL, "-o", "plain", *kinds).stderr
    for given, said in ((options, "--stretch: off before, on now"), ((), "")):
        refused = fcn("segment", "in", *SMALL, *given, "-o", "plain" if given else "out", code=2).stderr
        assert said in refused
    assert "--stretch: on before, off now" in refused
    assert "--alpha: ignore before, not given now" in refused
    mask = fcn("segment", "in/deep.tif", *SMALL, *options, "-o", "-", code=None)
    assert mask.code == 0
    network = Segmenter("efficientnet_lite0", resize=64, stretch=True, alpha="ignore")
    want = np.asarray(Image.open(tmp_path / "want/masks/deep.png"))
    assert np.array_equal(network(tmp_path / "in/deep.tif").labels, want)
    assert np.array_equal(next(network.batch([(tmp_path / "in/deep.tif").read_bytes()])).labels, want)
    with pytest.raises(RequestError, match="alpha"):
        Segmenter("efficientnet_lite0", alpha="perhaps")


@pytest.mark.long
def test_reports_and_exports_show_what_the_network_saw(fcn: Fcn, color: Pixels, tmp_path: Path) -> None:
    deep = color * np.uint16(4)
    (tmp_path / "made").mkdir()
    (tmp_path / "made/deep.png").write_bytes(png(deep, 2))
    fcn("segment", "made", *SMALL, "-o", "out", "--stretch", "--report")
    fcn("export", "out", "--format", "voc", "-o", "voc")
    low, high = np.percentile(deep, (2, 98))
    expected = np.clip((deep - low) / (high - low), 0, 1) * 255
    pictures = [*(tmp_path / "out/report/images").rglob("*.jpg"), *(tmp_path / "voc").rglob("*.jpg")]
    assert len(pictures) >= 2
    for path in pictures:
        with Image.open(path) as opened:
            shown = np.asarray(opened.convert("RGB").resize((70, 45)), np.float64)
        assert abs(shown.mean() - expected.mean()) < 6
