"""``fcn segment IMAGE -o -`` or ``-o cat.png``: one image from a file or a pipe, one PNG, no other file."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from fcn_cli.__main__ import run
from fcn_cli.cli import one_image
from fcn_cli.cli.app import app
from fcn_cli.cli.one_image import _PARAMETERS
from fcn_cli.common import limits, palettes

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, command, tree
from ..terminal import on_a_terminal

CHELSEA = SAMPLES / "chelsea.png"


@pytest.fixture
def piped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fcn: Fcn
) -> Callable[..., bytes]:
    """Run the entry point in this process with files as stdin and stdout; return what stdout holds."""

    def call(*arguments: str | Path, stdin: Path | None = None, code: int = 0) -> bytes:
        output = tmp_path.parent / f"{tmp_path.name}-stdout"
        with monkeypatch.context() as patch, output.open("w") as stdout, open(stdin or "/dev/null") as given:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stdin", given)
            got = run([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        assert got == code, shown.err
        assert shown.out == ""
        assert "Traceback" not in shown.err
        return output.read_bytes()

    return call


def shell(line: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a pipeline in which FCN stands for the command."""
    text = line.replace("FCN", shlex.join(command()))
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", text],
        cwd=cwd,
        capture_output=True,
        timeout=150,
        check=False,
        **options,
    )


@pytest.mark.long
def test_a_mask_through_pipes_is_byte_for_byte_that_of_a_folder(
    fcn: Fcn, images: Path, tmp_path: Path
) -> None:
    fcn("segment", "photos", *SMALL, "-o", "out")
    (tmp_path / "work").mkdir()
    line = f"cat ../photos/chelsea.png | FCN segment - -o - {shlex.join(SMALL)} | cat > mask.png"
    done = shell(line, tmp_path / "work")
    assert done.returncode == 0, done.stderr
    mask = tmp_path / "work/mask.png"
    assert mask.read_bytes() == (tmp_path / "out/masks/chelsea.png").read_bytes()
    assert np.array(Image.open(mask)).any()
    # No output directory, no journal, no lock.
    assert sorted(tree(tmp_path / "work")) == ["mask.png"]


@pytest.mark.long
def test_every_kind_is_a_png(fcn: Fcn, piped: Callable[..., bytes], tmp_path: Path) -> None:
    looks = ("--palette", "bright", "--opacity", "0.4", "--legend", "--write")
    images = {}
    kinds = ("masks", "color", "overlay", "confidence", "cutout")
    for kind in kinds:
        images[kind] = piped("segment", CHELSEA, *SMALL, *looks, kind, "-o", "-")
        assert Image.open(io.BytesIO(images[kind])).format == "PNG"
        assert tree(tmp_path) == {}
    fcn("segment", CHELSEA, *SMALL, *looks, ",".join(kinds), "-o", "out")
    files = tree(tmp_path / "out")
    for kind in set(kinds) - {"overlay"}:
        assert images[kind] == files[f"{kind}/chelsea.png"], kind
    assert Image.open(io.BytesIO(images["color"])).getpalette() == palettes.bright().flatten().tolist()
    drawn, expected = (
        Image.open(io.BytesIO(data)) for data in (images["overlay"], files["overlay/chelsea.jpg"])
    )
    assert drawn.size == expected.size
    assert drawn.height > 300, "it has a legend"
    # The JPEG differs by its compression only.
    assert np.abs(np.array(drawn, dtype=int) - np.array(expected, dtype=int)).mean() < 3


def test_stdin_without_a_suffix_and_turned_by_exif(piped: Callable[..., bytes], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(CHELSEA).convert("RGB").save(tmp_path / "photo", "JPEG", exif=exif)
    data = piped("segment", "-", *SMALL, "-o", "-", "-q", stdin=tmp_path / "photo")
    assert Image.open(io.BytesIO(data)).size == (300, 451)


def test_the_output_may_come_from_the_environment(
    piped: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is set for all runs of a user is no reason to refuse.
    for name, value in {"OUTPUT": "-", "WAIT": "60", "KEEP_EXTENSION": "1", "WRITE": "color"}.items():
        monkeypatch.setenv(f"FCN_{name}", value)
    assert Image.open(io.BytesIO(piped("segment", CHELSEA, *SMALL))).mode == "P"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "nothing is written for stdin: the file is empty (0 bytes)"),
        (CHELSEA.read_bytes()[:50_000], "nothing is written for stdin: "),
    ],
    ids=["empty", "cut"],
)
def test_an_image_that_fails_writes_nothing_and_exits_with_1(
    fcn: Fcn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    (tmp_path / "given").write_bytes(data)
    with (tmp_path / "given").open() as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        done = fcn("segment", "-", *SMALL, "-o", "-", code=1)
    assert done.stdout == ""
    assert message in done.stderr


def test_stdin_is_read_no_further_than_an_image_can_be_long(
    piped: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(one_image, "print_message", messages.append)
    monkeypatch.setattr(limits, "IMAGE_BYTES", 0)
    endless = Path("/dev/zero")
    assert (
        piped("segment", "-", *SMALL, "--max-image-pixels", "1000000", "-o", "-", stdin=endless, code=1)
        == b""
    )
    assert messages == [
        "nothing is written for stdin: an image of more than 7 MiB is more than 1000000 pixels; if that is "
        "intended, raise --max-image-pixels"
    ]


def test_stdin_that_cannot_be_read_is_an_image_that_fails(tmp_path: Path) -> None:
    done = shell("FCN segment - -o - 0> only-for-writing", tmp_path)
    assert done.returncode == 1
    assert b"fcn: nothing is written for stdin: cannot be read (Bad file descriptor)" in done.stderr


@pytest.mark.long
def test_a_reader_that_closes_the_pipe_is_no_error(tmp_path: Path) -> None:
    line = f"FCN segment {shlex.quote(str(CHELSEA))} -o - {shlex.join(SMALL)}"
    done = shell(f"{line} | head -c 0; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout == b"0\n", done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fcn: Fcn
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert run(["segment", str(CHELSEA), *SMALL, "-o", "-"]) == 5
    assert "fcn: stdout: cannot be written (No space left on device)" in capfd.readouterr().err


@pytest.mark.long
def test_a_terminal_gets_no_binary_and_is_no_image(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    line = command("segment", "made/a.png", *SMALL, "-o", "-")
    shown = on_a_terminal(line, 200, cwd=tmp_path, environment={}, code=2)
    assert shown.count("\n") == 1
    assert "stdout is a terminal, and a PNG is binary; redirect it (> mask.png)" in shown
    quoted = shlex.join(command("segment", "-", *SMALL, "-o", "-"))
    shown = on_a_terminal(["sh", "-c", f"{quoted} > mask.png"], 200, cwd=tmp_path, environment={}, code=2)
    assert "stdin is a terminal; pipe an image into fcn, or name a file" in shown


def test_a_closed_stdout_is_refused(tmp_path: Path) -> None:
    done = shell(f"FCN segment {shlex.quote(str(CHELSEA))} -o - {shlex.join(SMALL)} >&-", tmp_path)
    assert done.returncode == 2
    assert b"fcn: -o -: stdout is closed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "-o", "out"), "'-' reads one image from stdin: add -o - or -o NAME.png"),
        (("made", "-", "-o", "out"), "'-' reads one image from stdin"),
        (("-o", "-"), "-o - takes exactly one image, a file or '-' for stdin, not none"),
        (("made/a.png", "made/b.png", "-o", "-"), "takes exactly one image, a file or '-' for stdin, not 2"),
        (("made/a.png", "-", "-o", "-"), "takes exactly one image, a file or '-' for stdin, not 2"),
        (("made", "-o", "-"), "made: -o - takes one image file, not a directory or a pattern"),
        (("made/*.png", "-o", "-"), "made/*.png: -o - takes one image file, not a directory or a pattern"),
        (("", "-o", "-"), "an input name is empty"),
        (("made/c.png", "-o", "-"), "made/c.png: no such file or directory"),
        (
            ("made/a.png", "-o", "-", "--write", "masks,color"),
            "-o writes one PNG, not 2 (masks, color)",
        ),
        (
            ("made/a.png", "-o", "-", "--write", "masks", "--cutout", "cat"),
            "-o writes one PNG, not 2",
        ),
        (("made/a.png", "-o", "-", "--write", "cutout", "--cutout", "x"), "--cutout x: no such class"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    make_images(["a.png", "b.png"])
    before = tree(tmp_path)
    done = fcn("segment", *arguments, *SMALL, code=2)
    assert message in done.stderr
    assert (done.stdout, tree(tmp_path)) == ("", before)


def test_one_image_becomes_one_file(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "b.png"])
    (tmp_path / "broken.png").write_bytes(b"?")
    (tmp_path / "sub").mkdir()
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,overlay")
    before = tree(tmp_path)
    for name in ("a-mask.png", "sub/A.PNG"):
        assert fcn("segment", "made/a.png", *SMALL, "-o", name).stdout == ""
        assert (tmp_path / name).read_bytes() == before["out/masks/a.png"]
    # The same name again is that file, replaced whole, and a failure leaves it as it is.
    fcn("segment", "made/b.png", *SMALL, "-o", "a-mask.png")
    mask = (tmp_path / "a-mask.png").read_bytes()
    assert mask == before["out/masks/b.png"]
    assert (
        "nothing is written for broken.png"
        in fcn("segment", "broken.png", *SMALL, "-o", "a-mask.png", code=1).stderr
    )
    assert (tmp_path / "a-mask.png").read_bytes() == mask
    fcn("segment", "made/a.png", *SMALL, "--write", "overlay", "-o", "over.png")
    with Image.open(tmp_path / "over.png") as opened:
        assert (opened.format, opened.mode, opened.size) == (
            "PNG",
            "RGB",
            Image.open(tmp_path / "made/a.png").size,
        )
    made = {name: data for name, data in tree(tmp_path).items() if name not in before}
    assert set(made) == {"a-mask.png", "sub/A.PNG", "over.png"}
    # A directory is one whatever its name.
    fcn("segment", "made/a.png", *SMALL, "-o", "new.png/")
    fcn("segment", "made/a.png", "made/b.png", *SMALL, "-o", "new.png")
    assert {"new.png/masks/a.png", "new.png/masks/b.png"} <= set(tree(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("made/a.png", "-o", "a.jpg"),
            "-o a.jpg: an image is written as PNG; use a.png, or a.jpg/ for a directory",
        ),
        (("made/a.png", "-o", "no/a.png"), "there is no directory no"),
        (("made/a.png", "-o", "made/a.png"), "-o made/a.png: is the input itself"),
        (("made/a.png", "-o", "link.png"), "-o link.png: is the input itself"),
        (
            ("made/a.png", "made/b.png", "-o", "x.png"),
            "takes exactly one image, a file or '-' for stdin, not 2",
        ),
        (("made", "-o", "x.png"), "made: -o x.png takes one image file, not a directory or a pattern"),
        (("made/a.png", "-o", "x.png", "--json"), "--json cannot be used with -o x.png"),
        (("made/a.png", "-o", "pipe.png"), "pipe.png: exists and is not a regular file"),
    ],
)
def test_files_that_cannot_be_meant(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    make_images(["a.png", "b.png"])
    (tmp_path / "link.png").symlink_to("made/a.png")
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.rglob("*"))
    assert message in fcn("segment", *arguments, *SMALL, code=2).stderr.replace("--output", "-o")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_input_is_never_replaced(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(["a.png"])
    os.link(made / "a.png", tmp_path / "hard.png")
    before = tree(tmp_path)
    url = f"file://{made}/a.png"
    with (made / "a.png").open() as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        for given, output in ((url, "made/a.png"), ("made/a.png", url), (url, "hard.png"), ("-", "hard.png")):
            done = fcn("segment", given, *SMALL, "-o", output, code=2)
            assert "is the input itself" in done.stderr, (given, output)
    assert tree(tmp_path) == before


REFUSED = {
    "--ignore-case": (),
    "--json": (),
    "--dry-run": (),
    "--overwrite": (),
    "--retry-failed": (),
    "--prune": (),
    "--keep-extension": (),
    "--fail-fast": (),
    "--null": (),
    "--wait": ("5",),
    "--root": (".",),
    "--include": ("*",),
    "--exclude": ("*",),
    "--files-from": ("-",),
    "--report": (),
    "--watch": (),
    "--shard": ("1/2",),
    "--ray": ("local",),
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_mean_nothing_there_are_refused(fcn: Fcn, option: str) -> None:
    done = fcn("segment", CHELSEA, *SMALL, "-o", "-", option, *REFUSED[option], code=2)
    assert f"fcn: {option} cannot be used with -o -" in done.stderr
    assert done.stdout == ""


def test_every_option_is_either_for_one_image_or_refused() -> None:
    """A new option that shapes masks or pictures goes into `_PARAMETERS`, any other one into `REFUSED`."""
    segment: Any = vars(typer.main.get_command(app))["commands"]["segment"]
    options = {parameter.name: max(parameter.opts, key=len) for parameter in segment.params}
    assert set(options) >= _PARAMETERS
    assert {options[name] for name in set(options) - _PARAMETERS} == set(REFUSED)


def test_help_names_the_pipe(fcn: Fcn) -> None:
    text = " ".join(fcn("segment", "--help").stdout.split())
    assert "one image (`-` is stdin) becomes a PNG file, or a PNG on stdout" in text
