"""Wrong command lines, values from the environment, and help at any width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.cli import options
from fcn_cli.cli.app import app
from fcn_cli.cli.command_line import UsageError, usage_message
from fcn_cli.common.output_layout import output_type_names
from fcn_cli.common.wording import alternatives, counted

from ..conftest import SMALL, Fcn, MakeImages
from ..made_output import make_output
from ..terminal import BOXES

BACKBONES = "resnet50, resnet101 or efficientnet_lite0"
BOOLEAN = "1, true, yes or on, or 0, false, no or off"
PARSERS_OWN_WORDS = re.compile("Value error|Input should|Invalid value|Usage:|validat", re.IGNORECASE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("segment --backbone resnet5 x", f"--backbone takes {BACKBONES}, not 'resnet5'"),
        ("segment --backbone mobilenet_v2 x", "--backbone takes efficientnet_lite0 in place of mobilenet_v2"),
        ("segment --kernels x x", "--kernels takes .*torch, not 'x'"),
        ("evaluate a b --protocol x", "--protocol takes original or torchvision, not 'x'"),
        ("weights fetch x", "BACKBONE takes resnet50, resnet101, efficientnet_lite0 or all, not 'x'"),
        ("weights fetch", "BACKBONE is missing"),
        ("segment -b 0 x", "--batch-size takes auto or a whole number from 1 to 4096, not '0'"),
        ("segment -j -1 x", "--workers takes auto or a whole number from 0 to 1024, not '-1'"),
        ("segment --resize 99999 x", "--resize takes none or a short side of 1 to 16384 pixels, not '99999'"),
        ("segment --min-confidence 1.5 x", "--min-confidence takes a number from 0 to 1, not '1.5'"),
        ("segment --wait nan x", "--wait takes a number from 0 to 1000000, not 'nan'"),
        (
            "segment --max-image-pixels 1e6 x",
            "--max-image-pixels takes a whole number from 1 to 100000000000, not '1e6'",
        ),
        ("segment --write mask x", "--write takes one or more of masks, color, .*, not 'mask'"),
        ("segment --outptu o x", r"no such option: --outptu \(did you mean --output\?\)"),
        ("segment x --xyz", r"no such option: --xyz"),
        ("segment x --gpu", r"no such option: --gpu"),
        ("segment x --jobs 3", r"no such option: --jobs"),
        ("segment x --masks", r"no such option: --masks"),
        ("segment x --dryrun", r"no such option: --dryrun \(did you mean --dry-run\?\)"),
        ("segment x --batchsize 3", r"no such option: --batchsize \(did you mean --batch-size\?\)"),
        ("segment x --output-dir o", r"no such option: --output-dir \(did you mean --output\?\)"),
        ("start x", "no such command 'start'"),
        ("seg x", r"no such command 'seg' \(did you mean 'segment'\?\)"),
        ("segment x --resize", "option '--resize' requires an argument"),
        ("segment x --overwrite=1", "option '--overwrite' does not take a value"),
        ("segmnt x", r"no such command 'segmnt' \(did you mean 'segment'\?\)"),
        ("compare a", "DIR_B is missing"),
        ("compare a b c", "too many arguments: c"),
        ("bench --size 10", "--size takes WIDTHxHEIGHT in pixels, as 693x520, not '10'"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(fcn: Fcn, line: str, said: str) -> None:
    done = fcn(*line.split(), code=2)
    assert done.stdout == ""
    place = re.match("segment|evaluate|weights fetch|compare|bench|", line)
    assert place is not None
    of_it = f" {place[0]}" if line.split()[0] == place[0].split(" ")[0] else ""
    assert re.fullmatch(f"fcn: {said}; see fcn{of_it} --help\n", done.stderr), done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        "--backbone EfficientNet_Lite0 --device CPU --precision FP32 --kernels Torch --threads AUTO",
        "--write Masks,COLOR --palette Hub --workers Auto --batch-size AUTO --tile None --overlap Auto",
        "--class-names VOC --prune=FORCE --legend --write overlay --palette BRIGHT",
    ],
)
def test_words_are_taken_in_upper_and_lower_case(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, options: str
) -> None:
    """The same settings, names and looks as in lower case: with these nothing is left to do."""
    make_images(["a.png"])
    line = ("segment", "made", *SMALL, "-o", "out")
    fcn(*line, *options.split())
    assert "nothing to do" in fcn(*line, *options.lower().split()).stderr


def test_more_words_in_upper_and_lower_case(fcn: Fcn, tmp_path: Path) -> None:
    make_output(tmp_path / "out", {"a.png": np.full((4, 4), 8, np.uint8)}, tmp_path / "photos")
    assert fcn("list", "out", "--status", "OK", "--outputs", "Masks").stdout.endswith("/out/masks/a.png\n")
    fcn("export", "out", "--format", "COCO", "-o", "coco.json")
    assert fcn("weights", "fetch", "EFFICIENTNET_LITE0").stdout.endswith(".pth\n")
    figures = ("evaluate", "photos", "out/masks", "--predictions", "out")
    fcn(*figures, "--protocol", "Original", "--orientation", "AUTO")
    assert fcn("status", "out", "--max-age", "26H", code=1).stderr == ""
    # A file's name is its own: a palette of that name is that file.
    (tmp_path / "HUB").write_text("no JSON")
    assert "HUB" in fcn("segment", "photos", *SMALL, "--palette", "HUB", code=2).stderr
    # The message has what was given.
    done = fcn("export", "out", "--format", "COCOS", "-o", "x", code=2)
    assert (
        "--format takes coco, voc, yolo, labelstudio, masks, binary, geotiff or cutout, not 'COCOS'"
        in done.stderr
    )


@pytest.mark.parametrize("flags", ["-qv", "-vq", "--quiet --verbose", "-v -q"])
def test_quiet_and_verbose_together_are_refused(fcn: Fcn, flags: str) -> None:
    done = fcn("segment", "x", *flags.split(), code=2)
    assert done.stderr == "fcn: --quiet and --verbose exclude each other; leave one of them out\n"


@pytest.mark.parametrize(
    ("variable", "value", "takes"),
    [
        ("FCN_OFFLINE", "maybe", BOOLEAN),
        ("FCN_KEEP_EXTENSION", "2", BOOLEAN),
        ("FCN_BACKBONE", "resnet", BACKBONES),
        ("FCN_BATCH_SIZE", "many", "auto or a whole number from 1 to 4096"),
        ("FCN_MIN_CONFIDENCE", "50%", "a number from 0 to 1"),
        ("FCN_DECODE_TIMEOUT", "0", "a number from 0.1 to 1000000"),
        ("FCN_MAX_IMAGE_PIXELS", "", None),
    ],
)
def test_a_wrong_value_in_the_environment_is_answered_with_its_variable(
    fcn: Fcn, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, takes: str | None
) -> None:
    monkeypatch.setenv(variable, value)
    done = fcn("segment", "nowhere", code=2)
    if takes is None:  # a variable that is set and empty is not set
        assert done.stderr == "fcn: nowhere: no such file or directory\n"
    else:
        assert done.stderr == f"fcn: {variable} takes {takes}, not {value!r}; see fcn segment --help\n"


@pytest.mark.long
def test_booleans_from_the_environment(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_images(["a.png"])
    for value, name in {"TRUE": "a.png.png", "off": "a.png"}.items():
        monkeypatch.setenv("FCN_KEEP_EXTENSION", value)
        fcn("segment", "made", *SMALL, "-o", value)
        assert [path.name for path in (tmp_path / value / "masks").iterdir()] == [name]


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Yield the path, the command and the context of every command."""

    def below(path: str, command: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:
        context = command.make_context(path.split()[-1], [], parent=parent, resilient_parsing=True)
        yield path, command, context
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            yield from below(f"{path} {name}", command.get_command(context, name), context)

    return below("fcn", typer.main.get_command(app), None)


def test_no_option_answers_a_wrong_value_in_the_parsers_own_words() -> None:
    refused = set()
    for path, command, context in commands():
        values = [p for p in command.get_params(context) if p.param_type_name == "option" and not p.is_flag]
        needed = []
        any_value = "all" if path.endswith("weights fetch") else "x"
        for param in command.get_params(context):
            if param.required:
                # Of an option that is given twice, the last value counts.
                is_option = param.param_type_name == "option"
                needed += (
                    [param.opts[0], "coco" if param.opts[0] == "--format" else "x"]
                    if is_option
                    else [any_value]
                )
        for option in values:
            # A value that may be left out is joined to its option.
            joined = str(option.metavar).startswith("[=")
            for name in option.opts:
                given = [f"{name}=~bad~"] if joined else [name, "~bad~"]
                try:
                    command.make_context(path.split()[-1], [*needed, *given], parent=context.parent)
                except UsageError as error:
                    message = usage_message(error)
                    refused.add(name)
                    assert not PARSERS_OWN_WORDS.search(message), message
                    assert message.startswith(option.opts[0]), message
                    assert message.endswith(f"not '~bad~'; see {path} --help"), message
    assert {"--backbone", "--batch-size", "--wait", "--write", "--size", "--rounds", "--protocol"} <= refused


def test_the_environment_sets_nothing_that_destroys_or_changes_what_a_call_is(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_images(["a.png"])
    from_environment = set()
    for path, command, context in commands():
        for param in command.get_params(context):
            if param.envvar:
                assert param.envvar == f"FCN_{param.name.upper()}", path
                from_environment.add(param.name)
    per_call = {
        "overwrite",
        "retry_failed",
        "prune",
        "watch",
        "fail_fast",
        "dry_run",
    }
    per_call |= {"files_from", "null", "as_json", "quiet", "verbose", "include", "exclude"}
    assert {"output", "backbone", "resize", "wait"} <= from_environment
    assert not from_environment & per_call
    fcn("segment", "made", *SMALL)
    for name in ("OVERWRITE", "DRY_RUN", "JSON", "QUIET", "PRUNE"):
        monkeypatch.setenv(f"FCN_{name}", "1")
    done = fcn("segment", "made", *SMALL[:-1], "48", code=2)
    assert "--resize: 64 before, 48 now" in done.stderr


WIDTHS = (59, 80)


@pytest.mark.long
@pytest.mark.parametrize("columns", WIDTHS)
def test_help_keeps_to_the_terminals_width_and_cuts_no_word(
    fcn: Fcn, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    for path, command, context in commands():
        call = [*path.split()[1:], "--help"]
        monkeypatch.setenv("COLUMNS", "200")
        words = fcn(*call).stdout.split()
        monkeypatch.setenv("COLUMNS", str(columns))
        text = fcn(*call).stdout
        assert text.split() == words
        assert max(map(len, text.splitlines())) <= columns
        assert not BOXES.search(text)
        for param in command.get_params(context):
            if param.param_type_name == "option":
                for name in param.opts:
                    assert re.search(rf"^  (-\w, )?{name}\b", text, re.MULTILINE), (path, name)
            assert (param.help or "").partition("\n\n")[0] in " ".join(words)


def test_wide_terminals_are_used_and_narrower_ones_get_forty_columns(
    fcn: Fcn, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = {}
    for columns in (10, 40, 80, 120, 200, 500):
        monkeypatch.setenv("COLUMNS", str(columns))
        longest[columns] = max(map(len, fcn("segment", "--help").stdout.splitlines()))
    assert longest[10] == longest[40] <= 40
    assert 70 < longest[80] <= 80 < 110 < longest[120] <= 120 < 180 < longest[200] <= 200
    assert longest[500] == longest[200]


def test_the_help_of_segment_fits_on_two_screens(fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = fcn("segment", "--help").stdout.splitlines()
    assert len(lines) <= 100
    (place,) = (number for number, line in enumerate(lines) if line.startswith("  --write "))
    assert f"{', '.join(output_type_names())}. [" in " ".join(" ".join(lines[place : place + 2]).split())


def test_every_command_has_a_short_name_for_its_help(fcn: Fcn) -> None:
    for path, _command, _context in commands():
        call = path.split()[1:]
        assert fcn(*call, "-h").stdout == fcn(*call, "--help").stdout


def test_every_command_takes_quiet_and_verbose_but_not_both(fcn: Fcn) -> None:
    for path, command, context in commands():
        if not hasattr(command, "list_commands"):
            names = {name for param in command.get_params(context) for name in param.opts}
            assert {"-q", "--quiet", "-v", "--verbose"} <= names, path
    assert fcn("info", "-q").stdout.startswith("fcn ")
    assert "exclude each other" in fcn("info", "-v", "-q", code=2).stderr


def test_fcn_alone_shows_its_commands_as_an_error(fcn: Fcn) -> None:
    done = fcn(code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: fcn [OPTIONS] COMMAND ...\n")
    assert done.stderr == fcn("--help").stdout


@given(st.text() | st.floats().map(str) | st.integers().map(str) | st.from_regex(r"\A[0-9]{1,5000}\Z"))
def test_whatever_a_number_is_given_is_a_number_in_range_or_refused(text: str) -> None:
    bounds: list[tuple[Any, Callable[[Any], bool]]] = [
        (options.Threads, lambda value: value is None or value >= 1),
        (options.Workers, lambda value: value is None or value >= 0),
        (options.MinConfidence, lambda value: 0 <= value.others <= 1),
        (options.Wait, lambda value: value >= 0 and math.isfinite(value)),
        (options.Resize, lambda value: value is None or 1 <= value <= 16384),
        (options.Size, lambda value: len(value) == 2),
    ]
    for option, within in bounds:
        parse = get_args(option)[1].parser
        try:
            value = parse(text)
        except typer.BadParameter as error:
            refusal = str(error)
        else:
            assert within(value)
            continue
        assert refusal.startswith("takes ")
        assert refusal.endswith(f", not {text!r}")


def test_counts_have_their_noun_in_the_right_number() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class", "classes") for n in (1, 21)] == ["1 class", "21 classes"]
    assert counted(1234567, "pixel", grouped=True) == "1,234,567 pixels"
    assert [alternatives(names) for names in (("a",), ("a", "b"), "abc")] == ["a", "a or b", "a, b or c"]
