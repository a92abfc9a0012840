"""--include and --exclude: glob patterns on the paths below a directory."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_cli.common.errors import RequestError
from fcn_cli.inputs.patterns import PathFilter, to_regex

from ..conftest import SMALL, Fcn, MakeImages, tree
from .test_inputs import found, touch


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def matches(pattern: str, path: str) -> bool:
    return re.fullmatch(to_regex(pattern), path, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", ".jpg", "a.b.jpg"], ["sub/a.jpg", "a.jpgx", "a.JPG"]),
        ("*", ["a", "a.jpg", ""], ["a/b"]),
        ("**", ["a", "a/b", "a/b/c.jpg"], []),
        ("**/*.jpg", ["a.jpg", "x/a.jpg", "x/y/a.jpg"], ["a.png", "x/a.jpg/b"]),
        ("raw/**", ["raw/a", "raw/b/c"], ["raw", "xraw/a", "b/raw/a"]),
        ("**/raw/**", ["raw/a", "b/raw/a", "b/c/raw/d/e"], ["raw", "xraw/a", "b/rawx/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "a/x/by"]),
        ("a**b", ["ab", "axb", "a/b", "ax/yb"], ["xab"]),
        ("a**/b", ["a/b", "ax/b", "ax/y/b"], ["ab", "axb"]),
        ("**/**/x", ["x", "a/x", "a/b/x"], ["ax"]),
        ("?", ["a", "é", "\n"], ["/", "", "ab"]),
        ("a?b", ["axb"], ["a/b", "ab"]),
        ("[ab]x", ["ax", "bx"], ["cx", "x"]),
        ("[!ab]x", ["cx", "!x"], ["ax", "/x"]),
        ("[^ab]x", ["cx"], ["ax", "/x"]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[c-a]", [], ["a", "b", "c", "-", "[c-a]"]),
        ("[]]", ["]"], ["[]]", ""]),
        ("[!]]", ["a"], ["]"]),
        ("[]", ["[]"], ["", "]"]),
        ("[a", ["[a"], ["a"]),
        ("[-a]", ["-", "a"], ["b"]),
        ("[a-]", ["-", "a"], ["b"]),
        ("[.-0]", [".", "0"], ["/"]),
        (r"[\]\-x]", ["]", "-", "x"], ["\\"]),
        (r"\*", ["*"], ["a", "\\*"]),
        (r"\[a]", ["[a]"], ["a"]),
        (r"a\?b", ["a?b"], ["axb"]),
        ("a\\", ["a\\"], ["a"]),
        ("a.b+(c)|d{2}$^", ["a.b+(c)|d{2}$^"], ["aXb+(c)|d{2}$^"]),
        ("[[&&~~||--]", ["[", "&", "~", "|"], ["a"]),
    ],
)
def test_what_patterns_match(pattern: str, yes: list[str], no: list[str]) -> None:
    assert {path: matches(pattern, path) for path in (*yes, *no)} == dict.fromkeys(yes, True) | dict.fromkeys(
        no, False
    )


@pytest.mark.long
@settings(max_examples=500)
@given(st.text("ab*?[]!-.", max_size=8), st.text("ab[]!-.", max_size=6))
def test_within_one_name_patterns_are_those_of_fnmatch(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


FILES = ["a", "b.jpg", "x/a", "x/b.jpg", "x/y/a", "x/y/ab", "y/x/y/b.jpg", "y/b", "ab/x/a.jpg", "ab/ba"]
COMPONENTS = st.sampled_from(["**", "*", "a", "x", "y", "?", "a*", "*b", "*.jpg", "[xy]", "[!x]*"])


@pytest.mark.long
@settings(max_examples=300)
@given(components=st.lists(COMPONENTS, min_size=1, max_size=5))
def test_across_directories_patterns_are_those_of_glob(
    tmp_path_factory: pytest.TempPathFactory, components: list[str]
) -> None:
    top = tmp_path_factory.getbasetemp() / "globbed"
    for name in FILES if not top.exists() else ():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    pattern = "/".join(components)
    expected = set(glob.glob(pattern, root_dir=top, recursive=True))
    assert {name for name in FILES if matches(pattern, name)} == expected & set(FILES)


@settings(max_examples=300)
@given(
    st.lists(st.text(r"ab/*[]\?", min_size=1, max_size=7), max_size=3),
    st.text("ab/", max_size=4),
    st.text("ab/", min_size=1, max_size=4),
)
def test_what_is_not_walked_has_nothing_that_is_wanted(
    patterns: list[str], directory: str, below: str
) -> None:
    try:
        chosen = PathFilter(exclude=patterns)
    except RequestError:
        return
    if chosen.leaves_out_all_below(directory):
        assert chosen.left_out(f"{directory}/{below}" if directory else below) == "excluded"


def test_exclude_wins_and_include_only_narrows() -> None:
    chosen = PathFilter(["**/*.jpg", "keep/**"], ["**/tmp*/**", "keep/not.jpg"])
    left_out = {
        path: chosen.left_out(path)
        for path in ("a.jpg", "a.png", "keep/a.png", "keep/not.jpg", "tmp1/a.jpg", "x/tmp/y/a.jpg", "tmp.jpg")
    }
    assert left_out == {
        "a.jpg": "",
        "a.png": "not included",
        "keep/a.png": "",
        "keep/not.jpg": "excluded",
        "tmp1/a.jpg": "excluded",
        "x/tmp/y/a.jpg": "excluded",
        "tmp.jpg": "",
    }
    assert not PathFilter().left_out("anything")
    # A directory can be written as people write it.
    for pattern in ("raw", "raw/", "./raw", "raw/**", "./raw//"):
        assert PathFilter(exclude=[pattern]).left_out("raw/deep/a.jpg")
        assert PathFilter(exclude=[pattern]).leaves_out_all_below("raw")
        assert not PathFilter(exclude=[pattern]).left_out("raw2/a.jpg")
        assert not PathFilter([pattern]).left_out("raw/deep/a.jpg")
        assert PathFilter(exclude=[pattern]).left_out("RAW/a.jpg") == ""
        any_case = PathFilter(exclude=[pattern], ignore_case=True)
        assert any_case.left_out("RAW/a.jpg") == "excluded"
        assert any_case.leaves_out_all_below("Raw")
    assert PathFilter(exclude=["."]).leaves_out_all_below("")
    assert not PathFilter(exclude=["*"]).leaves_out_all_below("sub")


def test_directories_are_narrowed_and_what_is_left_out_is_counted() -> None:
    touch(
        "d/a.jpg",
        "d/b.png",
        "d/sub/c.jpg",
        "d/sub/notes.txt",
        "d/raw/x.jpg",
        "d/raw/deep/y.jpg",
        "e/raw/z.jpg",
    )
    got = found(["d"], include=["**/*.jpg", "**/*.txt"], exclude=["raw/**"])
    assert [source.image for source in got.sources] == ["a.jpg", "sub/c.jpg"]
    assert got.ignored == {".txt": 1, "not included": 1, "excluded directory": 1}
    assert got.ignored_text() == "ignored 3 paths: 1 .txt, 1 excluded directory, 1 not included"
    # The path is the one below the directory, also where the outputs' names begin with its own.
    got = found(["d", "e"], exclude=["raw/**", "sub/*"])
    assert [source.image for source in got.sources] == ["d/a.jpg", "d/b.png"]
    assert "2 excluded directories" in got.ignored_text()
    # Patterns are searched as well; what is named is taken whatever it is called.
    assert [s.image for s in found(["d/**/*.jpg"], exclude=["raw/**"]).sources] == ["a.jpg", "sub/c.jpg"]
    assert [s.image for s in found(["d/a.jpg"], ["d/raw/x.jpg"], exclude=["**"]).sources] == [
        "a.jpg",
        "d/raw/x.jpg",
    ]


def test_what_is_excluded_is_not_even_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("d/a.jpg", "d/raw/x.jpg", "d/sub/raw/y.jpg", "d/raw2/z.jpg")
    listed = []
    real = os.scandir

    def scandir(path: str) -> object:
        listed.append(path)
        if Path(path).name == "raw":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    got = found(["d"], exclude=["**/raw/**"])
    assert [source.image for source in got.sources] == ["a.jpg", "raw2/z.jpg"]
    assert listed == ["d", "d/raw2", "d/sub"]
    # Where it is not excluded, it is told.
    assert [source.image for source in found(["d"]).sources if source.problem] == ["raw", "sub/raw"]


def test_the_command_line_takes_several_patterns(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png", "b.png", "raw/c.png", "sub/d.png", "sub/e.png"])
    narrowed = ("--include", "*.png", "--include", "sub/*", "--exclude", "raw", "--exclude", "**/e.*")
    done = fcn("segment", "made", *SMALL, "-o", "out", *narrowed)
    assert sorted(tree(tmp_path / "out/masks")) == ["a.png", "b.png", "sub/d.png"]
    assert "ignored 2 paths: 1 excluded, 1 excluded directory" in done.stderr
    assert "3 images: 3 done" in done.stderr
    nothing = fcn("segment", "made", "--include", "x*", "--exclude", "[rs]*/**", code=3).stderr
    assert "ignored 4 paths: 2 excluded directories, 2 not included" in nothing
    assert "--include looked at 2 paths below made, for example a.png;" in nothing
    (tmp_path / "made/sub").rename(tmp_path / "made/Sub")
    line = ("segment", "made", "--include", "sub/D.*", "--exclude", "RAW/**", *SMALL, "-o", "cased")
    nothing = fcn(*line, code=3).stderr
    looked_at = "--include looked at 5 paths below made, for example Sub/d.png, which matches"
    assert f"{looked_at} with --ignore-case; ignored 5" in nothing
    assert "1 image: 1 done" in fcn(*line, "--ignore-case").stderr
    assert sorted(tree(tmp_path / "cased/masks")) == ["Sub/d.png"]
    for pattern, text in (
        ("", "the pattern is empty"),
        ("/made/**", "can never match"),
        ("../x", "can never match"),
    ):
        assert text in fcn("segment", "made", "--exclude", pattern, code=2).stderr
        assert "--include" in fcn("segment", "made", "--include", pattern, code=2).stderr
