"""Pixels that hold GDAL's value for no data are void in all that is written, by rasterio's own masks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn_cli import Segmenter
from fcn_cli.inputs import decoder, tiff_strips
from fcn_cli.inputs.no_data import NoData

from ..conftest import SAMPLES, SMALL, Fcn, journal_of
from ..tiff_files import no_data, tiff

rasterio = pytest.importorskip(
    "rasterio", reason="rasterio writes GeoTIFFs, and says where they have no data"
)
pytest.importorskip("tifffile", reason="tifffile writes masks as GeoTIFF")

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

Mask = NDArray[np.bool_]


def make(path: Path, bands: NDArray[Any], no_data: float, **how: object) -> Mask:
    """Write a GeoTIFF of bands, and return where GDAL sees no data."""
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", dtype=bands.dtype, nodata=no_data, **shape, **how) as file:
        file.write(bands)
    with rasterio.open(path) as file:
        # Of four bands rasterio takes the last one's mask for all, gdalwarp those of all bands.
        return np.asarray(~file.read_masks().any(0) if count == 4 else file.dataset_mask() == 0)


def mask_of(found: NoData | None) -> Mask:
    assert found is not None
    return np.concatenate([mask for _, mask in found.masks()])


def cat_with_holes() -> NDArray[np.uint8]:
    """Return the cat with a black frame, a speck, and pixels that are black in two bands only."""
    cat = np.moveaxis(np.array(Image.open(SAMPLES / "chelsea.png").convert("RGB")), 2, 0).clip(1)
    cat[:, :40], cat[:, :, 400:], cat[:, 150, 200], cat[:2, 180:200, 100:200] = 0, 0, 0, 0
    return cat


RANDOM = np.random.default_rng(1)
FEW = {
    dtype: RANDOM.integers(0, 2, (4, 57, 83)).astype(dtype)
    for dtype in ("uint8", "uint16", "int16", "float32")
}
FLOATS = FEW["float32"][:1] * 100
FLOATS[0, :3], FLOATS[0, 3], FLOATS[0, 4], FLOATS[0, 5] = -9999.0005, np.nan, -9999, np.inf
# GDAL does not write blocks that are all no data.
SPARSE = np.where(np.arange(57)[:, None] < 34, 0, FEW["uint8"][:3] + 1)
TILES = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "zstd", "photometric": "RGB"}


@pytest.mark.parametrize(
    ("bands", "no_data", "how"),
    [
        *(
            (FEW["uint8"][:3], 0, {"photometric": "RGB", **how})
            for how in ({}, {"interleave": "band"}, TILES)
        ),
        (FEW["uint8"][:3], 0, {"compress": "jpeg", "photometric": "YCBCR"}),
        (FEW["uint8"], 0, {"photometric": "RGB", "compress": "lzw", "predictor": 2}),
        pytest.param(
            *(FEW["uint8"], 0, {"photometric": "CMYK"}),
            marks=pytest.mark.filterwarnings("ignore::rasterio.errors.NodataShadowWarning"),
        ),
        (FEW["uint8"][:2], 0, {}),
        (FEW["uint8"][:1], 1, {"photometric": "MINISWHITE"}),
        (FEW["uint8"][:1], 1, {"photometric": "PALETTE"}),
        *(
            (FEW["uint8"][:1] * most, value, {"nbits": bits, "photometric": how})
            for bits, most in ((1, 1), (2, 3), (4, 7))
            for how in ("MINISBLACK", "MINISWHITE", "PALETTE")
            for value in (0, most, 17)
        ),
        (FEW["uint16"][:1], 1, {"nbits": 12}),
        (FEW["uint16"][:3], 0, {"photometric": "RGB"}),
        (FEW["int16"][:3] - 2, -2, {"photometric": "RGB"}),
        (FLOATS, -9999, {}),
        (FLOATS, np.nan, {}),
        (FLOATS.astype(np.float64), -9999, {"compress": "deflate", "predictor": 3}),
        (FEW["uint8"][:1], 7, {}),
        (SPARSE, 0, {"photometric": "RGB", "sparse_ok": True, "blockysize": 8}),
        (SPARSE, 0, {**TILES, "sparse_ok": True}),
        (SPARSE.astype(np.uint16)[:1] + 700, 700, {**TILES, "sparse_ok": True, "photometric": "MINISBLACK"}),
    ],
)
def test_what_holds_no_data_is_what_gdal_says(
    bands: NDArray[Any], no_data: float, how: dict[str, object], tmp_path: Path
) -> None:
    missing = make(tmp_path / "x.tif", bands, no_data, **how)
    decoded = decoder.decode_here(tmp_path / "x.tif")
    if bands.dtype == np.uint8 and len(bands) == 3 and how.get("compress") != "jpeg":
        assert np.array_equal(np.moveaxis(np.asarray(decoded.image), 2, 0), bands)
    assert (decoded.no_data is not None) == missing.any()
    if decoded.no_data is not None:
        assert np.array_equal(mask_of(decoded.no_data), missing)
        assert f"{missing.sum()} pixels without data, set to 255" in decoded.notes


@pytest.mark.parametrize(
    ("value", "dtype", "missing"),
    [
        ("18446744073709551615", "uint64", 2**64 - 1),
        ("9007199254740993", "uint64", 2**53 + 1),
        ("1.5", "uint8", 1),
        ("-3.4028234663852886e+38", "float16", None),
        ("-32768", "float16", None),
        ("abc", "uint8", None),
        ("", "uint8", None),
    ],
)
def test_values_that_samples_hardly_have(value: str, dtype: str, missing: int | None) -> None:
    samples = np.arange(60).reshape(6, 10).astype(dtype)
    samples[0] = -np.inf if dtype == "float16" else 9
    samples[2], samples[4] = (-65504, 2) if dtype == "float16" else (2**53 % 250, 3)
    if missing is not None:
        samples[3] = missing
    found = decoder.from_bytes(tiff(samples, tags=[no_data(value)])).no_data
    expected = np.zeros(samples.shape, bool) if missing is None else samples == np.array(missing, dtype)
    assert (found is None) == (not expected.any())
    assert found is None or np.array_equal(mask_of(found), expected)


@pytest.mark.parametrize("how", [{"compress": "jpeg", "photometric": "YCBCR"}, TILES])
def test_a_large_one_and_a_turned_one(
    how: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tif"
    missing = make(path, cat_with_holes(), 0, **how)
    whole = mask_of(decoder.decode_here(path).no_data)
    # Pillow and GDAL interpolate a JPEG's colours a little differently.
    assert np.mean(whole != missing) <= (0.01 if how["compress"] == "jpeg" else 0)
    data = bytearray(path.read_bytes())
    # GDAL writes no orientation: the tag of the planar configuration, which is chunky anyway, becomes one.
    place = data.index((284).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[place : place + 2], data[place + 8 : place + 10] = b"\x12\x01", b"\x06\0"
    turned = decoder.from_bytes(bytes(data)).no_data
    assert np.array_equal(mask_of(turned), np.rot90(whole, -1))
    assert turned is not None
    assert np.array_equal(mask_of(turned.turned(6, back=True)), whole)
    monkeypatch.setattr(tiff_strips, "LARGE_PIXELS", 1000)
    large = decoder.decode_with(path, 10**6, lambda image, _: image.size)
    assert np.array_equal(mask_of(large.no_data), whole)


def pixels(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path))


def test_it_is_void_in_every_output_type(fcn: Fcn, tmp_path: Path) -> None:
    missing = make(tmp_path / "in/cat.tif", cat_with_holes(), 0, photometric="RGB", compress="deflate")
    Image.fromarray(np.moveaxis(cat_with_holes(), 0, 2)).save(tmp_path / "in/same.png")
    every = "masks,color,overlay,confidence,cutout,geotiff,logits"
    fcn("segment", "in", *SMALL, "-o", "out", "--write", every, "--opacity", "1")
    out = tmp_path / "out"
    mask, same = pixels(out / "masks/cat.png"), pixels(out / "masks/same.png")
    assert np.array_equal(mask == 255, missing)
    assert np.array_equal(mask[~missing], same[~missing])
    assert np.array_equal(pixels(out / "color/cat.png"), mask)
    confidence = pixels(out / "confidence/cat.png")
    assert not confidence[missing].any()
    assert np.array_equal(confidence[~missing], pixels(out / "confidence/same.png")[~missing])
    assert not pixels(out / "cutout/cat.png")[missing].any()
    with rasterio.open(out / "geotiff/cat.tif") as written:
        assert written.nodata == 255
        assert np.array_equal(written.dataset_mask() == 0, missing)
    assert np.array_equal(np.load(out / "logits/cat.npy"), np.load(out / "logits/same.npy"))
    counted = {
        int(row["class_id"]): int(row["pixels"])
        for row in csv.DictReader((out / "stats.csv").open())
        if row["image"] == "cat.tif"
    }
    assert counted == dict(zip(*(each.tolist() for each in np.unique(mask, return_counts=True)), strict=True))
    assert f"{missing.sum()} pixels without data, set to 255" in journal_of(out)["cat.tif"]["notes"]
    assert "no problem" in fcn("verify", "out").stderr
    # What is painted again, or exported, is made of the masks.
    shown = pixels(out / "overlay/cat.jpg")
    fcn("segment", "in", *SMALL, "-o", "out", "--write", every, "--opacity", "1", "--palette", "voc")
    repainted = pixels(out / "overlay/cat.jpg")
    inside = missing.copy()
    inside[:, :420] &= False
    assert np.ptp(shown[inside].astype(int), axis=0).max() < 9
    assert np.ptp(repainted[inside].astype(int), axis=0).max() < 9
    fcn("export", "out", "--format", "masks", "-o", "twos", "--map", "*=2")
    assert np.array_equal(pixels(tmp_path / "twos/cat.png"), np.where(missing, 255, 2))
    fcn("segment", "in/cat.tif", *SMALL, "-o", "one.png", "--map", "*=2")
    assert np.array_equal(pixels(tmp_path / "one.png"), np.where(missing, 255, 2))


@pytest.mark.slow
def test_however_the_network_sees_it(fcn: Fcn, tmp_path: Path) -> None:
    missing = make(tmp_path / "cat.tif", cat_with_holes(), 0, photometric="RGB")
    how = ("--tile", "128", "--scales", "0.5,1", "--flip", "-j", "0", "--resize", "130")
    fcn("segment", "cat.tif", "--backbone", "efficientnet_lite0", *how, "-o", "out")
    assert np.array_equal(pixels(tmp_path / "out/masks/cat.png") == 255, missing)


def test_segmenter_returns_it(tmp_path: Path) -> None:
    path = tmp_path / "cat.tif"
    missing = make(path, cat_with_holes(), 0, photometric="RGB")
    segmenter = Segmenter("efficientnet_lite0", resize=64, confidence=True, map="*=3")
    for image in (path, path.read_bytes(), Image.open(path)):
        result = segmenter(image)
        assert np.array_equal(result.labels, np.where(missing, 255, 3))
        assert result.confidence is not None
        assert not result.confidence[missing].any()
    (result,) = segmenter.batch([path])
    assert [share.pixels for share in result.stats()] == [(~missing).sum(), missing.sum()]
