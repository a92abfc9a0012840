"""`fcn report` and `fcn segment --report`: what the page and its files hold, without a browser."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from fcn_cli.outputs.output_store import LocalStore

from ..cli.test_start import heavy_modules
from ..conftest import SMALL, Fcn, MakeImages, command, journal_of, start_and_wait_for_records, tree
from .made import write_output, write_run
from .pages import Page, read_page

EVIL = "<img src=x onerror=document.title='broken'>.jpg"


def segmented(fcn: Fcn, images: Path, *more: str, code: int = 0) -> Page:
    fcn("segment", images, *SMALL, "-o", "out", "--report", *more, code=code)
    return read_page(Path("out").absolute())


def pictures(output: Path) -> dict[str, tuple[int, int]]:
    """Return the pictures with what changes when they are written again."""
    files = (output / "report/images").rglob("*.*")
    return {path.name: ((status := path.stat()).st_ino, status.st_mtime_ns) for path in files}


def has_all(row: dict[str, Any]) -> bool:
    return all(row[name] for name in ("small", "large", "grid", "labels"))


def colors_of(output: Path) -> dict[int, list[int]]:
    classes = json.loads((output / "classes.json").read_text())
    return {int(index): value["color"] for index, value in classes.items()}


@pytest.mark.long
def test_the_page_shows_what_the_journal_says(fcn: Fcn, images: Path) -> None:
    page = segmented(fcn, images, "--write", "masks,color,confidence")
    records = journal_of(Path("out"))
    assert [row["name"] for row in page.rows] == sorted(records)
    for name, record in records.items():
        row = page.row(name)
        flat = [number for index, pixels in record["classes"].items() for number in (int(index), pixels)]
        assert row["classes"] == flat
        assert (row["width"], row["height"]) == (record["width"], record["height"])
        assert (row["confidence"], row["seconds"]) == (record["mean_confidence"], record["seconds"])
        assert has_all(row)
        linked = {
            f"{each['name']}/{row['stem']}{each['suffix']}"
            for bit, each in enumerate(page.data["types"])
            if row["types"] & 1 << bit
        }
        assert linked == set(record["outputs"])
    summary = json.loads(Path("out/summary.json").read_text())
    assert len(page.rows) == 4
    assert "efficientnet_lite0" in page.text
    for entry in summary["totals"]["classes"].values():
        assert entry["name"] in page.text
        if entry["fraction"] > 0.001:
            assert f"{entry['fraction']:.1%}".replace("%", " %") in page.text
    bars = [
        attributes for tag, attributes in page.tags if tag == "rect" and attributes.get("class") == "fill"
    ]
    widths = [float(str(bar["width"]).rstrip("%")) for bar in bars]
    expected: list[float] = []
    for entry in sorted(summary["totals"]["classes"].values(), key=lambda entry: -entry["pixels"]):
        expected += [100 * entry["fraction"], 100 * entry["images"] / 4]
    assert widths == pytest.approx(expected, abs=1e-3)
    colors = colors_of(Path("out"))
    used = {"#" + bytes(colors[int(index)]).hex() for index in summary["totals"]["classes"]}
    assert {bar["fill"] for bar in bars} == used


@pytest.mark.long
def test_pictures_are_the_image_and_its_mask(fcn: Fcn, images: Path) -> None:
    with Image.open(images / "coffee.png") as opened:
        large = opened.convert("RGB").resize((1800, 1200))
    large.save(images / "coffee.png")
    page = segmented(fcn, images)
    colors = colors_of(Path("out"))
    for row in page.rows:
        with Image.open(images / row["name"]) as opened:
            image = opened.convert("RGB")
        mask = np.array(Image.open(page.root / f"masks/{row['stem']}.png"))
        for suffix, longest in (("small", 320), ("large", 1280)):
            with Image.open(page.picture(row, suffix)) as picture:
                assert max(picture.size) == min(longest, max(image.size))
                expected = np.asarray(image.resize(picture.size, Image.Resampling.LANCZOS), float)
                assert np.abs(np.asarray(picture, float) - expected).mean() < 6
        grid = page.grid(row)
        assert max(grid.shape) == min(1280, max(image.size))
        if max(image.size) <= 1280:
            assert np.array_equal(grid, mask)
        else:
            shrunk = Image.fromarray(mask).resize(grid.shape[::-1], Image.Resampling.NEAREST)
            assert np.array_equal(grid, np.asarray(shrunk))
        with Image.open(page.layer(row)) as layer:
            small = np.asarray(Image.fromarray(mask).resize(layer.size, Image.Resampling.NEAREST))
            shown = np.asarray(layer.convert("RGBA"))
        assert max(small.shape) == 320
        assert np.array_equal(shown[..., 3] == 0, small == 0)
        for index in np.unique(small):
            assert (shown[small == index][:, :3] == colors[int(index)]).all()


def test_images_stand_upright_and_sixteen_bits_are_shifted(fcn: Fcn, make_images: MakeImages) -> None:
    folder = make_images(["turned.jpg", "deep.png"], size=(64, 40))
    with Image.open(folder / "turned.jpg") as opened:
        exif = Image.Exif()
        exif[0x0112] = 6
        upright = opened.transpose(Image.Transpose.ROTATE_270)
        opened.save(folder / "turned.jpg", exif=exif, quality=95)
    deep = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    page = segmented(fcn, folder)
    for name, expected in (
        ("turned.jpg", upright),
        ("deep.png", Image.fromarray((deep >> 8).astype(np.uint8))),
    ):
        with Image.open(page.picture(page.row(name), "large")) as picture:
            assert picture.size == expected.size
            assert not picture.getexif()
            difference = np.asarray(picture, float) - np.asarray(expected.convert("RGB"), float)
        assert np.abs(difference).mean() < 8


def test_names_are_text_whatever_they_are(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    names = [
        EVIL,
        "a#b?c%20d.jpg",
        'it\'s "quoted" & more.jpg',
        "sub dir/ü.jpg",
        "</script><b>.jpg".replace("/", "_"),
    ]
    folder = make_images(names)
    undecodable = os.fsencode(folder) + b"/caf\xe9.jpg"
    shutil.copy(os.fsencode(folder / names[1]), undecodable)
    (folder / "<b id=x>broken.jpg").write_text("no image")
    page = segmented(fcn, folder, code=1)
    assert {row["name"] for row in page.rows} == {*names, "caf\\xe9.jpg"}
    assert "<img src=x" not in page.html
    assert "<b id" not in page.html
    assert "<b id=x>broken.jpg" in page.text
    for row in page.rows:
        path = os.fsencode(page.root) + b"/masks/" + unquote_to_bytes(row["stem"]) + b".png"
        assert os.path.isfile(path)
        assert set(row["stem"]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%")
        assert page.picture(row, "small").is_file()
    # Class names come from a file of the user's.
    classes = json.loads((tmp_path / "out/classes.json").read_text())
    classes["0"]["name"] = "</script><script>alert(1)</script>"
    (tmp_path / "out/classes.json").write_text(json.dumps(classes))
    fcn("report", "out")
    page = read_page(tmp_path / "out")
    assert "<script>alert" not in page.html
    assert "</script><script>alert(1)</script>" in page.text


@pytest.mark.long
def test_what_is_there_is_not_made_again(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png", "b.png"])
    segmented(fcn, folder)
    before = pictures(tmp_path / "out")
    assert len(before) == 2 * 4
    html = (tmp_path / "out/report.html").read_text()
    segmented(fcn, folder)
    assert pictures(tmp_path / "out") == before
    make_images(["a.png", "b.png", "c.png"], "more")
    shutil.copy(tmp_path / "more/c.png", folder)
    page = segmented(fcn, folder)
    after = pictures(tmp_path / "out")
    assert before.items() < after.items()
    assert {name[:20] for name in after.keys() - before.keys()} == {page.row("c.png")["key"]}
    # Other colours change the pictures of the label maps only.
    page = segmented(fcn, folder, "--palette", "voc")
    recolored = pictures(tmp_path / "out")
    kept = after.keys() & recolored.keys()
    assert len(kept) == 3 * 3
    assert all(after[name] == recolored[name] for name in kept)
    assert {name.partition(".")[2] for name in recolored.keys() ^ after.keys()} == {"png"}
    assert {page.layer(row).name for row in page.rows} == recolored.keys() - after.keys()
    # Images that have moved are the same.
    before = pictures(tmp_path / "out")
    folder = folder.rename(tmp_path / "moved")
    segmented(fcn, folder, "--palette", "voc")
    assert pictures(tmp_path / "out") == before
    # An image that has changed is another picture.
    Image.new("RGB", (70, 50), "green").save(folder / "a.png")
    key = page.row("a.png")["key"]
    assert segmented(fcn, folder).row("a.png")["key"] != key
    assert html != (tmp_path / "out/report.html").read_text()


def test_pictures_and_pages_that_nothing_needs_go(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png", "b.png"])
    old = segmented(fcn, folder)
    (folder / "a.png").unlink()
    strange = tmp_path / "out/report/images/notes.txt"
    strange.write_text("not ours")
    torn = old.picture(old.row("a.png"), "small").with_name(".fcn-1-0123abcd-7.tmp")
    torn.write_bytes(b"half")
    fcn("segment", folder, *SMALL, "-o", "out", "--prune", "--report")
    page = read_page(tmp_path / "out")
    kept = {page.picture(page.row("b.png"), what) for what in ("small", "large")}
    kept |= {page.layer(page.row("b.png")), page.script(page.row("b.png")), strange}
    assert {path for path in (tmp_path / "out/report/images").rglob("*") if path.is_file()} == kept
    assert set(os.listdir(tmp_path / "out/report")) == {"images", Path(page.data["base"]).name}


def test_prepared_and_torn_pictures_are_made_again(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    """Whatever lies in a report's directory, the page runs only what this report has made or checked."""
    write_run(make_images(["a.png"]), tmp_path / "out")
    fcn("report", "out")
    page = read_page(tmp_path / "out")
    (row,) = page.rows
    honest = tree(tmp_path / "out/report/images")
    grid = page.script(row).read_bytes()
    evil = (
        b"alert(1);",
        grid + b"alert(1);",
        grid.replace(b'"w":', b'"x":alert(1),"w":'),
        grid.replace(b"[", b"[alert(1),", 1),
        grid.replace(b"fcnReport", b"alert(1);fcnReport"),
    )
    for number, script in enumerate(evil):
        # Under a name that has the right hash, and under the old name.
        digest = hashlib.blake2b(script, digest_size=6).hexdigest()
        page.script(row).with_name(f"{row['key']}-grid-{digest}.js").write_bytes(script)
        if number % 2:
            page.script(row).write_bytes(script)
    # A power cut leaves names without content.
    page.picture(row, "large").write_bytes(b"")
    page.layer(row).write_bytes(page.layer(row).read_bytes()[:-9])
    fcn("report", "out")
    assert tree(tmp_path / "out/report/images") == honest
    (again,) = read_page(tmp_path / "out").rows
    assert again == row


def test_a_report_that_fails_leaves_the_earlier_page_whole(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(make_images(["a.png"]), tmp_path / "out")
    fcn("report", "out")
    before = tree(tmp_path / "out")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalStore, "write_text", full)
    assert "No space left" in fcn("report", "out", code=5).stderr
    assert tree(tmp_path / "out") == before


@pytest.mark.long
def test_no_torch(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL, "-o", "out")
    assert heavy_modules("report", "out", cwd=tmp_path) == "[]"
    (tmp_path / "out/report.html").unlink()
    assert heavy_modules("segment", "made", *SMALL, "-o", "out", "--report", cwd=tmp_path) == "[]"
    assert len(read_page(tmp_path / "out").rows) == 1


def test_from_the_directory_alone(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png", "b.png", "c.png"])
    write_run(folder, tmp_path / "out")
    (folder / "a.png").unlink()
    Image.new("RGB", (60, 48)).save(folder / "b.png")
    assert "2 of them without" in fcn("report", "out").stderr
    page = read_page(tmp_path / "out")
    for name, reason in (("a.png", "no longer"), ("b.png", "has changed")):
        row = page.row(name)
        assert (row["large"], row["grid"] is None) == (None, False)
        assert reason in row["notes"][0]
        assert page.layer(row).is_file()
        assert page.grid(row).shape == (48, 60 + (name == "b.png"))
    kept = page.row("c.png")
    (folder / "c.png").unlink()
    fcn("report", "out")
    # A picture of the image that was made while it was there stays.
    again = read_page(tmp_path / "out").row("c.png")
    assert again == kept


def test_damaged_masks_are_notes_and_colours_stand_in(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    folder = make_images(["a.png", "b.png", "c.png"])
    write_run(folder, tmp_path / "out")
    (tmp_path / "out/masks/a.png").write_bytes(b"broken")
    (tmp_path / "out/masks/b.png").unlink()
    Image.new("L", (5, 5)).save(tmp_path / "out/masks/c.png")
    (tmp_path / "out/color/c.png").unlink()
    fcn("report", "out")
    page = read_page(tmp_path / "out")
    for name in ("a.png", "b.png"):
        labels = np.array(Image.open(tmp_path / "out/color" / name))
        assert np.array_equal(page.grid(page.row(name)), labels)
    assert (page.row("c.png")["large"] is None, page.row("c.png")["grid"]) == (False, None)
    assert "missing or damaged" in page.row("c.png")["notes"][0]


def test_an_overlay_alone_is_shown(fcn: Fcn, make_images: MakeImages) -> None:
    page = segmented(fcn, make_images(["a.png"]), "--write", "overlay")
    (row,) = page.rows
    assert (row["large"] is None, row["grid"]) == (False, None)
    with Image.open(page.picture(row, "large")) as shown, Image.open("out/overlay/a.jpg") as overlay:
        assert np.abs(np.asarray(shown, float) - np.asarray(overlay, float)).mean() < 6


@pytest.mark.long
def test_failures_have_their_reasons(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["good.png"])
    (folder / "empty.jpg").touch()
    for number in range(205):
        (folder / f"text{number:03}.jpg").write_text("no image")
    page = segmented(fcn, folder, code=1)
    (tmp_path / "again").mkdir()
    shutil.copy(folder / "good.png", tmp_path / "again/good.jpg")
    fcn("segment", tmp_path / "again/good.jpg", *SMALL, "-o", "out", "--report", code=1)
    page = read_page(tmp_path / "out")
    rows = page.table("failures")
    assert len(rows) == 207
    errors = {
        image: record["error"] for image, record in journal_of(tmp_path / "out").items() if record["error"]
    }
    for row in rows[:-1]:
        assert (row["kind"], row["message"]) == (errors[row["name"]]["kind"], errors[row["name"]]["message"])
    # What the last run refused is not in the journal.
    assert (rows[-1]["name"], rows[-1]["kind"]) == ("good.jpg", "NameTaken")
    assert "EmptyFile" in page.text
    assert "text198.jpg" in page.text
    assert "text199.jpg" not in page.text
    assert [row["name"] for row in page.rows] == ["good.png"]


@pytest.mark.long
def test_records_of_other_settings_do_not_count(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png", "b.png"])
    fcn("segment", folder, *SMALL, "-o", "out")
    fcn(
        "segment",
        folder / "a.png",
        "--backbone",
        "efficientnet_lite0",
        "--resize",
        "48",
        "-o",
        "out",
        "--overwrite",
    )
    fcn("report", "out")
    assert [row["name"] for row in read_page(tmp_path / "out").rows] == ["a.png"]


def test_while_a_run_writes(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    write_run(make_images(["a.png", "b.png"]), tmp_path / "out")
    journal = tmp_path / "out/manifest.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][:50])
    (tmp_path / "out/.fcn.holder.json").write_text("{}")
    before = tree(tmp_path / "out")
    fcn("report", "out")
    page = read_page(tmp_path / "out")
    assert [row["name"] for row in page.rows] == ["a.png"]
    assert "during a run" in page.text
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_beside_a_run_that_is_going_on(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images([f"{number}.png" for number in range(40)])
    running = start_and_wait_for_records(tmp_path, 3)
    fcn("report", "out")
    page = read_page(tmp_path / "out")
    assert 3 <= len(page.rows) <= 40
    assert all(map(has_all, page.rows))
    assert running.wait(60) == 0
    running.communicate()
    fcn("report", "out")
    assert len(read_page(tmp_path / "out").rows) == 40


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{", b"[1]", b'{"0": 3, "x": {}, "8": {"color": "red"}}', b'{"run": 7}'),
        b'{"run": {"images_per_second": 1' + 400 * b"0" + b"}}",
    ],
)
def test_damaged_files_beside_the_journal(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, damage: bytes
) -> None:
    write_run(make_images(["a.png"]), tmp_path / "out")
    for name in ("classes.json", "summary.json"):
        (tmp_path / "out" / name).write_bytes(damage)
    fcn("report", "out")
    (row,) = read_page(tmp_path / "out").rows
    assert has_all(row)


def test_only_output_directories_have_reports(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png"])
    assert "no such directory" in fcn("report", "nowhere", code=2).stderr
    assert "not an output directory" in fcn("report", folder, code=2).stderr
    assert "OUT is missing" in fcn("report", code=2).stderr
    write_run(folder, tmp_path / "out")
    path = tmp_path / "out/settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fcn_settings": 1}))
    assert "another version" in fcn("report", "out", code=2).stderr
    assert not (tmp_path / "out/report.html").exists()


@pytest.mark.long
def test_a_report_that_cannot_be_written_leaves_masks_and_the_earlier_page(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    folder = make_images(["a.png"])
    segmented(fcn, folder)
    page = (tmp_path / "out/report.html").read_bytes()
    shutil.rmtree(tmp_path / "out/report")
    (tmp_path / "out/report").write_text("in the way")
    assert "cannot be written" in fcn("report", "out", code=5).stderr
    make_images(["a.png", "b.png"], "two")
    shutil.copy(tmp_path / "two/b.png", folder)
    done = fcn("segment", folder, *SMALL, "-o", "out", "--report", code=5)
    assert "masks are not affected" in done.stderr
    assert {image: record["status"] for image, record in journal_of(tmp_path / "out").items()} == {
        "a.png": "ok",
        "b.png": "ok",
    }
    assert (tmp_path / "out/report.html").read_bytes() == page


def test_never_through_a_link(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    write_run(make_images(["a.png"]), tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/report").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in fcn("report", "out", code=5).stderr
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.long
def test_when_a_run_writes_a_report(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png"])
    fcn("segment", folder, *SMALL, "-o", "out", "--report", "--dry-run")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").touch()
    assert "no report" in fcn("segment", "--files-from", "empty", *SMALL, "-o", "out", "--report").stderr
    assert not (tmp_path / "out").exists()
    assert "report" in fcn("segment", folder, *SMALL, "-o", "out", "--report").stderr
    (tmp_path / "out/report.html").unlink()
    assert fcn("segment", folder, *SMALL, "-o", "out", "--report", "--quiet").stderr == ""
    assert (tmp_path / "out/report.html").is_file()
    # More images than can be in hand when the first one fails.
    for number in range(60):
        shutil.copy(folder / "a.png", folder / f"b{number}.png")
    (folder / "0.png").write_text("no image")
    done = fcn("segment", folder, *SMALL, "-o", "new", "--report", "--fail-fast", code=5)
    assert "no report, because the run ended early" in done.stderr
    assert not (tmp_path / "new/report.html").exists()


def test_the_variable_asks_for_a_report(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCN_REPORT", "1")
    fcn("segment", make_images(["a.png"]), *SMALL, "-o", "out")
    assert len(read_page(tmp_path / "out").rows) == 1


def test_pictures_of_a_report_are_never_input(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    fcn("segment", make_images(["a.png"]), *SMALL, "-o", "out", "--report")
    done = fcn("segment", "out/report", *SMALL, "-o", "other", code=3)
    assert "output directory of fcn" in done.stderr


@pytest.mark.long
def test_two_reports_at_once(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(12)]
    write_run(make_images(names), tmp_path / "out")
    running = [
        subprocess.Popen(command("report", "out"), cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0], [p.communicate() for p in running]
    page = read_page(tmp_path / "out")
    for row in page.rows:
        assert has_all(row)
        assert page.picture(row, "large").is_file()
        assert page.grid(row).shape == (row["height"], row["width"])
    assert not [name for name in tree(tmp_path / "out") if ".tmp" in name]


def test_the_table_comes_in_parts(fcn: Fcn, tmp_path: Path) -> None:
    records = write_output(tmp_path / "out", 2500)
    fcn("report", "out")
    page = read_page(tmp_path / "out")
    assert page.data["images"] == {"name": "images", "rows": 2500, "part": 1000}
    assert [row["name"] for row in page.rows] == [record["image"] for record in records]
    assert [row["classes"][3] for row in page.rows] == [record["classes"]["8"] for record in records]
    # The page itself does not grow with the images.
    assert len(page.html) < 40_000


def test_a_name_that_is_not_utf8_keeps_its_record(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    folder = make_images(["a.png"])
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/\xff.png")
    page = segmented(fcn, folder)
    (row,) = page.rows
    assert row["name"] == "\\xff.png"
    assert (
        base64.b64decode(json.loads((tmp_path / "out/manifest.jsonl").read_text())["image_bytes"])
        == b"\xff.png"
    )
    assert has_all(row)


@pytest.mark.long
def test_times_have_names_and_outlive_a_run_with_nothing_to_do(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    line = ("segment", make_images(["a.png", "b.png"]), *SMALL, "-o", "out", "--report")
    fcn(*line)
    seconds = [record["seconds"] for record in journal_of(tmp_path / "out").values()]
    rate = json.loads((tmp_path / "out/summary.json").read_text())["run"]["images_per_second"]
    for _ in range(2):
        page = (tmp_path / "out/report.html").read_text()
        for name, value in (
            ("images per second, last run that segmented", rate),
            ("wall time per image (s), decoding to writing", sum(seconds) / 2),
        ):
            assert f"<dt>{name}</dt><dd>{value:.3g}</dd>" in page
        assert "<dt>device</dt><dd>cpu</dd>" in page
        # Nothing to do: how the images were computed stays.
        (tmp_path / "out/report.html").unlink()
        fcn(*line)
