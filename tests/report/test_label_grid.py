"""The label grid: run-length coded label maps that stay small."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fcn_cli.inputs.resizing import fitted
from fcn_cli.report.page import to_json
from fcn_cli.report.pictures import encode_grid

from .pages import decoded


@given(
    arrays.arrays(
        np.uint8,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.sampled_from([0, 1, 8, 255]),
    )
)
def test_a_small_label_map_comes_back_whole(labels: np.ndarray) -> None:
    coded = encode_grid({"labels": labels}, 1280)
    assert (coded["h"], coded["w"]) == labels.shape
    runs = coded["layers"]["labels"]
    assert np.array_equal(decoded(runs).reshape(labels.shape), labels)
    # Neighbouring runs differ: no run could be longer.
    assert all(a != b for a, b in zip(runs[::2], runs[2::2], strict=False))


def test_noise_is_made_smaller_until_it_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1280), np.uint8)
    coded = encode_grid({"truth": noise, "prediction": np.zeros_like(noise)}, 1280)
    assert (coded["w"], coded["h"]) == (160, 125)
    assert len(to_json(coded)) < 500_000


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(1, 1280))
def test_fitted_sizes(width: int, height: int, longest: int) -> None:
    got = fitted(width, height, longest)
    assert max(got) == min(longest, max(width, height))
    assert min(got) >= 1
    assert got <= (width, height)


@pytest.mark.long
@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_json_in_a_script_element(value: object) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&")
    assert text.isascii()
