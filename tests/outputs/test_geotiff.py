"""``--write geotiff``: masks with their image's georeference, as rasterio reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import SAMPLES, SMALL, Fcn, journal_of

rasterio = pytest.importorskip("rasterio", reason="rasterio reads and writes GeoTIFFs")
pytest.importorskip("tifffile", reason="tifffile writes them")

CAT = np.array(Image.open(SAMPLES / "chelsea.png").convert("RGB"))


def make(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], **how: object) -> None:
    """Write a GeoTIFF of RGB pixels by GDAL."""
    height, width = pixels.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8"} | how
    with rasterio.open(path, "w", **options) as file:
        file.write(np.moveaxis(pixels, 2, 0))


TRANSFORM = rasterio.Affine(0.25, 0, 389000.5, 0, -0.25, 5819000.25)
TURNED = rasterio.Affine(0.2, 0.1, 13.4, 0.1, -0.2, 52.5)


def test_masks_lie_where_their_images_lie(fcn: Fcn, tmp_path: Path) -> None:
    make(tmp_path / "in/utm.tif", CAT, crs="EPSG:25833", transform=TRANSFORM, photometric="RGB")
    make(tmp_path / "in/sub/turned.tif", CAT, crs="EPSG:4326", transform=TURNED, photometric="RGB")
    make(tmp_path / "in/plain.tif", CAT, photometric="RGB")
    Image.fromarray(CAT).save(tmp_path / "in/photo.png")
    fcn("segment", "in", *SMALL, "-o", "out", "--write", "masks,geotiff")
    for name in ("utm", "sub/turned", "plain", "photo"):
        mask = np.array(Image.open(tmp_path / f"out/masks/{name}.png"))
        with rasterio.open(tmp_path / f"out/geotiff/{name}.tif") as written:
            assert (written.count, written.dtypes, written.nodata) == (1, ("uint8",), 255)
            assert np.array_equal(written.read(1), mask)
            suffix = "png" if name == "photo" else "tif"
            with rasterio.open(tmp_path / f"in/{name}.{suffix}") as image:
                assert (written.crs, written.transform) == (image.crs, image.transform)
    assert "no problem" in fcn("verify", "out").stderr
    assert "nothing to do" in fcn("segment", "in", *SMALL, "-o", "out", "--write", "masks,geotiff").stderr
    listed = fcn("list", "out", "--outputs", "geotiff").stdout.splitlines()
    assert len(listed) == 4
    assert all(Path(path).is_file() for path in listed)
    fcn("export", "out", "--format", "geotiff", "-o", "cats", "--map", "cat=1,*=0")
    for name in ("utm", "sub/turned"):
        mask = np.array(Image.open(tmp_path / f"out/masks/{name}.png"))
        with rasterio.open(tmp_path / f"cats/{name}.tif") as written:
            assert np.array_equal(written.read(1), mask == 8)
            with rasterio.open(tmp_path / f"in/{name}.tif") as image:
                assert (written.crs, written.transform) == (image.crs, image.transform)
    Image.new("RGB", (5, 5)).save(tmp_path / "in/photo.png")
    done = fcn("export", "out", "--format", "geotiff", "-o", "all", code=1)
    assert "not exported: photo.png: its image has changed since it was segmented" in done.stderr


def test_it_is_added_without_the_network_and_tiled_where_it_is_large(fcn: Fcn, tmp_path: Path) -> None:
    large = CAT.repeat(5, 0).repeat(5, 1)
    make(tmp_path / "large.tif", large, crs="EPSG:3857", transform=TRANSFORM, photometric="RGB")
    fcn("segment", "large.tif", *SMALL, "-o", "out")
    before = journal_of(tmp_path / "out")["large.tif"]["finished"]
    fcn("segment", "large.tif", *SMALL, "-o", "out", "--write", "masks,color,geotiff", "--device", "cpu")
    after = journal_of(tmp_path / "out")["large.tif"]
    assert (after["status"], "geotiff/large.tif" in after["outputs"]) == ("ok", True)
    assert before
    with rasterio.open(tmp_path / "out/geotiff/large.tif") as written:
        assert written.block_shapes == [(256, 256)]
        assert written.compression.name == "deflate"
        assert written.crs == rasterio.crs.CRS.from_epsg(3857)
        mask = np.array(Image.open(tmp_path / "out/masks/large.png"))
        assert np.array_equal(written.read(1), mask)


def test_a_turned_georeference_and_one_file_are_refused(fcn: Fcn, tmp_path: Path) -> None:
    make(tmp_path / "turned.tif", CAT, crs="EPSG:25833", transform=TRANSFORM, photometric="RGB")
    data = bytearray((tmp_path / "turned.tif").read_bytes())
    # GDAL writes no orientation: the tag of the planar configuration, which is chunky anyway, becomes one.
    place = data.index((284).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[place : place + 2] = (274).to_bytes(2, "little")
    data[place + 8 : place + 10] = (6).to_bytes(2, "little")
    (tmp_path / "turned.tif").write_bytes(data)
    done = fcn("segment", "turned.tif", *SMALL, "-o", "out", "--write", "geotiff", code=1)
    assert "its EXIF orientation turns it, but not its georeference" in done.stderr
    one = fcn("segment", "turned.tif", *SMALL, "-o", "x.png", "--write", "geotiff", code=2)
    assert "geotiff cannot be written as one PNG; give an output directory" in one.stderr


def test_without_its_library_it_says_what_to_install(
    fcn: Fcn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    done = fcn("segment", SAMPLES / "chelsea.png", *SMALL, "-o", "out", "--write", "geotiff", code=2)
    assert "pip install 'fcn-cli[geotiff]'" in done.stderr
    assert not (tmp_path / "out").exists()
