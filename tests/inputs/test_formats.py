"""Which formats are read, by which suffix or content; what is dangerous or strange about the rarer ones."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fcn_cli.common.errors import Failure, FailureKind, ImageError
from fcn_cli.inputs import decoder, formats
from fcn_cli.inputs.decode_options import DEFAULT_MAX_PIXELS

from ..conftest import SAMPLES, SMALL, Fcn, journal_of, python_with, run_process, stray_lines, tree
from ..rare_formats import Rare, cursor, photo_cd, photoshop, rare_formats, saved
from ..runs.test_bad_files import claimed_png

WITHOUT_HEIF = "import sys; sys.modules['pillow_heif'] = None"


def small_image() -> Image.Image:
    with Image.open(SAMPLES / "chelsea.png") as opened:
        return opened.convert("RGB").resize((90, 60))


@pytest.fixture(scope="module")
def sample() -> Image.Image:
    return small_image()


RARE = rare_formats(small_image())


def decoded(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    return np.array(decoder.decode_here(path, max_pixels).image)


def refused(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decoder.decode_here(path, max_pixels)
    assert "\n" not in str(caught.value)
    return caught.value


def plain_pillow(code: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which Pillow is as it comes."""
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def test_every_suffix_that_pillow_registers_is_taken_or_has_its_reason() -> None:
    code = "import json; from PIL import Image; print(json.dumps(Image.registered_extensions()))"
    registered: dict[str, str] = json.loads(plain_pillow(code).stdout)
    own = formats.KNOWN_SUFFIXES - set(formats.HEIF_SUFFIXES)
    assert not own & formats.UNSUPPORTED.keys()
    assert set(registered) - own - formats.UNSUPPORTED.keys() == set()
    assert own - set(registered) == set()
    assert all(formats.UNSUPPORTED.values())
    for name, suffixes in formats._FORMATS.items():
        assert {registered[suffix] for suffix in suffixes} <= {name, "MPO"}
    # What is not taken under its suffix is not taken under another one either.
    refused_formats = {registered[suffix] for suffix in formats.UNSUPPORTED if suffix in registered}
    for suffix in ("", ".jpg", ".eps", *formats.KNOWN_SUFFIXES):
        assert not refused_formats & {*formats._COMMON, *formats._other_formats(suffix)}


def test_the_rare_formats_are_all_tried() -> None:
    everyday = {*formats._COMMON, "WEBP", "TIFF", "AVIF", "JPEG2000", "DIB"}
    rare = {
        suffix for name, suffixes in formats._FORMATS.items() if name not in everyday for suffix in suffixes
    }
    assert {one.suffix for one in RARE} - {".png"} == rare


@pytest.mark.parametrize("rare", RARE, ids=[f"{number}{one.suffix}" for number, one in enumerate(RARE)])
def test_rare_formats_have_the_pixels_that_were_put_in(rare: Rare, tmp_path: Path) -> None:
    path = tmp_path / f"x{rare.suffix}"
    path.write_bytes(rare.data)
    assert np.array_equal(decoded(path), rare.expected)


def test_a_directory_of_rare_formats(fcn: Fcn, tmp_path: Path) -> None:
    some = [rare for rare in RARE if rare.suffix in {".cur", ".ico", ".im", ".psd", ".tga", ".xbm", ".xpm"}]
    for number, rare in enumerate(some):
        (tmp_path / f"photos/{number}").mkdir(parents=True)
        (tmp_path / f"photos/{number}/x{rare.suffix}").write_bytes(rare.data)
    done = fcn("segment", "photos", *SMALL, "-o", "out", "--write", "masks,overlay", "--json")
    assert {(r["image"], r["height"], r["width"]) for r in done.records} == {
        (f"{number}/x{rare.suffix}", *rare.expected.shape[:2]) for number, rare in enumerate(some)
    }
    assert len(tree(tmp_path / "out/masks")) == len(tree(tmp_path / "out/overlay")) == len(some)


def test_formats_without_a_signature_are_tried_under_their_own_suffix_only(
    sample: Image.Image, fcn: Fcn, tmp_path: Path
) -> None:
    targa = saved(sample, ".tga")
    bitmap = saved(sample.convert("1"), ".xbm")
    for data, own in ((targa.data, ".tga"), (targa.data, ".VST"), (bitmap.data, ".xbm")):
        path = tmp_path / f"x{own}"
        path.write_bytes(data)
        assert decoded(path).shape == (60, 90, 3)
        for other in ("x.png", "x.c", "x"):
            path = tmp_path / other
            path.write_bytes(data)
            assert refused(path).failure.kind == FailureKind.NOT_AN_IMAGE
    # A TGA whose first byte is a PCX's: its comment has 10 characters.
    path = tmp_path / "comment.tga"
    path.write_bytes(saved(sample, ".tga", id_section=b"ten bytes.").data)
    assert np.array_equal(decoded(path), targa.expected)
    for name in ("notes.txt", "notes.tga", "notes.im", "notes.pcd", "notes.ppm"):
        (tmp_path / name).write_text("Dear diary,\nthis is a text: nothing else.\n")
        assert refused(tmp_path / name).failure.kind == FailureKind.NOT_AN_IMAGE
    assert "notes.txt: not an image" in fcn("segment", "notes.txt", *SMALL, code=1).stderr


def test_orientation_of_rare_formats(sample: Image.Image, tmp_path: Path) -> None:
    for orientation in (-1, 1):
        (tmp_path / "x.tga").write_bytes(saved(sample, ".tga", orientation=orientation).data)
        assert np.array_equal(decoded(tmp_path / "x.tga"), np.array(sample))
    values = np.array(sample.resize((768, 512)).convert("L"))
    with Image.open(io.BytesIO(photo_cd(values))) as opened:
        expected = np.array(opened)
    for orientation, turns in ((0, 0), (1, 1), (3, 3)):
        data = photo_cd(values, orientation)
        (tmp_path / "x.pcd").write_bytes(data)
        try:
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
        except AttributeError:
            # Older Pillow cannot turn a Photo CD.
            assert refused(tmp_path / "x.pcd").failure.kind == FailureKind.BROKEN
        else:
            assert np.array_equal(decoded(tmp_path / "x.pcd"), np.rot90(expected, turns))


def test_of_a_photoshop_file_the_flattened_picture_is_taken(sample: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.psd"
    path.write_bytes(photoshop(np.array(sample), layers=3))
    with Image.open(path) as opened:
        assert getattr(opened, "n_frames", 0) == 3
    got = decoder.decode_here(path)
    assert np.array_equal(np.array(got.image), np.array(sample))
    assert got.notes == ()
    cmyk = 255 - np.array(sample.convert("CMYK"))
    path.write_bytes(photoshop(cmyk, mode=4))
    assert np.array_equal(decoded(path), np.array(sample.convert("CMYK").convert("RGB")))


def test_of_several_sizes_the_largest_is_taken_and_said(sample: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "x.ico").write_bytes(saved(sample.resize((64, 64)), ".ico", sizes=[(16, 16), (64, 64)]).data)
    got = decoder.decode_here(tmp_path / "x.ico")
    assert got.image.size == (64, 64)
    assert got.notes == ("largest of 2 sizes",)


def test_floats_of_rare_formats_are_scaled_with_a_note(tmp_path: Path) -> None:
    values = np.linspace(-2, 7, 600, dtype=np.float32).reshape(20, 30)
    expected = np.rint((values.astype(float) + 2) / 9 * 255).astype(np.uint8)
    for suffix in (".pfm", ".im"):
        (tmp_path / f"x{suffix}").write_bytes(saved(Image.fromarray(values), suffix).data)
        got = decoder.decode_here(tmp_path / f"x{suffix}")
        assert np.array_equal(np.array(got.image)[..., 0], expected)
        assert got.notes == ("32-bit float samples scaled from -2..7",)


def test_icons_are_composited_on_white(sample: Image.Image, tmp_path: Path) -> None:
    rgba = sample.resize((64, 64)).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((64, 64)))
    alpha = np.array(rgba)[..., 3:] / 255
    expected = np.array(rgba)[..., :3] * alpha + 255 * (1 - alpha)
    (tmp_path / "x.ico").write_bytes(saved(rgba, ".ico", sizes=[(64, 64)]).data)
    assert np.abs(decoded(tmp_path / "x.ico") - expected).max() <= 1.5


def icon_of(png: bytes, kind: str) -> bytes:
    """Return a small icon whose picture is any PNG."""
    if kind == ".icns":
        return b"icns" + struct.pack(">I", 16 + len(png)) + b"ic07" + struct.pack(">I", 8 + len(png)) + png
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 128, 128, 0, 0, 1, 32, len(png), 22) + png


@pytest.mark.parametrize("kind", [".ico", ".icns"])
def test_the_pixel_limit_holds_for_pictures_inside_a_file(
    kind: str, sample: Image.Image, fcn: Fcn, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / f"photos/bomb{kind}").write_bytes(icon_of(claimed_png(20000, 8000), kind))
    stream = io.BytesIO()
    sample.resize((400, 300)).save(stream, "PNG")
    large = tmp_path / f"photos/large{kind}"
    large.write_bytes(icon_of(stream.getvalue(), kind))
    fcn("segment", "photos", *SMALL, "-o", "out", "--max-image-pixels", "100000", code=1)
    errors = {name: record["error"] for name, record in journal_of(tmp_path / "out").items()}
    assert {error["kind"] for error in errors.values()} == {"TooManyPixels"}
    assert "160000000 pixels is more than 100000" in errors[f"bomb{kind}"]["message"]
    if kind == ".ico":
        # In a process that also reads masks, Pillow's own limit stays where it is.
        failure = refused(large, 100000).failure
        assert (failure.kind, failure.limit) == (FailureKind.TOO_MANY_PIXELS, 100000)
        assert decoded(large, 120000).shape == (300, 400, 3)


def test_what_is_cut_off_or_of_a_strange_variant_says_so(sample: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.tga"
    path.write_bytes(saved(sample.convert("RGBA"), ".tga").data[:20])
    assert refused(path).failure.kind == FailureKind.TRUNCATED
    # The palette of a PCX is looked for 769 bytes before the end.
    path = tmp_path / "x.pcx"
    path.write_bytes(saved(sample.convert("P"), ".pcx").data[:300])
    assert refused(path).failure.kind == FailureKind.TRUNCATED
    path = tmp_path / "x.psd"
    deep = bytearray(photoshop(np.array(sample)))
    deep[22:24] = b"\0\x10"
    path.write_bytes(deep)
    assert "not an image in a supported format or variant" in str(refused(path))
    path = tmp_path / "x.gbr"
    path.write_bytes(RARE[7].data[:200])
    assert refused(path).failure.kind == FailureKind.TRUNCATED


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def iptc(inner: bytes) -> bytes:
    """Return IPTC records around a file."""

    def record(number: int, dataset: int, value: bytes) -> bytes:
        return bytes([0x1C, number, dataset]) + struct.pack(">H", len(value)) + value

    head = record(3, 20, b"\0\x0a") + record(3, 30, b"\0\x0a") + record(3, 60, b"\x01\0")
    return head + record(3, 120, b"\x05") + record(8, 10, inner) + bytes(5)


@pytest.mark.long
def test_nothing_starts_a_program(fcn: Fcn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither PostScript, nor PostScript inside of a format that opens what is in it."""
    ghostscript, started = tmp_path / "bin/gs", tmp_path / "started"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\necho \"$@\" >> '{started}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    files = {"a.eps": POSTSCRIPT, "a.jpg": POSTSCRIPT, "b.iim": iptc(POSTSCRIPT), "b.png": iptc(POSTSCRIPT)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in ("a.eps", "b.iim"):
        plain_pillow("import sys; from PIL import Image; Image.open(sys.argv[1]).load()", tmp_path / name)
        assert started.read_text()
        started.unlink()
    for workers in ("0", "1"):
        done = fcn(
            "segment", *files, *SMALL, "-o", f"out{workers}", "--keep-extension", "-j", workers, code=1
        )
        assert {r["error"]["kind"] for r in journal_of(tmp_path / f"out{workers}").values()} == {"NotAnImage"}
        assert ".eps: vector graphics, for which Pillow would run Ghostscript" in done.stderr
        assert not started.exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("compression", "damage", "workers"),
    [("tiff_adobe_deflate", b"\xaa" * 40, "0"), ("jpeg", b"\xff\x1b", "1")],
    ids=["an image that fails, without workers", "an image that is fine, as its overlay is written"],
)
def test_native_decoders_print_nothing(
    compression: str, damage: bytes, workers: str, sample: Image.Image, tmp_path: Path
) -> None:
    """In the main process, where stderr is the user's."""
    path = tmp_path / "photos/x.tif"
    path.parent.mkdir()
    sample.save(path, compression=compression)
    with Image.open(path) as opened:
        at = opened.tag_v2[273][0] + 300  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    data[at : at + len(damage)] = damage
    path.write_bytes(data)
    plain = plain_pillow("import sys; from PIL import Image; Image.open(sys.argv[1]).load()", path)
    assert plain.stderr.startswith(("ZIPDecode", "JPEGLib"))
    done = run_process(
        *("segment", "photos", *SMALL, "-o", "out", "--write", "overlay", "--workers", workers),
        code=plain.returncode,
        cwd=tmp_path,
    )
    assert stray_lines(done.stderr) == []
    assert sum("x.tif" in line for line in done.stderr.splitlines()) == plain.returncode


def heic(image: Image.Image, **options: Any) -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heif")
    stream = io.BytesIO()
    heif.from_pillow(image).save(stream, **{"quality": -1, "chroma": 444, **options})
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_images_are_upright_exactly_once(orientation: int, sample: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    sample.save(stream, "PNG", exif=exif)
    with Image.open(stream) as turned:
        expected = np.array(ImageOps.exif_transpose(turned).convert("RGB")).astype(int)
    (tmp_path / "x.heic").write_bytes(heic(sample, exif=exif.tobytes()))
    got = decoded(tmp_path / "x.heic")
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 1
    assert decoder.decode_here(tmp_path / "x.heic").notes == ()


def test_heic_pixels_and_kinds(sample: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.heic"
    rgba = sample.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(sample.size))
    alpha = np.array(rgba)[..., 3:] / 255
    grey = np.array(sample.convert("L"))
    for image, expected in (
        (rgba, np.array(sample) * alpha + 255 * (1 - alpha)),
        (sample.convert("L"), np.repeat(grey[..., None], 3, axis=2)),
        (Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[..., None], 3, axis=2)),
    ):
        path.write_bytes(heic(image))
        assert np.abs(decoded(path) - expected).max() <= 2
    # Of several pictures it is the one that the file calls its main one.
    heif = pytest.importorskip("pillow_heif")
    several = heif.from_pillow(ImageOps.invert(sample))
    several.add_from_pillow(sample)
    several.save(path, quality=-1, chroma=444, primary_index=1)
    assert np.abs(decoded(path) - np.array(sample).astype(int)).mean() < 3
    assert decoder.decode_here(path).notes == ("main picture of 2",)
    # The brand of a file may say no more than "a picture"; so may that of an AVIF.
    path.write_bytes(heic(sample).replace(b"ftypheix", b"ftypmif1"))
    assert np.abs(decoded(path) - np.array(sample).astype(int)).mean() < 1
    data = heic(sample)
    for length in (20, 200, len(data) // 2, len(data) - 5):
        path.write_bytes(data[:length])
        assert refused(path).failure.kind in {FailureKind.BROKEN, FailureKind.TRUNCATED}
    path.write_bytes(data)
    assert refused(path, 5000).failure == Failure(
        FailureKind.TOO_MANY_PIXELS,
        "90x60 is more than 5000 pixels; if that is intended, raise --max-image-pixels",
        5000,
    )


def test_heic_images_are_segmented_like_any(sample: Image.Image, fcn: Fcn, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.HEIC").write_bytes(heic(sample))
    (tmp_path / "photos/really-heic.jpg").write_bytes(heic(sample))
    done = fcn("segment", "photos", *SMALL, "-o", "out", "--write", "masks,overlay", "--json")
    assert {(r["status"], r["width"], r["height"]) for r in done.records} == {("ok", 90, 60)}
    assert sorted(tree(tmp_path / "out/masks")) == ["a.png", "really-heic.png"]
    # It is not in Pillow's registry, where other code in a process may not expect it.
    assert "HEIF" not in Image.OPEN


@pytest.mark.long
def test_without_the_extra_heic_images_are_counted_with_the_way_out(
    sample: Image.Image, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.heic").write_bytes(heic(sample))
    (tmp_path / "photos/b.HIF").write_bytes(heic(sample))
    sample.save(tmp_path / "photos/c.png")
    environment = python_with(WITHOUT_HEIF, tmp_path)

    def segment(*arguments: str, code: int) -> str:
        return run_process("segment", *arguments, *SMALL, code=code, cwd=tmp_path, env=environment).stderr

    hint = "pip install 'fcn-cli[heif]'"
    assert f"ignored 2 paths: 1 .heic, 1 .hif (for HEIC images install the extra: {hint})" in segment(
        "photos", code=0
    )
    # An image that is named cannot be ignored; and it is tried again when the extra has been installed.
    assert f"a.heic: a HEIC image; install the extra: {hint}" in segment("photos/a.heic", "-o", "out", code=1)
    record = journal_of(tmp_path / "out")["a.heic"]
    assert record["error"]["kind"] == FailureKind.NO_DECODER


def test_cursors_and_their_masks(sample: Image.Image, tmp_path: Path) -> None:
    """The height in a cursor's header counts its mask as well."""
    (tmp_path / "x.cur").write_bytes(cursor(np.array(sample.resize((33, 31)))))
    assert np.array_equal(decoded(tmp_path / "x.cur"), np.array(sample.resize((33, 31))))
