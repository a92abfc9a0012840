"""No value of an option hangs a command or ends it with a bug: numbers have bounds, files are files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
import typer
from typer.models import ArgumentInfo, OptionInfo

from fcn_cli import RequestError, Segmenter
from fcn_cli.cli.app import app
from fcn_cli.common import limits
from fcn_cli.inputs import file_lists

from ..conftest import SMALL, Fcn, MakeImages, command, run_process, tree

# How options write a number: alone, as a number of shards, as a width, as an age.
FORMS = "{}", "1/{}", "{}x10", "{}h"
WRONG = str(2**63), "9" * 400, "-1", "nan", "inf", "", "\u0661"
FILES = "--weights", "--class-names", "--palette", "--files-from"


class Number(NamedTuple):
    """An option that takes a number; `form` is how it is written, `arguments` how many the command has."""

    words: tuple[str, ...]
    option: str
    variable: str | None
    parser: Callable[[str], Any]
    form: str
    arguments: int


def numbers(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[Number]:
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from numbers(below.typer_instance, (*words, str(below.name)))
    for each in group.registered_commands:
        assert each.callback is not None
        parameters = {
            name: hint.__metadata__[0]
            for name, hint in get_type_hints(each.callback, include_extras=True).items()
            if hasattr(hint, "__metadata__")
        }
        arguments = sum(isinstance(one, ArgumentInfo) for one in parameters.values())
        for name, found in parameters.items():
            if isinstance(found, OptionInfo) and (form := form_of(found.parser)) is not None:
                # Typer has the first name of an option where its default may be.
                declared = [
                    one for one in (found.default, *(found.param_decls or ())) if isinstance(one, str)
                ]
                option = (declared or [f"--{name.replace('_', '-')}"])[0]
                variable = found.envvar if isinstance(found.envvar, str) else None
                command_name = each.name or each.callback.__name__
                assert found.parser is not None
                yield Number((*words, command_name), option, variable, found.parser, form, arguments)


def converts(parser: Callable[[str], Any], text: str) -> bool:
    try:
        parser(text)
    except typer.BadParameter:
        return False
    return True


def form_of(parser: Callable[[str], Any] | None) -> str | None:
    """Return how an option writes a number, or None for one that takes no number."""
    if parser is None or converts(parser, "some text"):
        return None
    good = (form for form in FORMS if any(converts(parser, form.format(text)) for text in ("1", "0.5")))
    return next(good, None)


NUMBERS = list(numbers(app))


def test_the_walk_finds_the_numbers() -> None:
    found = {(*number.words, number.option) for number in NUMBERS}
    for option in ("--shard", "--threads", "--workers", "--batch-size", "--tile", "--overlap", "--resize"):
        assert ("segment", option) in found
    for option in ("--scales", "--wait", "--decode-timeout", "--max-image-pixels", "--opacity"):
        assert ("segment", option) in found
    assert {("bench", "--size"), ("bench", "--rounds"), ("evaluate", "--threads")} <= found
    assert {("list", "--min"), ("status", "--max-age")} <= found


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: " ".join((*number.words, number.option)))
def test_a_number_out_of_range_is_refused_at_once(
    number: Number, fcn: Fcn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["x"] * number.arguments
    if number.words == ("export",):
        arguments += ["--format", "coco", "--output", "exported"]
    start = time.monotonic()
    assert [wrong for wrong in WRONG if converts(number.parser, number.form.format(wrong))] == []
    value = number.form.format(WRONG[0])
    refused = {number.option: fcn(*number.words, f"{number.option}={value}", *arguments, code=2)}
    if number.variable:
        monkeypatch.setenv(number.variable, value)
        refused[number.variable] = fcn(*number.words, *arguments, code=2)
    for name, done in refused.items():
        assert done.stderr.startswith(f"fcn: {name} takes ")
        assert done.stderr.count("\n") == 1
    assert time.monotonic() - start < 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_largest_numbers_work(make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images([f"p{i}.png" for i in range(3)])
    largest: list[str | int] = [
        *("--workers", limits.MOST_WORKERS, "--batch-size", limits.MOST_IN_A_BATCH),
        *("--wait", limits.MOST_SECONDS, "--decode-timeout", limits.MOST_SECONDS),
        *("--max-image-pixels", limits.MOST_PIXELS, "--tile", limits.LONGEST_SIDE),
        *("--overlap", limits.LONGEST_SIDE // 2),
    ]
    line = ["segment", str(made), *SMALL, "-o", "out", *map(str, largest)]
    run_process(*line, cwd=tmp_path)
    run_process(*line, "--shard", f"1/{limits.MOST_SHARDS}", cwd=tmp_path)
    # A journal whose name says that there are more shards is none.
    (tmp_path / "out/manifest.1-of-999999999999.jsonl").touch()
    for words in (("status", "out"), ("merge", "out")):
        start = time.monotonic()
        done = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, timeout=60, check=False)
        assert done.returncode in {0, 1}, done.stderr
        assert time.monotonic() - start < 30


@pytest.mark.parametrize("name", ["threads", "batch_size", "resize", "tile"])
@pytest.mark.parametrize("value", [2**63, 0, -1])
def test_segmenter_refuses_them_too(name: str, value: int) -> None:
    with pytest.raises(RequestError, match=f"{name} {value}: a whole number from 1 to"):
        Segmenter("efficientnet_lite0", **{name: value})  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs devices")
@pytest.mark.parametrize("option", FILES)
@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "sparse"])
def test_what_is_no_file_is_refused_as_one(
    option: str, kind: str, fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(["a.png"])
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "sparse":
        path.touch()
        os.truncate(path, 20 << 30)
    elif kind == "socket":
        _socket_at(path)
    elif kind == "pipe":
        if option == "--files-from":
            pytest.skip("a list may come through a pipe, and then is waited for")
        os.mkfifo(path)
    if (option, kind) == ("--weights", "sparse"):
        pytest.skip("a checkpoint may be large")
    inputs = [] if option == "--files-from" else [made]
    start = time.monotonic()
    done = fcn("segment", *inputs, *SMALL, option, path, "-o", "out", code=2)
    assert str(path) in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - start < 5
    variable = f"FCN_{option[2:].upper().replace('-', '_')}"
    if option != "--files-from":
        monkeypatch.setenv(variable, str(path))
        assert fcn("segment", made, *SMALL, "-o", "out", code=2).stderr == done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_annotations_that_are_no_file(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    make_images(["a.png"])
    os.mkfifo(tmp_path / "pipe.json")
    done = fcn("evaluate", "made", "pipe.json", *SMALL, code=2)
    assert done.stderr == "fcn: pipe.json: cannot be read (not a regular file)\n"
    (tmp_path / "sparse.json").touch()
    os.truncate(tmp_path / "sparse.json", 20 << 30)
    assert "more than 2,097,152 KiB" in fcn("evaluate", "made", "sparse.json", *SMALL, code=2).stderr


def _socket_at(path: Path) -> None:
    import socket

    made = socket.socket(socket.AF_UNIX)
    try:
        os.chdir(path.parent)
        made.bind(path.name)
    finally:
        made.close()


def test_lists_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = command("segment", "--files-from", "-", "-o", "out")
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(line, stdin=endless, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "fcn: --files-from -: a device, not a list of files" in done.stderr
    run_process("segment", "--files-from", "/dev/null", "-o", "out", cwd=tmp_path)
    monkeypatch.setattr(file_lists, "MOST_BYTES", 5000)
    (tmp_path / "long").write_text("a\n" * 3000)
    with pytest.raises(RequestError, match="split the list"):
        file_lists.read_list(str(tmp_path / "long"))
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless_pipe:
        assert endless_pipe.stdout is not None
        with pytest.raises(RequestError, match="split the list"):
            file_lists.read_list(f"/dev/fd/{endless_pipe.stdout.fileno()}")
        endless_pipe.kill()


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_log_file_that_nobody_reads_is_refused(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = fcn("segment", make_images(["a.png"]), "--log-file", "pipe", "--dry-run", code=2)
    assert done.stderr == "fcn: --log-file pipe: cannot be written (No such device or address)\n"
    fcn("segment", make_images(["a.png"]), *SMALL, "--log-file", "/dev/null", "--dry-run")


URL_IS_NO_PATH = [
    *("segment made --class-names URL", "segment made --palette URL", "segment made --log-file URL"),
    *("segment --files-from URL", "evaluate made URL", "evaluate made made --predictions URL"),
    *("evaluate made made --report URL", "compare URL made", "compare made URL", "weights fetch --to URL"),
]
URL_OF_A_STORE = [
    *("segment URL --weights checkpoint.pth", "segment made -o URL", "segment made --weights URL"),
    *("segment URL -o -", "evaluate URL made", "report URL", "status URL", "export URL --format coco -o x"),
]


@pytest.mark.parametrize("line", URL_IS_NO_PATH + URL_OF_A_STORE)
def test_unknown_kinds_of_urls(line: str, fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    url = "mailbox+new://host/name"
    make_images(["a.png"])
    before = tree(tmp_path)
    start = time.monotonic()
    done = fcn(*(url if word == "URL" else word for word in line.split()), code=2)
    assert done.stderr.count("\n") == 1
    assert url.partition("://")[0] in done.stderr
    if line in URL_IS_NO_PATH:
        assert f" takes a path on this machine, not '{url}'; see fcn " in done.stderr
    assert time.monotonic() - start < 5
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_unknown_kinds_of_urls_from_the_environment(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_images(["a.png"])
    for name in ("OUTPUT", "WEIGHTS", "CLASS_NAMES", "PALETTE", "LOG_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv(f"FCN_{name}", "foo://x")
            done = fcn("segment", made, *SMALL, code=2)
        assert "foo://" in done.stderr
        assert done.stderr.count("\n") == 1
