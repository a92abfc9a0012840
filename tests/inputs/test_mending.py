"""Defects that browsers forgive are forgiven with a note; what is missing stays a failure."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn_cli.common.errors import FailureKind, ImageError
from fcn_cli.inputs import decoder

from ..conftest import SAMPLES, SMALL, Fcn, journal_of
from ..fuzz import chunk, encoded, with_chunk


@pytest.fixture(scope="module")
def image() -> Image.Image:
    with Image.open(SAMPLES / "chelsea.png") as opened:
        return opened.convert("RGB").resize((90, 60))


def outcome(data: bytes, tmp_path: Path) -> tuple[np.ndarray | FailureKind, tuple[str, ...]]:
    path = tmp_path / "x"
    path.write_bytes(data)
    try:
        got = decoder.decode_here(path)
    except ImageError as error:
        return error.failure.kind, ()
    return np.array(got.image), got.notes


JPEGS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("RGB", {}),
    "every coefficient": ("RGB", {"quality": 100, "subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_blocks": 2}),
    "grey": ("L", {"optimize": True}),
    "progressive grey": ("L", {"progressive": True, "quality": 95}),
    "CMYK": ("CMYK", {}),
}


@pytest.mark.long
@pytest.mark.parametrize("variant", JPEGS)
def test_a_jpeg_without_its_end_has_every_pixel_or_fails(
    variant: str, image: Image.Image, tmp_path: Path
) -> None:
    mode, options = JPEGS[variant]
    _, whole = encoded(image.convert(mode), ".jpg", **options)
    expected = np.array(Image.open(io.BytesIO(whole)).convert("RGB"))
    for cut in (1, 2):
        pixels, notes = outcome(whole[:-cut], tmp_path)
        assert np.array_equal(pixels, expected)
        assert notes == ("no end-of-image marker; every pixel is there",)
    failed = 0
    for cut in (*range(3, 120), *range(120, len(whole) - 1, 97)):
        pixels, _ = outcome(whole[:-cut], tmp_path)
        if isinstance(pixels, FailureKind):
            failed += 1
        else:
            assert np.array_equal(pixels, expected), cut
    assert failed > 110


@pytest.mark.parametrize("variant", JPEGS)
@pytest.mark.parametrize(
    "filling", [bytes(4096), b"\xff" * 300, bytes(9)], ids=["zeros", "ones", "few zeros"]
)
def test_what_fills_the_place_of_pixels_is_no_pixels(
    variant: str, filling: bytes, image: Image.Image, tmp_path: Path
) -> None:
    """As an upload leaves it that was cut off in a file of the full size."""
    mode, options = JPEGS[variant]
    _, whole = encoded(image.convert(mode), ".jpg", **options)
    expected = np.array(Image.open(io.BytesIO(whole)).convert("RGB"))
    pixels, notes = outcome(whole[:-2] + filling, tmp_path)
    assert np.array_equal(pixels, expected)
    assert notes == ("no end-of-image marker; every pixel is there",)
    for cut in (30, 90, 200, len(whole) // 3):
        kind = outcome(whole[:-cut] + filling, tmp_path)[0]
        assert kind in {FailureKind.TRUNCATED, FailureKind.BROKEN}


def test_what_follows_the_end_of_a_jpeg_is_no_matter(image: Image.Image, tmp_path: Path) -> None:
    _, whole = encoded(image, ".jpg")
    expected = np.array(Image.open(io.BytesIO(whole)).convert("RGB"))
    for more in (bytes(100), b"a maker's own data", whole[:-2], whole[: len(whole) // 2] + bytes(50)):
        pixels, notes = outcome(whole + more, tmp_path)
        assert np.array_equal(pixels, expected)
        assert notes == ()


def test_a_jpeg_whose_last_scan_is_missing_fails(image: Image.Image, tmp_path: Path) -> None:
    """All that is there decodes alike whatever follows, but coarser than it was."""
    _, whole = encoded(image, ".jpg", progressive=True)
    scans = [place for place in range(len(whole)) if whole[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for place in scans[1:]:
        tables = whole.rindex(b"\xff\xc4", 0, place)
        for end in (place, tables):
            assert outcome(whole[:end], tmp_path)[0] == FailureKind.TRUNCATED


def damaged(png: bytes, kind: bytes) -> bytes:
    """Return a PNG with another checksum in a chunk."""
    place = png.index(kind) - 4
    (size,) = struct.unpack_from(">I", png, place)
    end = place + 12 + size
    return png[: end - 4] + bytes(255 - value for value in png[end - 4 : end]) + png[end:]


def big_text() -> bytes:
    return b"k\0\0" + zlib.compress(bytes(2 << 20))


@pytest.mark.parametrize(
    ("kind", "content", "is_damaged"),
    [
        (b"tEXt", b"Comment\0hello", True),
        (b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0", True),
        (b"vpAg", b"another program's", True),
        (b"gAMA", struct.pack(">I", 45455), True),
        (b"zTXt", big_text(), False),
        (b"iCCP", big_text(), False),
        (b"iCCP", b"name\0\x07rubbish", False),
        (b"pHYs", b"\0\0", False),
        (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2 << 20)), False),
    ],
)
def test_a_png_without_its_broken_extra_chunk(
    kind: bytes, content: bytes, is_damaged: bool, image: Image.Image, tmp_path: Path
) -> None:
    _, png = encoded(image, ".png")
    data = with_chunk(png, kind, content)
    pixels, notes = outcome(damaged(data, kind) if is_damaged else data, tmp_path)
    assert np.array_equal(pixels, np.array(image))
    assert notes == (f"broken or oversized chunk ignored ({kind.decode()})",)


def test_text_after_the_pixels_and_in_several_chunks(image: Image.Image, tmp_path: Path) -> None:
    _, png = encoded(image, ".png")
    data = with_chunk(png[:-12] + chunk(b"zTXt", big_text()) + png[-12:], b"iCCP", big_text())
    pixels, notes = outcome(data, tmp_path)
    assert np.array_equal(pixels, np.array(image))
    assert notes == ("broken or oversized chunks ignored (iCCP, zTXt)",)


def test_a_broken_animation_leaves_the_still_picture(image: Image.Image, tmp_path: Path) -> None:
    _, png = encoded(image, ".png", save_all=True, append_images=[image.rotate(90)], default_image=False)
    pixels, notes = outcome(damaged(png, b"fcTL"), tmp_path)
    assert np.array_equal(pixels, np.array(image))
    assert notes[0].startswith("broken or oversized chunks ignored (fcTL")


def test_what_a_png_cannot_do_without_stays_a_failure(image: Image.Image, tmp_path: Path) -> None:
    _, png = encoded(image.quantize(16), ".png")
    text = damaged(with_chunk(png, b"tEXt", b"k\0v"), b"tEXt")
    for kind in (b"IHDR", b"PLTE"):
        assert outcome(damaged(png, kind), tmp_path)[0] == FailureKind.NOT_AN_IMAGE
        assert outcome(damaged(text, kind), tmp_path)[0] == FailureKind.NOT_AN_IMAGE
    assert outcome(text[:-60], tmp_path)[0] == FailureKind.TRUNCATED
    flipped = bytearray(text)
    flipped[text.index(b"IDAT") + 200] ^= 0x55
    assert isinstance(outcome(bytes(flipped), tmp_path)[0], FailureKind)


def test_forgiven_files_through_the_command(fcn: Fcn, image: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    _, jpeg = encoded(image, ".jpg")
    _, png = encoded(image, ".png")
    (tmp_path / "in/no-end.jpg").write_bytes(jpeg[:-2])
    (tmp_path / "in/half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "in/text.png").write_bytes(damaged(with_chunk(png, b"tEXt", b"k\0v"), b"tEXt"))
    fcn("segment", "in", *SMALL, "-o", "out", "--write", "masks,overlay", code=1)
    records = journal_of(tmp_path / "out")
    assert records["no-end.jpg"]["notes"] == ["no end-of-image marker; every pixel is there"]
    assert records["text.png"]["notes"] == ["broken or oversized chunk ignored (tEXt)"]
    assert records["half.jpg"]["error"]["kind"] == "TruncatedImage"
    assert fcn("segment", "in/no-end.jpg", *SMALL, "-o", "-").code == 0
