"""Large images: decoded some rows at a time, passed on in files, few at once; masks of any size."""

from __future__ import annotations

import io
import itertools
import struct
import tempfile
import zlib
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn_cli.common.errors import FailureKind
from fcn_cli.common.label_map import read_label_map
from fcn_cli.inputs import decode_pool, shared_pixels, tiff_strips
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.decode_pool import DecodePool
from fcn_cli.inputs.decoder import DecodeSettings, decode_source
from fcn_cli.inputs.discovery import InputRequest, Source, discover
from fcn_cli.inputs.tiff_strips import TiffStrips

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages


@pytest.fixture
def sample() -> Image.Image:
    with Image.open(SAMPLES / "astronaut.png") as opened:
        return opened.convert("RGB").resize((301, 277))


@pytest.fixture
def _every_tiff_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_strips, "LARGE_PIXELS", 1)
    monkeypatch.setattr(tiff_strips, "_PART_PIXELS", 20_000)


def tiled(image: Image.Image, width: int, length: int) -> bytes:
    """Return a TIFF of compressed tiles, which Pillow reads and cannot write."""
    pixels = np.asarray(image)
    down, across = -(-image.height // length), -(-image.width // width)
    padded = np.pad(
        pixels, ((0, down * length - image.height), (0, across * width - image.width), (0, 0)), mode="edge"
    )
    tiles = [
        zlib.compress(padded[y * length : (y + 1) * length, x * width : (x + 1) * width].tobytes())
        for y in range(down)
        for x in range(across)
    ]
    data, offsets = b"", []
    for tile in tiles:
        offsets.append(8 + len(data))
        data += tile
    after = 8 + len(data)
    arrays = struct.pack("<3H", 8, 8, 8)
    arrays += struct.pack(f"<{2 * len(tiles)}I", *offsets, *map(len, tiles))
    entries = [
        (256, 4, 1, image.width),
        (257, 4, 1, image.height),
        (258, 3, 3, after),
        (259, 3, 1, 8),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (322, 4, 1, width),
        (323, 4, 1, length),
        (324, 4, len(tiles), after + 6),
        (325, 4, len(tiles), after + 6 + 4 * len(tiles)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", after + len(arrays)) + data + arrays + directory + bytes(4)


def encoded(image: Image.Image, compression: str) -> bytes:
    if compression == "tiles":
        return tiled(image, 64, 48)
    stream = io.BytesIO()
    image.save(stream, "TIFF", compression=None if compression == "none" else compression)
    return stream.getvalue()


@pytest.mark.usefixtures("_every_tiff_is_large")
@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *itertools.product(["RGB", "P", "I;16"], ["none", "tiff_lzw", "tiff_adobe_deflate", "packbits"]),
        *itertools.product(["RGBA", "L", "CMYK"], ["none", "tiff_adobe_deflate", "jpeg"]),
        *itertools.product(["RGB"], ["jpeg", "tiles"]),
    ],
)
def test_rows_of_a_large_tiff_are_pillows_pixels(
    tmp_path: Path, sample: Image.Image, mode: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = (
        sample.convert(mode)
        if mode != "I;16"
        else Image.fromarray(np.asarray(sample)[..., 0] * np.uint16(251))
    )
    path = tmp_path / "photo.tif"
    path.write_bytes(encoded(image, compression))
    with Image.open(path) as opened:
        strips = TiffStrips.of(opened)
        assert strips is not None
        assert len(list(strips.rows())) > 1
    source = Source("photo.tif", str(path), "photo.tif", "photo.png", None, None)
    for settings in (
        DecodeSettings(DecodeOptions(None)),
        DecodeSettings(DecodeOptions(100)),
        DecodeSettings(DecodeOptions(100, scales=(0.5, 1.0))),
    ):
        got = decode_source(source, settings)
        with monkeypatch.context() as patch:
            patch.setattr(tiff_strips, "LARGE_PIXELS", 1 << 30)
            want = decode_source(source, settings)
        assert got.failure is None
        assert got.pixels is not None
        assert want.pixels is not None
        assert np.array_equal(got.pixels, want.pixels)
        assert [part.shape for part in got.smaller] == [part.shape for part in want.smaller]
        assert all(map(np.array_equal, got.smaller, want.smaller))
        assert (got.width, got.height, got.notes) == (want.width, want.height, want.notes)


@pytest.mark.usefixtures("_every_tiff_is_large")
@pytest.mark.parametrize("compression", ["none", "tiff_adobe_deflate"])
def test_a_large_tiff_that_is_cut_off_fails_by_name(
    tmp_path: Path, sample: Image.Image, compression: str
) -> None:
    path = tmp_path / "photo.tif"
    data = bytearray(encoded(sample, compression))
    with Image.open(io.BytesIO(data)) as opened:
        last = opened.tag_v2[273][-1]  # type: ignore[attr-defined]
    # Its directory is kept, and says that the last strip begins where the file ends.
    place = data.rindex(struct.pack("<I", last))
    data[place : place + 4] = struct.pack("<I", len(data) - 4)
    path.write_bytes(data)
    failure = decode_source(
        Source("photo.tif", str(path), "", "", None, None), DecodeSettings(DecodeOptions(None))
    ).failure
    assert failure is not None
    assert failure.kind in {FailureKind.TRUNCATED, FailureKind.BROKEN}


@pytest.mark.long
@pytest.mark.parametrize("way", ["memory", "files"])
def test_pixels_that_are_not_sent_give_the_same_masks_and_leave_nothing(
    fcn: Fcn, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (images / "grace_hopper.jpg").unlink()
    (images / "chelsea.png").unlink()
    monkeypatch.setattr(shared_pixels, "SHARED_BYTES", 1 << 40)
    fcn("segment", images, *SMALL, "--scales", "1,1.5", "-o", "plain")
    monkeypatch.setattr(shared_pixels, "SHARED_BYTES", 1)
    if way == "files":
        monkeypatch.setattr(shared_pixels, "LARGE_BYTES", 1)
    monkeypatch.setattr(decode_pool, "LARGE_BYTES", 1)
    # One image at a time: each of them is more.
    monkeypatch.setattr(shared_pixels, "MAX_BYTES", 1)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    fcn("segment", images, *SMALL, "--scales", "1,1.5", "-j", "2", "-o", "other")
    for mask in (tmp_path / "plain/masks").iterdir():
        assert mask.read_bytes() == (tmp_path / "other/masks" / mask.name).read_bytes()
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.long
@pytest.mark.parametrize("max_bytes", [1, 1 << 40])
def test_images_sent_together_may_all_be_large(
    make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    folder = make_images([f"p{i:02}.png" for i in range(48)])
    monkeypatch.setattr(shared_pixels, "SHARED_BYTES", 1)
    monkeypatch.setattr(decode_pool, "LARGE_BYTES", 1)
    monkeypatch.setattr(shared_pixels, "MAX_BYTES", max_bytes)
    # Room for fewer than wait for the network.
    monkeypatch.setattr(shared_pixels, "MOST_SHARED_BYTES", 2 * 5 * 64 << 10)
    sources = discover(InputRequest([str(folder)])).sources
    settings = DecodeSettings(DecodeOptions(40))
    held: deque[tuple[Source, NDArray[np.uint8]]] = deque(maxlen=30)
    with DecodePool(sources, settings, 2) as pool:
        for image in filter(None, pool):
            assert image.pixels is not None
            held.append((image.source, image.pixels))
            for source, pixels in held:
                assert np.array_equal(pixels, expected_pixels(source, settings))
    assert [source for source, _ in held] == sources[-30:]


@cache
def expected_pixels(source: Source, settings: DecodeSettings) -> NDArray[np.uint8]:
    pixels = decode_source(source, settings).pixels
    assert pixels is not None
    return pixels


def test_a_mask_is_read_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(300, dtype=np.uint8).reshape(20, 15) % 21
    Image.fromarray(labels).save(tmp_path / "mask.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "mask.png")
    assert np.array_equal(read_label_map(tmp_path / "mask.png"), labels)
