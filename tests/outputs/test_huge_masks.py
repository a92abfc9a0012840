"""A small file can claim any number of pixels: headers are compared before anything is decoded."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_cli.common import label_map, limits
from fcn_cli.common.errors import ImageError
from fcn_cli.common.label_map import read_label_map

from ..conftest import SMALL, Fcn, MakeImages, journal_of

SIDE = 40_000
KINDS = "masks", "color", "overlay", "confidence", "cutout"
_COLOR_TYPES = {"masks": 0, "color": 3, "overlay": 2, "confidence": 0, "cutout": 6}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming(color_type: int, width: int = SIDE, height: int = SIDE, *more: bytes) -> bytes:
    """Return a PNG whose header claims a size; few of its pixels are there."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(3 * 256)) if color_type == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *more, palette, pixels, chunk(b"IEND", b"")])


@pytest.fixture
def finished(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> Path:
    fcn("segment", make_images(["a.png", "b.png"]), *SMALL, "--write", ",".join(KINDS), "-o", "out")
    return tmp_path / "out"


def replace_files(output: Path, **fields: object) -> None:
    """Let the files of ``a.png`` claim a size, and its record have their numbers of bytes, and more."""
    record = journal_of(output)["a.png"]
    for place, name in enumerate(record["outputs"]):
        data = claiming(_COLOR_TYPES[name.partition("/")[0]])
        (output / name).write_bytes(data)
        record["output_bytes"][place] = len(data)
    with (output / "manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(record | fields) + "\n")


@pytest.mark.long
def test_every_output_type_is_compared_with_its_record(fcn: Fcn, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "whole")
    truth = tmp_path / "truth"
    shutil.copytree(finished / "masks", truth)
    size = "x".join(map(str, Image.open(truth / "a.png").size))
    replace_files(finished)
    done = fcn("verify", "out", code=1)
    assert done.stdout.count(f"{SIDE}x{SIDE} pixels, its record says {size}; ") == len(KINDS)
    assert "10 files of 2 images checked: 5 problems" in done.stderr
    claims = f"{SIDE}x{SIDE} pixels, its image has {size}"
    done = fcn("export", "out", "--format", "coco", "-o", "coco.json", code=1)
    assert f"not exported: a.png: out/masks/a.png: {claims}" in done.stderr
    done = fcn("report", "out")
    assert "1 of them without the image or its mask" in done.stderr
    done = fcn("compare", "out", "whole", code=1)
    assert f"a: out/masks/a.png: {SIDE}x{SIDE} pixels are more than 500000000;" in done.stderr
    (tmp_path / "whole/masks/b.png").write_bytes(claiming(0, 20_000, 20_000))
    done = fcn("compare", "whole", truth, code=1)
    assert "20000x20000 pixels in A, " in done.stderr
    done = fcn("evaluate", "made", truth, "--predictions", "out", "--truth-colors", "index", "--json", code=1)
    failures = json.loads(done.stdout)["failures"]
    assert [(one["image"], one["kind"]) for one in failures] == [("made/a.png", "SizesDiffer")]
    assert claims in failures[0]["message"]
    # The mask cannot be painted in other colours, so the network makes it again.
    fcn("segment", "made", *SMALL, "--write", ",".join(KINDS), "-o", "out", "--palette", "voc")
    assert "no problem" in fcn("verify", "out").stderr
    assert (finished / "masks/a.png").read_bytes() == (truth / "a.png").read_bytes()


@pytest.mark.long
def test_a_record_that_claims_the_same_is_bounded(
    fcn: Fcn, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_files(finished, width=SIDE, height=SIDE, classes={"0": SIDE * SIDE})
    too_many = f"{SIDE}x{SIDE} pixels are more than 500000000; if that is intended, raise --max-image-pixels"
    assert fcn("verify", "out", code=1).stdout.count(too_many) == len(KINDS)
    assert (
        f"out/masks/a.png: {too_many}"
        in fcn("export", "out", "--format", "coco", "-o", "coco.json", code=1).stderr
    )
    assert "1 of them without" in fcn("report", "out").stderr
    # Asked for, it is decoded, and found to be cut off.
    monkeypatch.setattr(limits, "MOST_MASK_PIXELS", 1000)
    got = fcn("verify", "out", "--max-image-pixels", "1000000", code=1).stdout
    assert got.count("are more than 1000000;") == len(KINDS)
    monkeypatch.setenv("FCN_MAX_IMAGE_PIXELS", "2000000")
    assert fcn("verify", "out", code=1).stdout.count("are more than 2000000;") == len(KINDS)


def test_masks_of_large_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_map, "_STRIP_PIXELS", 1000)
    labels = np.random.default_rng(0).integers(0, 21, (301, 203), np.uint8)
    for mode in ("L", "P"):
        image = Image.fromarray(labels)
        if mode == "P":
            image.putpalette(bytes(range(256)) * 3)
        image.save(tmp_path / "mask.png")
        assert np.array_equal(read_label_map(tmp_path / "mask.png", (203, 301)), labels)
    assert limits.MOST_MASK_PIXELS >= 20_000 * 20_000


@pytest.mark.long
def test_ground_truth_is_compared_with_its_image(
    fcn: Fcn, finished: Path, make_images: MakeImages, tmp_path: Path
) -> None:
    shutil.copytree(finished / "masks", tmp_path / "truth")
    for color_type, options in ((0, ["index"]), (2, ["voc"])):
        (tmp_path / "truth/a.png").write_bytes(claiming(color_type, 20_000, 20_000))
        if options == ["voc"]:
            shutil.copy(finished / "color/b.png", tmp_path / "truth/b.png")
        line = ("evaluate", "made", "truth", *SMALL, "--truth-colors", *options, "--json")
        failures = json.loads(fcn(*line, code=1).stdout)["failures"]
        assert [(one["image"], one["kind"]) for one in failures] == [("made/a.png", "SizesDiffer")]
    # Without its image's size, the limit holds.
    (tmp_path / "truth/a.png").write_bytes(claiming(0))
    failures = json.loads(
        fcn("evaluate", "made", "truth", *SMALL, "--truth-colors", "index", "--json", code=1).stdout
    )["failures"]
    assert failures[0]["kind"] == "TooManyPixels"


@pytest.mark.long
def test_what_else_a_mask_may_hide(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    # Texts that are small only when compressed.
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))
    path.write_bytes(claiming(0, 30, 30, text))
    tracemalloc.start()
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_label_map(path)
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()
    # A file far larger than its pixels need, and one of an endless number of frames.
    os.truncate(path, 20 << 30)
    with pytest.raises(ImageError, match="cannot be read"):
        read_label_map(path, (30, 30))
    with pytest.raises(ImageError, match="cannot be read"):
        read_label_map(path)
    frames = [Image.fromarray(np.full((30, 30), value, np.uint8)) for value in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert not read_label_map(path, (30, 30)).any()
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match="not a regular file"):
        read_label_map(pipe)


def test_an_image_that_grew_is_not_decoded_for_an_export(fcn: Fcn, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "made/a.png"
    path.write_bytes(claiming(2, 20_000, 20_000))
    status = path.stat()
    record = journal_of(finished)["a.png"]
    record |= {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    with (finished / "manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(record) + "\n")
    done = fcn("export", "out", "--format", "voc", "-o", "voc", code=1)
    assert "not exported: a.png:" in done.stderr
    assert "has another size than its mask" in done.stderr
    assert "1 of them without" in fcn("report", "out").stderr
