"""Connected regions: small ones merged as GDAL does it, in every output of a run."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fcn_cli import RequestError, Segmenter
from fcn_cli.common.regions import Regions, sieve

from ..conftest import PREVIEW, SAMPLES, SMALL, Fcn, journal_of

features = pytest.importorskip("rasterio.features", reason="GDAL's sieve comes with rasterio")

Labels = NDArray[np.uint8]


def flooded(labels: Labels) -> NDArray[np.int64]:
    """Return the region of each pixel, by filling one after the other."""
    regions = np.full(labels.shape, -1)
    for first in np.ndindex(labels.shape):
        if regions[first] >= 0:
            continue
        region, waiting = regions.max() + 1, [first]
        regions[first] = region
        while waiting:
            row, column = waiting.pop()
            for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]
                if inside and regions[place] < 0 and labels[place] == labels[first]:
                    regions[place] = region
                    waiting.append(place)
    return regions


def has_ties(labels: Labels, regions: NDArray[np.int64], least: int) -> bool:
    """Say whether a small region has two largest neighbours: GDAL's choice is not documented."""
    areas = np.bincount(regions.ravel())
    beside: dict[int, set[int]] = defaultdict(set)
    for one, other in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
            if a != b:
                beside[a].add(b)
                beside[b].add(a)
    for region, others in beside.items():
        largest = sorted((areas[other] for other in others), reverse=True)[:2]
        if areas[region] < least and len(largest) == 2 and largest[0] == largest[1]:
            return True
    return False


@st.composite
def label_maps(draw: st.DrawFn) -> Labels:
    """Draw blocks of classes (void too) with noise."""
    height, width = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    values = np.array([0, 1, 15, 255], np.uint8)[: draw(st.integers(2, 4))]
    side = draw(st.integers(1, 5))
    blocks = random.choice(values, (height // side + 1, width // side + 1))
    labels = blocks.repeat(side, 0).repeat(side, 1)[:height, :width].copy()
    noise = random.random(labels.shape) < draw(st.sampled_from([0, 0.05, 0.3]))
    labels[noise] = random.choice(values, noise.sum())
    return labels


@settings(max_examples=40)
@given(label_maps())
def test_regions_are_those_of_a_flood(labels: Labels) -> None:
    regions, expected = Regions.of(labels), flooded(labels)
    found = np.repeat(regions.region_of, regions.lengths).reshape(labels.shape)
    assert np.array_equal(found, expected)
    assert np.array_equal(regions.areas, np.bincount(expected.ravel()))
    assert np.array_equal(regions.values[found], labels)


@settings(max_examples=150)
@given(label_maps(), st.integers(1, 12))
def test_small_regions_go_as_gdal_lets_them_go(labels: Labels, least: int) -> None:
    assume(least < labels.size and not has_ties(labels, flooded(labels), least))
    before = labels.copy()
    assert np.array_equal(sieve(labels, least), features.sieve(labels, least, connectivity=4))
    assert np.array_equal(labels, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_small_regions_of_a_line(shape: tuple[int, int]) -> None:
    labels = np.ones(shape, np.uint8)
    assert np.array_equal(sieve(labels, 100), labels)
    if labels.size > 1:
        labels.reshape(-1)[[3, 20, 21]] = 2
        expected = labels.copy()
        expected.reshape(-1)[3] = 1
        assert np.array_equal(sieve(labels, 2), expected)


def test_a_large_mask_is_gdals() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 21, (30, 40), np.uint8).repeat(50, 0).repeat(50, 1)
    noise = random.random(labels.shape) < 0.01
    labels[noise] = random.integers(0, 21, noise.sum(), np.uint8)
    assert np.array_equal(sieve(labels, 100), features.sieve(labels, 100, connectivity=4))


def test_every_output_has_the_merged_regions(fcn: Fcn, tmp_path: Path) -> None:
    image = SAMPLES / "astronaut.png"
    fcn("segment", image, *SMALL, "-o", "plain")
    labels = np.array(Image.open(tmp_path / "plain/masks/astronaut.png"))
    least = int(Regions.of(labels).areas.min()) + 1
    expected = features.sieve(labels, least, connectivity=4)
    assert (expected != labels).any()
    fcn("segment", image, *SMALL, "-o", "merged", "--min-region", str(least))
    merged = np.array(Image.open(tmp_path / "merged/masks/astronaut.png"))
    assert np.array_equal(merged, expected)
    assert np.array_equal(np.array(Image.open(tmp_path / "merged/color/astronaut.png")), expected)
    counted = {
        int(index): n for index, n in journal_of(tmp_path / "merged")["astronaut.png"]["classes"].items()
    }
    assert counted == {index: n for index, n in enumerate(np.bincount(expected.ravel()).tolist()) if n}
    assert "no problem" in fcn("verify", "merged").stdout + fcn("verify", "merged").stderr
    fcn("segment", image, *SMALL, "-o", "one.png", "--min-region", str(least))
    assert np.array_equal(np.array(Image.open(tmp_path / "one.png")), expected)
    result = Segmenter(PREVIEW[1], resize=64, min_region=least)(image)
    assert np.array_equal(result.labels, expected)


def test_a_directory_keeps_its_least_region(fcn: Fcn, tmp_path: Path) -> None:
    image = SAMPLES / "chelsea.png"
    fcn("segment", image, *SMALL, "-o", "plain")
    again = fcn("segment", image, *SMALL, "-o", "plain", "--min-region", "50", code=2)
    assert "--min-region: 0 before, 50 now" in again.stderr
    # A finished directory of before has nothing to do.
    assert "min_region" not in (tmp_path / "plain/settings.json").read_text()


def test_no_region_has_fewer_than_no_pixels() -> None:
    with pytest.raises(RequestError, match="min_region -1"):
        Segmenter(PREVIEW[1], min_region=-1)
