"""The two matrix products against their NumPy reference, at the edges of blocks, panels, sums and items."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from fcn_cli.cpu.kernels import matmul, simd_targets
from fcn_cli.cpu.kernels.arguments import Clamp
from fcn_cli.cpu.kernels.simd_targets import SimdTarget
from fcn_cli.cpu.workspace import Workspace

from . import references
from .conftest import torch_threads

UNTOUCHED = 7777.0
# One line; up to the length of a partial sum, one line more, and two and a half partial sums.
DEPTHS = (
    matmul.DEPTH,
    matmul.SUM_BLOCK - matmul.DEPTH,
    matmul.SUM_BLOCK,
    matmul.SUM_BLOCK + matmul.DEPTH,
    5 * matmul.SUM_BLOCK // 2,
)


def integers(*shape: int, seed: int = 0) -> Tensor:
    """Return small integers in float32: sums of their products are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).float()


def check_pointwise(rows: int, depth: int, columns: int, clamp: Clamp, *, add: bool) -> None:
    pixels, weights, bias = integers(rows, depth), integers(depth, columns, seed=1), integers(columns, seed=2)
    around = torch.full((rows + 2, columns), UNTOUCHED)
    result = around[1:-1]
    result.copy_(integers(rows, columns, seed=3))
    expected = references.product(pixels, weights) + bias.numpy() + (result.numpy() if add else 0)
    panels = matmul.in_panels(weights)
    matmul.pointwise(pixels, panels, matmul.filled(bias), result, clamp, Workspace(), add=add)
    np.testing.assert_array_equal(result, references.clamped(expected, clamp))
    assert (around[[0, -1]] == UNTOUCHED).all()


def test_pointwise_at_the_edges_of_blocks_and_panels(target: SimdTarget) -> None:
    block, panel, lanes = target.rows, target.columns, target.lanes
    rows = (1, block - 1, block, block + 1, 2 * block)
    columns = (lanes, panel - lanes, panel, panel + lanes, 3 * panel)
    for (height, depth, width), add in zip(
        itertools.product(rows, DEPTHS, columns), itertools.cycle([False, True, True, False, True])
    ):
        check_pointwise(height, depth, width, (None, None), add=add)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("clamp", [(None, None), (0.0, None), (None, 6.0), (0.0, 6.0)])
def test_pointwise_adds_and_clamps(target: SimdTarget, clamp: Clamp, add: bool) -> None:
    check_pointwise(target.rows + 1, 32, target.columns + target.lanes, clamp, add=add)
    check_pointwise(target.rows, 272, target.columns, clamp, add=add)


def test_pointwise_at_the_edges_of_items(target: SimdTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item has as many blocks as its share of the cache holds: here two."""
    depth = 32
    monkeypatch.setattr(matmul, "_BLOCKS_BYTES", 2 * 4 * depth * target.rows)
    item, threads = 2 * target.rows, torch.get_num_threads()
    for count in (1, 8 * threads, 20 * threads):
        for rows in (count * item - 1, count * item, count * item + 1):
            check_pointwise(rows, depth, target.columns, (0.0, None), add=True)


def test_items_that_divide_the_columns(target: SimdTarget) -> None:
    """As many threads as this have fewer blocks than they need, and the last panels are fewer."""
    with torch_threads(16):
        for rows, panels in ((5 * target.rows, 7), (8 * target.rows + 1, 3), (1, 5)):
            assert matmul.Items.of(rows // target.rows + 1, panels, 32).groups > 1
            check_pointwise(rows, 32, panels * target.columns - target.lanes, (0.0, None), add=True)
        check_batched(target, 2, 5, 32, 7)


# Rows and channels of ResNet-50's products at 693x520, and the blocks of Winograd's.
LAYERS = [(5655, 256, 1024), (5655, 1024, 256), (5655, 2048, 512), (5655, 512, 2048), (22620, 64, 256)]
WINOGRAD = [(14, 2048, 512), (16, 512, 512), (16, 256, 256), (14, 128, 128)]


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 16, 33, 48, 63, 64])
def test_items_fit_the_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most threads have work most of the time, and panels are not read for a block or two."""
    monkeypatch.setattr(simd_targets, "simd_target", lambda: simd_targets.AVX512)
    cases = [(-(-rows // 12), depth, columns, 1) for rows, depth, columns in LAYERS]
    cases += [(*layer, 64) for layer in WINOGRAD]
    with torch_threads(threads):
        for blocks, depth, columns, matrices in cases:
            panels = columns // 32
            items = matmul.Items.of(blocks, panels, depth, matrices)
            assert items.row_items * items.blocks >= blocks > (items.row_items - 1) * items.blocks
            assert items.groups * items.panels >= panels > (items.groups - 1) * items.panels
            assert items.blocks >= 4
            rounds = -(-matrices * items.count // threads)
            assert matrices * items.count >= 0.9 * threads * rounds


def test_a_long_sum_is_a_sum_of_short_ones(target: SimdTarget) -> None:
    """In float32, 1 is lost beside 2^24; in a partial sum of its own, 256 of it are not."""
    depth = 2 * matmul.SUM_BLOCK
    pixels = torch.ones(1, depth)
    pixels[0, 0] = 2.0**25
    result = torch.empty(1, target.columns)
    ones, bias = matmul.in_panels(torch.ones(depth, target.columns)), torch.zeros(target.columns)
    matmul.pointwise(pixels, ones, bias, result, (None, None), Workspace(), add=False)
    # The first partial sum loses its 255 ones, the second one is 256.
    assert (result == 2.0**25 + matmul.SUM_BLOCK).all()


@pytest.mark.parametrize(("rows", "depth", "columns"), [(0, 16, 32), (1, 0, 32), (1, 16, 0)])
def test_nothing_to_multiply_is_refused(target: SimdTarget, rows: int, depth: int, columns: int) -> None:
    panels, bias = torch.zeros(max(1, columns // target.columns), depth, target.columns), torch.zeros(columns)
    with pytest.raises(ValueError, match="shape"):
        matmul.pointwise(
            torch.zeros(rows, depth), panels, bias, torch.zeros(rows, columns), (0, 1), Workspace(), add=False
        )
    left = torch.zeros(1, rows, depth // 16, target.rows, 16)
    with pytest.raises(ValueError, match="shape"):
        matmul.batched_product(left, panels[None], torch.zeros(1, rows * target.rows, columns))


def with_gap(matrices: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Return matrices with 16 numbers between them, and these numbers."""
    size = int(np.prod(shape))
    memory = torch.full((matrices, size + 16), UNTOUCHED)
    return memory[:, :size].unflatten(1, shape), memory[:, size:]  # type: ignore[no-untyped-call]


def check_batched(target: SimdTarget, matrices: int, blocks: int, depth: int, panels: int) -> None:
    rows, columns = blocks * target.rows, panels * target.columns
    left, right = integers(matrices, rows, depth), integers(matrices, depth, columns, seed=1)
    packed, _ = with_gap(matrices, blocks, depth // 16, target.rows, 16)
    packed.copy_(torch.from_numpy(references.in_blocks(left, target.rows)))
    result, gap = with_gap(matrices, rows, columns)
    matmul.batched_product(packed, matmul.in_panels(right), result)
    np.testing.assert_array_equal(result, references.product(left, right))
    assert (gap == UNTOUCHED).all()


def test_batched_products_at_the_edges_of_sums(target: SimdTarget) -> None:
    for matrices, blocks, depth, panels in itertools.product((1, 3), (1, 2, 3), DEPTHS, (1, 3)):
        check_batched(target, matrices, blocks, depth, panels)


def test_batched_products_at_the_edges_of_items(target: SimdTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 48
    monkeypatch.setattr(matmul, "_BLOCKS_BYTES", 3 * 4 * depth * target.rows)
    for blocks in (2, 3, 4, 6, 7):
        check_batched(target, 5, blocks, depth, 2)


def test_panels_hold_the_columns_side_by_side(target: SimdTarget) -> None:
    width = target.columns
    weights = integers(16, width + target.lanes)
    panels = matmul.in_panels(weights).numpy()
    assert panels.shape == (2, 16, width)
    np.testing.assert_array_equal(panels[0], weights[:, :width])
    np.testing.assert_array_equal(panels[1, :, : target.lanes], weights[:, width:])
    assert not panels[1, :, target.lanes :].any()
