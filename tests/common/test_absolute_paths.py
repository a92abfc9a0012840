"""Absolute paths of many files are those of the standard library."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_cli.common.absolute_paths import AbsolutePaths

PARTS = st.sampled_from(["/", "/", "//", "a", "b.jpg", ".", "..", "é", " "])


@pytest.mark.long
@settings(max_examples=1000)
@example(["//./a", "//a", "///a", "/a", "./", ""])
@given(st.lists(st.lists(PARTS, max_size=6).map("".join), max_size=8))
def test_absolute_paths_are_those_of_the_standard_library(paths: list[str]) -> None:
    absolute = AbsolutePaths()
    assert [absolute(path) for path in paths] == [os.path.abspath(path) for path in paths]
