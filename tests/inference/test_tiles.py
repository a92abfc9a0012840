"""Images in tiles: the geometry, how tiles are blended, and the masks that come of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fcn_cli import Segmenter
from fcn_cli.common.errors import RequestError
from fcn_cli.inference.labels import Upsampler
from fcn_cli.inference.options import ViewOptions
from fcn_cli.inference.tiling import TileAxis, Tiles
from fcn_cli.inference.views import blend, upsample_blocks

from ..conftest import PREVIEW, SAMPLES, Fcn, journal_of

STRIDE = 8
Pixels = NDArray[np.uint8]


@given(
    length=st.integers(1, 3000),
    tile=st.integers(128, 700),
    share=st.floats(0, 0.5),
    stride=st.sampled_from([8, 16]),
    is_centred=st.booleans(),
)
def test_tiles_cover_an_image_and_their_weights_sum_to_one(
    length: int, tile: int, share: float, stride: int, is_centred: bool
) -> None:
    axis = TileAxis.of(length, tile, int(share * tile), stride, is_centred=is_centred)
    total = torch.zeros((axis.count - 1) * axis.step_cells + axis.tile_cells, dtype=torch.float64)
    for index in range(axis.count):
        weights = axis.weights(index)
        assert weights.min() > 0
        assert weights.max() <= 1
        total[index * axis.step_cells :][: axis.tile_cells] += weights
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)
    assert len(total) >= axis.cells
    origins = [index * axis.step - axis.before for index in range(axis.count)]
    ends = [origin + axis.tile for origin in origins]
    if is_centred:
        # The mirror image has the mirrored tiles, but for half a pixel.
        assert 0 <= ends[-1] - length + origins[0] <= 1
        assert len(total) == axis.cells
    else:
        assert origins[0] == 0
    if length <= tile:
        assert (axis.count, axis.tile) == (1, length)
    else:
        assert axis.step % stride == 0
        assert axis.tile == -(-tile // stride) * stride
        # Every pixel is in a tile, and the last tile is needed.
        assert origins[0] <= 0
        assert ends[-1] >= length
        assert (axis.count - 2) * axis.step + axis.tile < length


def made(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def local(tiles: list[Pixels]) -> Tensor:
    """A network that sees a cell at a time: the means of its colours."""
    batch = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float()
    return torch.nn.functional.avg_pool2d(batch, STRIDE, ceil_mode=True)


def near(tiles: list[Pixels]) -> Tensor:
    """A network that sees as far as the tile reaches, so that tiles differ."""
    logits = local(tiles)
    return logits - logits.mean((2, 3), keepdim=True)


def test_in_the_middle_of_a_tile_the_logits_are_its_own_whatever_the_batch() -> None:
    pixels = made(300, 420)
    grid = Tiles.of(pixels, ViewOptions(128, 32), STRIDE)
    rows = torch.cat(list(blend(pixels, grid, near, 1)), 1)
    assert rows.shape == (3, -(-300 // STRIDE), -(-420 // STRIDE))
    assert torch.equal(rows, torch.cat(list(blend(pixels, grid, near, 3)), 1))
    extended = np.pad(pixels, ((0, 200), (0, 200), (0, 0)), mode="edge")
    for top in range(0, 300 - 96, 96):
        for left in range(0, 420 - 96, 96):
            own = near([extended[top : top + 128, left : left + 128]])[0]
            y, x = top // STRIDE, left // STRIDE
            got = rows[:, y + 4 : y + 12, x + 4 : x + 12]
            assert torch.equal(got, own[:, 4:12, 4:12][:, : got.shape[1], : got.shape[2]])


def mask(pixels: Pixels, views: ViewOptions) -> NDArray[np.uint8]:
    grid = Tiles.of(pixels, views, STRIDE)
    blocks = blend(pixels, grid, local, 1)
    x, y = (axis.taps_of_pixels(axis.length) for axis in (grid.x, grid.y))
    maps = upsample_blocks(blocks, x, y, Upsampler(), torch.device("cpu"))
    labels: NDArray[np.uint8] = maps.labels.numpy()
    return labels


@pytest.mark.parametrize("views", [ViewOptions(128), ViewOptions(200, 100), ViewOptions(128, flip=True)])
def test_an_image_moved_by_the_stride_gives_the_moved_mask(views: ViewOptions) -> None:
    scene = made(333, 419)
    here, there = mask(scene[:-STRIDE, :-STRIDE], views), mask(scene[STRIDE:, STRIDE:], views)
    inner = slice(4 * STRIDE, -4 * STRIDE)
    moved = here[STRIDE:, STRIDE:][inner, inner]
    assert np.mean(moved != there[:-STRIDE, :-STRIDE][inner, inner]) < 1e-4
    assert len(np.unique(moved)) == 3


@pytest.mark.long
def test_content_that_repeats_with_the_step_gives_a_mask_that_repeats() -> None:
    with Image.open(SAMPLES / "astronaut.png") as opened:
        patch = np.asarray(opened.convert("RGB").crop((150, 20, 342, 212)).resize((96, 96)))
    image = np.tile(patch, (5, 6, 1))[:416, :512]
    labels = Segmenter("efficientnet_lite0", tile=128, overlap=32)(image).labels
    assert len(np.unique(labels)) > 1
    inner = labels[96:-96, 96:-96]
    assert np.array_equal(inner[96:], inner[:-96])
    assert np.array_equal(inner[:, 96:], inner[:, :-96])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    with Image.open(SAMPLES / "astronaut.png") as opened:
        opened.convert("RGB").resize((301, 233)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        return np.asarray(opened)


@pytest.mark.long
def test_an_image_no_larger_than_a_tile_has_the_mask_without_tiles(fcn: Fcn, image: Path) -> None:
    fcn("segment", image, *PREVIEW, "--resize", "none", "-o", "whole")
    fcn("segment", image, *PREVIEW, "--tile", "301", "-o", "tile")
    fcn("segment", image, *PREVIEW, "--resize", "96", "-o", "small")
    fcn("segment", image, *PREVIEW, "--resize", "96", "--tile", "128", "-o", "small_tile")
    masks = {
        name: (image.parent / name / "masks/photo.png").read_bytes()
        for name in ("whole", "tile", "small", "small_tile")
    }
    assert masks["whole"] == masks["tile"]
    assert masks["small"] == masks["small_tile"]
    assert journal_of(image.parent / "tile")["photo.png"]["notes"] == []
    # Sides of 96 and 124 pixels: no tile of 128 is needed, and the two directories differ in their settings.
    compared = fcn("compare", "small", "small_tile").stdout
    assert "tile: none in A, 128 in B" in compared


@pytest.mark.long
def test_tiles_do_not_depend_on_the_batch_and_are_recorded(fcn: Fcn, image: Path) -> None:
    tiles = (*PREVIEW, "--tile", "128", "--write", "masks,confidence")
    fcn("segment", image, *tiles, "-o", "one")
    fcn("segment", image, *tiles, "-b", "5", "-o", "five")
    for kind in ("masks", "confidence"):
        one, five = (image.parent / name / kind / "photo.png" for name in ("one", "five"))
        assert one.read_bytes() == five.read_bytes()
    assert read(image.parent / "one/masks/photo.png").shape == (233, 301)
    assert journal_of(image.parent / "one")["photo.png"]["notes"] == ["9 tiles of 128x128"]
    done = fcn("segment", image, *PREVIEW, "--tile", "160", "-o", "one", code=2)
    assert "--tile: 128 before, 160 now; --overlap: 32 before, 40 now" in done.stderr
    assert "nothing to do" in fcn("segment", image, *tiles, "--overlap", "32", "-o", "one").stderr
    piped = Segmenter("efficientnet_lite0", tile=128)(image)
    assert np.array_equal(piped.labels, read(image.parent / "one/masks/photo.png"))
    assert piped.notes == ("9 tiles of 128x128",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile", "127"), "--tile 127: a tile has at least 128 pixels a side"),
        (("--tile", "200", "--overlap", "101"), "--overlap 101: at most half of --tile 200, which is 100"),
        (("--overlap", "50"), "--overlap says how far tiles overlap: add --tile"),
        (("--scales", "0.75,9"), "--scales takes numbers from 0.25 to 4, separated by commas, not '0.75,9'"),
        (("--scales", ""), "--scales takes numbers from 0.25 to 4, separated by commas, not ''"),
    ],
)
def test_tiles_that_make_no_sense_are_refused(fcn: Fcn, options: tuple[str, ...], message: str) -> None:
    assert message in fcn("segment", "photos", *PREVIEW, *options, code=2).stderr
    if options[0] == "--tile":
        assert message in fcn("evaluate", "photos", "truth", *PREVIEW, *options, code=2).stderr
        with pytest.raises(RequestError, match=message.partition(":")[0]):
            ViewOptions(int(options[1]), int(options[3]) if len(options) > 2 else None)


@pytest.mark.long
def test_bench_says_what_a_megapixel_costs_in_tiles(fcn: Fcn) -> None:
    done = fcn("bench", *PREVIEW, "--tile", "128", "--size", "300x200", "--rounds", "1")
    assert "300x200 in 6 tiles of 128x128 that overlap by 32 pixels" in done.stdout
    assert "s per megapixel" in done.stdout
