"""``fcn export``: what other tools read back is what the masks say."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import VOCSegmentation

from fcn_cli.cli.options import ExportFormat
from fcn_cli.report.exports.export import FORMATS

from ..conftest import SAMPLES, SMALL, Fcn, command, run_process, wait_until
from ..made_output import VOC, Labels, blobs, failed_record, make_output

NAMES = ["a.jpg", "sub/b c.jpg", "sub_b_c.png", "Sub/b_c.jpg", "日本.bmp", "-x.gif"]


def maps_of(names: list[str]) -> dict[str, Labels]:
    maps = {name: blobs(seed, 60 + seed, 75) for seed, name in enumerate(names)}
    # An image of background only.
    maps[names[0]][:] = 0
    return maps


@pytest.fixture
def maps(tmp_path: Path) -> dict[str, Labels]:
    """An output directory ``out`` of images with difficult names, and one image that failed."""
    maps = maps_of(NAMES)
    make_output(tmp_path / "out", maps, tmp_path / "photos")
    with (tmp_path / "out/manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(failed_record("broken.jpg")) + "\n")
    return maps


@contextlib.contextmanager
def nothing_else_in(folder: Path, but: set[str]) -> Iterator[None]:
    before = set(os.listdir(folder))
    yield
    assert set(os.listdir(folder)) == before | but


def present(labels: Labels) -> list[int]:
    return [index for index in np.unique(labels).tolist() if index not in {0, 255}]


def test_coco_as_pycocotools_reads_it(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    with nothing_else_in(tmp_path, {"new"}):
        done = fcn("export", "out", "--format", "coco", "-o", "new/coco.json")
    assert "7 records: 6 exported, 1 without a mask skipped; see new/coco.json" in done.stderr
    assert os.listdir("new") == ["coco.json"]
    coco = coco_module.COCO("new/coco.json")
    assert {one["id"]: one["name"] for one in coco.cats.values()} == dict(enumerate(VOC[1:], start=1))
    assert sorted(one["file_name"] for one in coco.imgs.values()) == sorted(maps)
    for image in coco.imgs.values():
        labels = maps[image["file_name"]]
        assert (image["height"], image["width"]) == labels.shape
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [one["category_id"] for one in annotations] == present(labels)
        for one in annotations:
            region = labels == one["category_id"]
            assert (coco.annToMask(one) == region).all()
            rows, columns = np.nonzero(region)
            x, y = columns.min(), rows.min()
            assert one["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
            assert (one["area"], one["iscrowd"]) == (region.sum(), 0)
    assert (
        len({one["id"] for one in coco.anns.values()})
        == len(coco.anns)
        == sum(len(present(labels)) for labels in maps.values())
    )


def test_voc_as_torchvision_reads_it(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    with nothing_else_in(tmp_path, {"voc"}):
        fcn("export", "out", "--format", "voc", "-o", "voc")
    dataset = VOCSegmentation("voc", year="2012", image_set="train")
    root = tmp_path / "voc/VOCdevkit/VOC2012"
    with (root / "images.csv").open() as table:
        # ./-x.gif, which no spreadsheet runs, is -x.gif.
        image_of = {row["name"]: os.path.normpath(row["image"]) for row in csv.DictReader(table)}
    assert sorted(image_of.values()) == sorted(maps)
    # One name each on a file system without upper and lower case, too.
    assert len({name.casefold() for name in image_of}) == len(dataset) == len(maps)
    assert not [name for name in image_of if "/" in name or " " in name or name.startswith(("-", "."))]
    for index, mask_path in enumerate(dataset.masks):
        image, mask = dataset[index]
        labels = maps[image_of[Path(mask_path).stem]]
        assert mask.mode == "P"
        assert (np.asarray(mask) == labels).all()
        assert image.size == mask.size
    lines = (root / "labelmap.txt").read_text().splitlines()
    assert lines[:3] == ["# label:color_rgb:parts:actions", "background:0,0,0::", "aeroplane:128,0,0::"]
    palette = Image.open(dataset.masks[0]).getpalette()
    assert palette is not None
    for number, line in enumerate(lines[1:]):
        index = 255 if number == len(VOC) else number
        assert line.split(":")[1] == ",".join(map(str, palette[3 * index : 3 * index + 3]))


@pytest.mark.parametrize("form", list(ExportFormat))
@pytest.mark.parametrize(
    ("options", "share"),
    [("--class cat", (1e-9, 1)), ("--class 8 --min 30%", (0.3, 1)), ("--class cat --max 0.4", (1e-9, 0.4))],
)
def test_what_list_selects_is_exported(
    fcn: Fcn, tmp_path: Path, form: str, options: str, share: tuple[float, float]
) -> None:
    maps = {f"sub/{rows}.png": np.zeros((10, 10), np.uint8) for rows in range(0, 10, 3)}
    for rows, labels in zip(range(0, 10, 3), maps.values(), strict=True):
        labels[:rows] = VOC.index("cat")
    make_output(tmp_path / "out", maps, tmp_path / "photos")
    wanted = [name for name, labels in maps.items() if share[0] <= (labels == 8).mean() <= share[1]]
    listed = fcn("list", "out", *options.split()).stdout.splitlines()
    assert listed == [str(tmp_path / "photos" / name) for name in wanted]
    done = fcn("export", "out", "--format", form, "-o", "to", *options.split())
    assert f"4 records: {len(wanted)} exported, {4 - len(wanted)} not selected; see to" in done.stderr
    if form == "coco":
        assert [one["file_name"] for one in json.loads(Path("to").read_text())["images"]] == wanted
    elif form == "yolo":
        assert len(list(Path("to/images").rglob("*.jpg"))) == len(wanted)
    elif form == "labelstudio":
        tasks = json.loads(Path("to/tasks.json").read_text())
        assert [task["data"]["image"].rpartition("/sub/")[2] for task in tasks] == [n[4:] for n in wanted]
    elif form == "geotiff":
        assert {str(path.relative_to("to").with_suffix(".png")) for path in Path("to").rglob("*.tif")} == {
            *wanted
        }
    elif form in {"masks", "binary", "cutout"}:
        masks = {str(path.relative_to("to")) for path in Path("to").rglob("*.png")}
        assert masks == {name if form != "binary" else f"{name[:-4]}/cat.png" for name in wanted}
    else:
        with next(Path("to").rglob("images.csv")).open() as table:
            assert [row["image"] for row in csv.DictReader(table)] == wanted


def test_a_wrong_selection_of_an_export(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    for options, message in (
        ("--class cot", "out has no such class; did you mean cow or cat?"),
        ("--min 5%", "name it with --class"),
        ("--status failed", "images that failed have no mask to export; leave --status out"),
    ):
        with nothing_else_in(tmp_path, set()):
            done = fcn("export", "out", "--format", "coco", "-o", "to", *options.split(), code=2)
        assert message in done.stderr


def lines_of(text: str, labels: Labels) -> Iterator[tuple[int, Any]]:
    """Yield the class and the pixels of each polygon in YOLO's format."""
    coco = pytest.importorskip("pycocotools.mask")
    height, width = labels.shape
    for line in text.splitlines():
        index, *values = line.split()
        points = np.reshape(np.array(values, float), (-1, 2))
        assert points.min() >= 0 <= points.max() <= 1
        flat = (points * [width, height]).ravel().tolist()
        yield int(index), coco.decode(coco.merge(coco.frPyObjects([flat], height, width))).astype(bool)


def test_yolo_rasterised(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    with nothing_else_in(tmp_path, {"yolo"}):
        fcn("export", "out", "--format", "yolo", "-o", "yolo")
    names = {
        "a": "a.jpg",
        "sub_b_c": "sub/b c.jpg",
        "sub_b_c_2": "sub_b_c.png",
        "Sub_b_c_3": "Sub/b_c.jpg",
        "日本": "日本.bmp",
        "_x": "-x.gif",
    }
    assert sorted(os.listdir("yolo/labels/train")) == sorted(f"{name}.txt" for name in names)
    assert (tmp_path / "yolo/labels/train/a.txt").read_text() == ""
    for name, image in names.items():
        labels = maps[image]
        read = np.zeros_like(labels)
        for index, pixels in lines_of((tmp_path / f"yolo/labels/train/{name}.txt").read_text(), labels):
            assert not read[pixels].any()
            read[pixels] = index
        assert (read == np.where(labels == 255, 0, labels)).all()
        with Image.open(tmp_path / f"yolo/images/train/{name}.jpg") as picture:
            assert picture.size == labels.shape[::-1]
    text = (tmp_path / "yolo/data.yaml").read_text()
    assert "train: images/train\n" in text
    assert '  8: "cat"\n' in text


def test_names_that_a_reader_of_yaml_reads(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    names = [
        "x",
        "\U0001f408 cat",
        'say "hi" \\ no: # - [',
        "\x7f\x85\u2028\x00\n\ufeff\uffff",
        "no",
        "1",
        " ",
    ]
    classes = json.loads((tmp_path / "out/classes.json").read_text())
    for index, name in enumerate(names):
        classes[str(index)]["name"] = name
    (tmp_path / "out/classes.json").write_text(json.dumps(classes))
    fcn("export", "out", "--format", "yolo", "-o", "yolo")
    read = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text("ascii"))["names"]
    assert [read[index] for index in range(len(names))] == names


def test_images_are_upright_jpegs(fcn: Fcn, tmp_path: Path) -> None:
    """From a real run: an upright JPEG keeps its pixels, a turned one and a PNG are converted."""
    made = tmp_path / "made"
    made.mkdir()
    with Image.open(SAMPLES / "grace_hopper.jpg") as opened:
        image = opened.convert("RGB").resize((64, 80))
    image.save(made / "plain.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(made / "turned.jpg", exif=exif, quality=95)
    image.save(made / "other.png")
    fcn("segment", "made", *SMALL, "-o", "out")
    for form, folder in (("voc", "VOCdevkit/VOC2012/JPEGImages"), ("yolo", "images/train")):
        fcn("export", "out", "--format", form, "-o", form)
        images = tmp_path / form / folder
        with Image.open(images / "plain.jpg") as plain, Image.open(made / "plain.jpg") as original:
            assert np.array_equal(np.asarray(plain), np.asarray(original))
        with Image.open(images / "turned.jpg") as turned:
            assert turned.size == (80, 64)
            assert turned.getexif().get(0x0112, 1) == 1
            upright = ImageOps.exif_transpose(Image.open(made / "turned.jpg"))
            assert np.abs(np.asarray(turned, int) - np.asarray(upright, int)).mean() < 2
        with Image.open(images / "other.jpg") as other:
            assert np.abs(np.asarray(other, int) - np.asarray(image, int)).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "progressive"])
def test_exported_images_have_no_metadata(fcn: Fcn, tmp_path: Path, mode: str) -> None:
    labels = blobs(5, 40, 56)
    make_output(tmp_path / "out", {"a.jpg": labels}, tmp_path / "photos")
    path = tmp_path / "photos/a.jpg"
    with Image.open(path) as opened:
        image = opened.convert("RGB" if mode == "progressive" else mode)
    exif = Image.Exif()
    exif[0x010E] = "secret description"
    exif.get_ifd(0x8825)[1] = "secret place"
    image.save(path, exif=exif, comment="secret comment", progressive=mode == "progressive", quality=90)
    with path.open("ab") as stream:
        stream.write(b"secret film")
    data = path.read_bytes()
    assert data.count(b"secret") >= 3
    record = json.loads((tmp_path / "out/manifest.jsonl").read_text())
    record |= {"size_bytes": len(data), "mtime_ns": path.stat().st_mtime_ns}
    (tmp_path / "out/manifest.jsonl").write_text(json.dumps(record) + "\n")
    fcn("export", "out", "--format", "voc", "-o", "voc")
    exported = tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages/a.jpg"
    assert b"secret" not in exported.read_bytes()
    assert b"Exif" not in exported.read_bytes()
    with Image.open(exported) as bare, Image.open(path) as original:
        assert bare.mode == original.mode
        assert np.array_equal(np.asarray(bare), np.asarray(original))


def test_what_cannot_be_exported_is_named_and_counted(
    fcn: Fcn, maps: dict[str, Labels], tmp_path: Path
) -> None:
    images, out = tmp_path / "photos", tmp_path / "out"
    (images / "a.jpg").unlink()
    with (images / "sub/b c.jpg").open("ab") as stream:
        stream.write(b"more")
    (images / "日本.bmp").unlink()
    os.mkfifo(images / "日本.bmp")
    (out / "masks/sub_b_c.png").write_bytes(b"?")
    (out / "color/sub_b_c.png").unlink()
    # Colours serve where the mask is damaged.
    (out / "masks/Sub/b_c.png").write_bytes(b"?")
    done = fcn("export", "out", "--format", "voc", "-o", "voc", code=1)
    assert f"not exported: a.jpg: {images}/a.jpg: the image is gone" in done.stderr
    assert "b c.jpg: changed since it was segmented" in done.stderr
    assert "sub_b_c.png: out/masks/sub_b_c.png: cannot be decoded" in done.stderr
    assert ".bmp: not a regular file" in done.stderr
    assert "7 records: 2 exported, 1 without a mask skipped, 4 failed" in done.stderr
    assert len(VOCSegmentation("voc", year="2012", image_set="train")) == 2
    # COCO's file has no images, so that only the mask counts.
    done = fcn("export", "out", "--format", "coco", "-o", "coco.json", code=1)
    assert "7 records: 5 exported, 1 without a mask skipped, 1 failed" in done.stderr
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 5


def test_names_that_are_not_utf8(fcn: Fcn, tmp_path: Path) -> None:
    labels = blobs(7)
    make_output(tmp_path / "out", {"caf\udce9.jpg": labels}, tmp_path / "photos")
    fcn("export", "out", "--format", "coco", "-o", "c.json")
    (image,) = json.loads((tmp_path / "c.json").read_bytes())["images"]
    assert image["file_name"] == r"caf\xe9.jpg"
    assert image["file_name_bytes"] == "Y2Fm6S5qcGc="
    fcn("export", "out", "--format", "voc", "-o", "voc")
    (_, mask), *rest = VOCSegmentation("voc", year="2012", image_set="train")
    assert not rest
    assert (np.asarray(mask) == labels).all()


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_an_earlier_export_stays_unless_it_is_to_be_replaced(
    form: str, fcn: Fcn, maps: dict[str, Labels], tmp_path: Path
) -> None:
    fcn("export", "out", "--format", form, "-o", "new")
    assert (
        "or --overwrite to replace it" in fcn("export", "out", "--format", form, "-o", "new", code=2).stderr
    )
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/manifest.jsonl").write_text(lines[0])
    with nothing_else_in(tmp_path, set()):
        fcn("export", "out", "--format", form, "-o", "new", "--overwrite")
    if form == "coco":
        assert len(json.loads((tmp_path / "new").read_text())["images"]) == 1
    else:
        assert len(VOCSegmentation("new", year="2012", image_set="train")) == 1


def test_what_is_not_an_export_is_never_replaced(fcn: Fcn, maps: dict[str, Labels], tmp_path: Path) -> None:
    done = fcn("export", "out", "--format", "voc", "-o", "photos", "--overwrite", code=2)
    assert "photos: holds files that fcn export did not write" in done.stderr
    assert (
        "is not a directory" in fcn("export", "out", "--format", "voc", "-o", "photos/a.jpg", code=2).stderr
    )
    assert "is a directory" in fcn("export", "out", "--format", "coco", "-o", "photos", code=2).stderr
    assert "not to stdout" in fcn("export", "out", "--format", "coco", "-o", "-", code=2).stderr
    assert "is empty" in fcn("export", "out", "--format", "coco", "-o", "", code=2).stderr
    assert "not an output" in fcn("export", "photos", "--format", "coco", "-o", "x", code=2).stderr
    (tmp_path / "empty").mkdir()
    fcn("export", "out", "--format", "voc", "-o", "empty")
    assert len(VOCSegmentation("empty", year="2012", image_set="train")) == len(maps)


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_a_full_disk_leaves_nothing(form: str, maps: dict[str, Labels], tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))

    # With that limit Python would leave compiled modules torn, for whatever runs after.
    how: dict[str, Any] = {"env": {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, "preexec_fn": limit}
    with nothing_else_in(tmp_path, set()):
        done = run_process("export", "out", "--format", form, "-o", "new", code=5, cwd=tmp_path, **how)
    assert "cannot be written (File too large)" in done.stderr


@pytest.mark.long
def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    make_output(tmp_path / "out", {f"p{i}.png": blobs(i, 200, 300) for i in range(40)}, tmp_path / "photos")
    with nothing_else_in(tmp_path, set()):
        running = subprocess.Popen(
            command("export", "out", "--format", "yolo", "-o", "new"),
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: list(tmp_path.glob(".fcn-*/labels/train/*.txt")), running)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 143, errors
    assert "interrupted (SIGTERM)" in errors


def test_the_command_line_has_every_format() -> None:
    assert list(ExportFormat) == list(FORMATS)


def test_what_has_come_to_the_destination_meanwhile_stays(
    fcn: Fcn, maps: dict[str, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_there() -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "new/own").touch()

    monkeypatch.setattr(os, "sync", put_there)
    for how in ((), ("--overwrite",)):
        with nothing_else_in(tmp_path, {"new"}):
            done = fcn("export", "out", "--format", "masks", "-o", "new", *how, code=2)
        assert "new: holds files that fcn export did not write" in done.stderr
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["own"]
        (tmp_path / "new/own").unlink()
        (tmp_path / "new").rmdir()


def test_a_file_that_has_come_meanwhile_stays_too(
    fcn: Fcn, maps: dict[str, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.copyfileobj

    def put_there(source: Any, target: Any) -> None:
        (tmp_path / "new.json").write_text("own")
        real(source, target)

    monkeypatch.setattr(shutil, "copyfileobj", put_there)
    with nothing_else_in(tmp_path, {"new.json"}):
        done = fcn("export", "out", "--format", "coco", "-o", "new.json", code=2)
    assert "new.json: not written by fcn export" in done.stderr
    assert (tmp_path / "new.json").read_text() == "own"


@pytest.mark.long
def test_few_open_files_on_a_machine_of_many_cpus(maps: dict[str, Labels], tmp_path: Path) -> None:
    limited = (
        "import resource, sys; from fcn_cli.common import resources; from fcn_cli.__main__ import run; "
        "resources.cpu_count = lambda: 16; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
        "sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["export", "out", "--format", "cutout", "-o", "cut"]
    done = subprocess.run(
        [sys.executable, "-c", limited, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(maps)} exported" in done.stderr
