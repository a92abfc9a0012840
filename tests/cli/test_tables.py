"""Tables of figures: drawn on terminals, plain elsewhere, and no figure cut at any width."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len

from fcn_cli.cli.tables import write_table

from ..conftest import SMALL, Fcn, MakeImages, command, run_process
from ..terminal import BOXES, COLORS, is_painted, on_a_terminal, what_stays

LARGEST = 10**15

NUMBER = re.compile(r"(?<![\d,.])\d[\d,.]*%?(?!\d)")


def label_maps(folder: Path, seed: int, name: str = "wide.png") -> Path:
    """Make a directory with one large label map of three classes, so that figures are long."""
    folder.mkdir()
    labels = np.random.default_rng(seed).choice([0, 12, 15], size=(1100, 1300)).astype(np.uint8)
    Image.fromarray(labels).save(folder / name)
    return folder


def figures_of(compared: dict[str, Any]) -> set[str]:
    """Return all the numbers that `fcn compare` must show in its table."""
    return {
        text
        for one in compared["classes"].values()
        for text in (f"{one['iou']:.2%}", f"{one['pixels_a']:,}", f"{one['pixels_b']:,}")
    }


@pytest.mark.long
def test_in_a_pipe_a_table_is_plain_columns_whatever_the_width(
    fcn: Fcn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a, b = label_maps(tmp_path / "a", 1), label_maps(tmp_path / "b", 2)
    compared = json.loads(fcn("compare", a, b, "--json").stdout)
    texts = set()
    for columns in ("20", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("FORCE_COLOR", "1")
        texts.add(fcn("compare", a, b).stdout)
    (text,) = texts
    assert text.isascii()
    assert "\x1b" not in text
    heading, *rows = [re.split(r" {2,}", line) for line in text.splitlines()[:4]]
    assert heading == ["class", "IoU", "pixels in A", "pixels in B"]
    assert rows == [
        [one["name"], f"{one['iou']:.2%}", f"{one['pixels_a']:,}", f"{one['pixels_b']:,}"]
        for one in compared["classes"].values()
    ]
    assert len({len(line) for line in text.splitlines()[:4]}) == 1  # right-aligned


def test_a_runs_table_in_a_log_is_plain_text(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"], size=(200, 160))
    done = fcn("segment", "made", *SMALL)
    assert done.stderr.isascii()
    assert "\x1b" not in done.stderr
    (heading,) = (line for line in done.stderr.splitlines() if line.startswith("class "))
    assert heading.split() == ["class", "images", "pixels", "share"]


@pytest.mark.long
@pytest.mark.parametrize(("columns", "drawn"), [(45, False), (60, True)])
def test_on_a_terminal_of_any_width_every_figure_is_whole(
    columns: int, drawn: bool, fcn: Fcn, tmp_path: Path
) -> None:
    a, b = label_maps(tmp_path / "a", 1), label_maps(tmp_path / "b", 2)
    wanted = figures_of(json.loads(fcn("compare", a, b, "--json").stdout))
    text = on_a_terminal(command("compare", a, b), columns, cwd=tmp_path, environment={})
    shown = what_stays(text)
    assert wanted <= set(NUMBER.findall(shown))
    table = shown.split("\nwide")[0]
    assert max(map(len, table.splitlines())) <= columns
    assert bool(BOXES.search(shown)) == drawn


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@given(
    columns=st.integers(1, 220),
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z", "M"]), max_size=30),
            st.integers(0, LARGEST).map(lambda n: f"{n:,}"),
            st.floats(0, 1).map(lambda share: f"{share:.2%}"),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_no_figure_is_cut_in_a_table_of_any_width(columns: int, rows: list[tuple[str, str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm")
        terminal = FakeTerminal()
        write_table(("class", "pixels", "share"), rows, terminal)
    lines = COLORS.sub("", terminal.getvalue()).splitlines()
    words = [word for line in lines for word in re.split(r"[\s\u2500-\u257f]+", line)]
    for _, pixels, share in rows:
        assert pixels in words
        assert share in words
    # Only a figure that is wider than the terminal itself, or a name, makes a line wider than it.
    names = {name for name, _, _ in rows}
    widest = 4 + len(f"{LARGEST:,}")
    assert all(cell_len(line) <= max(columns, widest) for line in lines if line not in names)


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "drawn"),
    [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)],
    ids=["NO_COLOR", "TERM=dumb"],
)
def test_colours_and_lines_are_for_terminals_that_have_and_want_them(
    environment: dict[str, str], drawn: bool, images: Path, tmp_path: Path
) -> None:
    line = command("segment", images, *SMALL, "--write", "masks")
    text = on_a_terminal(line, 100, cwd=tmp_path, environment=environment)
    assert not is_painted(text)
    assert bool(BOXES.search(text)) == drawn
    if not drawn:
        assert "\x1b" not in text
        assert "\r" not in text  # no progress bar that overwrites itself
    assert re.search(r"class\W+images\W+pixels\W+share", COLORS.sub("", text))
    assert "4 images: 4 done, 0 failed" in text


def test_names_are_shown_as_they_are_also_in_brackets_or_beyond_the_encoding(
    fcn: Fcn, tmp_path: Path
) -> None:
    a, b = label_maps(tmp_path / "a", 1, "[old] x.png"), label_maps(tmp_path / "b", 2, "[old] x.png")
    assert re.search(r"^\[old\] x(\.png)?: [\d,]+ pixels differ", fcn("compare", a, b).stdout, re.MULTILINE)
    rows = [("[bold]sch\u00f6n[/bold]", "1")]
    terminal = FakeTerminal()
    write_table(("class", "images"), rows, terminal)
    assert "[bold]sch\u00f6n[/bold]" in terminal.getvalue()
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write_table(("class", "images"), rows, narrow)
    narrow.seek(0)
    assert narrow.read().splitlines()[1].split() == ["[bold]sch\\xf6n[/bold]", "1"]


def test_one_pixel_and_one_class_and_one_name(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "b.png"])
    one = tmp_path / "one"
    one.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(one / "a.png")
    shutil.copytree(one, tmp_path / "two")
    labels = np.zeros((4, 4), np.uint8)
    labels[1, 2] = 1
    Image.fromarray(labels).save(tmp_path / "two/a.png")
    assert ": 1 pixel differs (6.250%)" in fcn("compare", "one", "two").stdout
    (tmp_path / "names.txt").write_text("thing\n")
    weights = Path(__file__).parents[2] / "fcn_cli/data/fcn_efficientnet_lite0_preview.pth"
    done = fcn("segment", "made", *SMALL, "--weights", weights, "--class-names", "names.txt", code=2)
    assert "1 name for the 21 classes" in done.stderr
    (tmp_path / "palette.json").write_text("[[1, 2, 3]]")
    done = fcn("segment", "made", *SMALL, "--palette", "palette.json", "-o", "p", code=2)
    assert "has 1 colour, the network has 21 classes" in done.stderr


@pytest.mark.long
def test_a_stream_that_only_takes_ascii_gets_escapes(make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["sch\u00f6n.png"])
    a, b = label_maps(tmp_path / "a", 1, "sch\u00f6n.png"), label_maps(tmp_path / "b", 2, "sch\u00f6n.png")
    done = run_process("compare", a, b, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
    assert "sch\\xf6n" in done.stdout
