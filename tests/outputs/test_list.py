"""``fcn list``: the paths of the images that show something, for the next command."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_cli.cli.options import OutputTypeName
from fcn_cli.common.output_layout import output_type_names
from fcn_cli.outputs.selection import class_indices

from ..conftest import SMALL, Fcn, command, run_line, tree
from ..made_output import VOC, failed_record, make_output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Images with 0, 1, … 9 rows of ten of cat; those with an even number have a row of dog below."""
    maps = {}
    for rows in range(10):
        labels = np.zeros((10, 10), np.uint8)
        labels[:rows] = VOC.index("cat")
        if rows % 2 == 0:
            labels[9] = VOC.index("dog")
        maps[f"sub/cats {rows}.jpg"] = labels
    output = make_output(tmp_path / "out", maps)
    with (output / "manifest.jsonl").open("a") as journal:
        journal.write(json.dumps(failed_record("broken.jpg")) + "\n")
        # Of other settings, as an interrupted --overwrite leaves it: its 8 may be another network's.
        stale = {**failed_record("stale.jpg"), "status": "ok", "error": None, "fingerprint": "other"}
        journal.write(json.dumps({**stale, "width": 1, "height": 1, "classes": {"8": 1}}) + "\n")
    return output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", range(10)),
        ("--class cat", range(1, 10)),
        ("--class CAT --min 30%", range(3, 10)),
        ("--class 8 --min 0.3 --max 50%", range(3, 6)),
        ("--class cat --max 20%", [1, 2]),
        ("--class cat --min 0 --max 20%", [0, 1, 2]),
        ("--class cat --max 0 --min 0", [0]),
        ("--class cat --class dog --min 10%", [2, 4, 6, 8]),
        ("--class background --min 95%", []),
        ("--class background --min 90%", [0, 1]),
        ("--class void", []),
    ],
)
def test_which_images(fcn: Fcn, output: Path, options: str, expected: list[int]) -> None:
    done = fcn("list", "out", *options.split())
    assert done.stdout == "".join(f"/nowhere/sub/cats {rows}.jpg\n" for rows in expected)
    assert ("no matching images" in done.stderr) == (not expected)


def test_a_class_of_the_network_goes_before_void(output: Path) -> None:
    content = json.loads((output / "classes.json").read_text())
    content["3"]["name"] = "void"
    (output / "classes.json").write_text(json.dumps(content))
    assert class_indices(output, ["void", "Void", "255", "cat"]) == (3, 3, 255, 8)


def test_images_that_failed(fcn: Fcn, output: Path) -> None:
    assert fcn("list", "out", "--status", "failed").stdout == "/nowhere/broken.jpg\n"


def test_into_the_next_command(fcn: Fcn, tmp_path: Path) -> None:
    """Names with spaces, with line ends and of other encodings go through a pipe byte for byte."""
    names = ["a b.png", "line\nend.png", os.fsdecode(b"caf\xe9.png"), "日本.png"]
    cat = np.full((4, 4), VOC.index("cat"), np.uint8)
    output = make_output(tmp_path / "out", {"x.png": cat})
    record = json.loads((output / "manifest.jsonl").read_text())
    images = tmp_path / "photos"
    images.mkdir()
    lines = []
    for name in names:
        (images / name).touch()
        path = str(images / name)
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
        lines.append({**record, "image": repr(name), "outputs": [], "output_bytes": [], "path": text})
        if text != path:
            lines[-1]["path_bytes"] = base64.b64encode(os.fsencode(path)).decode()
    (output / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "cats").mkdir()
    script = '"$0" -m fcn_cli list out --class cat --null | (cd /; xargs -0 cp -t "$1")'
    run_line(["sh", "-c", script, sys.executable, tmp_path / "cats"], cwd=tmp_path)
    assert sorted(os.listdir(tmp_path / "cats")) == sorted(names)
    assert "use --null" in fcn("list", "out").stderr
    assert fcn("list", "out", "--null").stderr == ""


def test_the_recipes_that_copy_keep_files_of_equal_names(tmp_path: Path) -> None:
    """The documents' lines, run as they stand there, with names that shells and tools trip over."""
    cat = np.full((4, 4), VOC.index("cat"), np.uint8)
    names = ["a/1.png", "b/1.png", "b/-x y.png", "b/line\nend.png"]
    make_output(
        tmp_path / "fcn_output", {**dict.fromkeys(names, cat), "dog.png": cat * 0}, tmp_path / "photos"
    )
    root = Path(__file__).parents[2]
    text = "".join(page.read_text("utf-8") for page in (root / "README.md", *(root / "docs").glob("*.md")))
    recipes = re.findall(r"^    (mkdir .* fcn list .*)$", text, re.MULTILINE)
    assert recipes
    for recipe in recipes:
        line = recipe.replace("fcn list", f"{shlex.join(command())} list")
        run_line(["sh", "-c", line], cwd=tmp_path)
        copied = tmp_path / "cats" / str(tmp_path / "photos").lstrip("/")
        assert sorted(tree(copied)) == sorted(names), recipe
        assert all(
            (copied / name).read_bytes() == (tmp_path / "photos" / name).read_bytes() for name in names
        )
        # Nothing is selected: nothing happens.
        run_line(["sh", "-c", line.replace("5%", "5% --class dog")], cwd=tmp_path)
        shutil.rmtree(tmp_path / "cats")


def test_a_reader_that_goes_is_no_error(output: Path, tmp_path: Path) -> None:
    line = ["sh", "-c", '("$0" -m fcn_cli list out; echo $? >code) | head -c 1', sys.executable]
    assert run_line(line, cwd=tmp_path).stdout == "/"
    assert (tmp_path / "code").read_text() == "0\n"


def test_a_full_disk(output: Path, tmp_path: Path) -> None:
    line = ["sh", "-c", 'exec "$0" -m fcn_cli list out >/dev/full', sys.executable]
    assert "stdout: cannot be written" in run_line(line, cwd=tmp_path, code=5).stderr


def test_the_files_of_one_output_type(fcn: Fcn, output: Path, tmp_path: Path) -> None:
    cats = fcn("list", "out", "--class", "cat", "--min", "70%", "--outputs", "masks").stdout
    assert cats == "".join(f"{tmp_path}/out/masks/sub/cats {rows}.png\n" for rows in (7, 8, 9))
    colours = fcn("list", "out", "--class", "cat", "--min", "90%", "-0", "--outputs", "color").stdout
    assert colours == f"{tmp_path}/out/color/sub/cats 9.png\0"
    # The images are gone, their files are there.
    assert len(fcn("list", "out", "--status", "gone", "--outputs", "color").stdout.splitlines()) == 10
    nothing = fcn("list", "out", "--outputs", "overlay")
    assert nothing.stdout == ""
    assert "no matching images with overlay" in nothing.stderr


def test_cutouts_only_where_something_is_kept(fcn: Fcn, output: Path, tmp_path: Path) -> None:
    """What a cutout keeps is in its record; the images with 1, 2, … rows of cat, the even ones with a dog."""
    journal = output / "manifest.jsonl"
    looks = {
        1: "all classes",
        2: "classes 12",
        3: "classes 12",
        4: "classes 8, 12",
        5: "classes 0",
        0: "classes 8",
    }
    lines = []
    for record in map(json.loads, journal.read_text().splitlines()):
        rows = int(record["image"][9:-4]) if record["image"].startswith("sub/") else None
        if rows in looks:
            record["outputs"].append(f"cutout/sub/cats {rows}.png")
            record["output_bytes"].append(1)
            record["looks"]["cutout"] = looks[rows]
        lines.append(json.dumps(record) + "\n")
    journal.write_text("".join(lines))
    # 0: no cat; 3: no dog. Background, if it is kept, is something.
    expected = [f"{tmp_path}/out/cutout/sub/cats {rows}.png" for rows in (1, 2, 4, 5)]
    assert fcn("list", "out", "--outputs", "cutout").stdout.splitlines() == expected
    dogs = fcn("list", "out", "--outputs", "cutout", "--class", "dog").stdout.splitlines()
    assert dogs == [expected[1], expected[2]]


@pytest.mark.long
def test_the_output_types_are_those_that_a_run_writes(fcn: Fcn, images: Path, tmp_path: Path) -> None:
    """Each of them, from a real run: the files exist, and the cutouts are those with a visible pixel."""
    types = ",".join(OutputTypeName)
    assert tuple(OutputTypeName) == output_type_names()
    fcn("segment", images, *SMALL, "-o", "out2", "--write", types, "--cutout", "cat")
    for name in OutputTypeName:
        listed = fcn("list", "out2", "--outputs", name).stdout.splitlines()
        there = sorted(map(str, (tmp_path / "out2" / name).iterdir()))
        if name == OutputTypeName.CUTOUT:
            there = [path for path in there if np.asarray(Image.open(path))[..., 3].any()]
            assert 0 < len(there) < 4
        assert sorted(listed) == there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--outputs masks --status failed", "images that failed have no outputs; leave --outputs or"),
        (
            "--outputs mask",
            "--outputs takes masks, color, overlay, confidence, cutout, geotiff or logits, not 'mask'",
        ),
        ("--class cot", "--class cot: out has no such class; did you mean cow or cat?"),
        ("--class qqqq", "the classes are __background__, aeroplane"),
        ("--class 21", "no such class"),
        ("--class cat --min 120%", "--min takes a percentage (5%) or a fraction"),
        ("--class cat --min 5", "--min takes"),
        ("--class cat --min x", "--min takes"),
        ("--min 5%", "name it with --class"),
        ("--class cat --min 5% --max 1%", "--min 0.05 is more than --max 0.01"),
        ("--class cat --status failed", "leave --class or --status out"),
        ("--status lost", "--status takes ok, failed or gone"),
    ],
)
def test_wrong_requests(fcn: Fcn, output: Path, options: str, message: str) -> None:
    done = fcn("list", "out", *options.split(), code=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_what_is_no_output_directory(fcn: Fcn, output: Path) -> None:
    (output / "classes.json").unlink()
    assert "classes.json: missing" in fcn("list", "out", "--class", "cat", code=2).stderr
    (output / "settings.json").unlink()
    assert "not an output directory" in fcn("list", "out", code=2).stderr
