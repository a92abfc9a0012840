"""Kernels of bfloat16 against their references, with the processor's instructions and widened to float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.material import randomise
from fcn_cli.cpu import onednn_layers
from fcn_cli.cpu.amx_layers import AmxLayers
from fcn_cli.cpu.convolution import Layers
from fcn_cli.cpu.kernels import amx, matmul, simd_targets, tile_transforms
from fcn_cli.cpu.kernels.arguments import Clamp
from fcn_cli.cpu.kernels.simd_targets import AVX512, AVX512_BF16, SimdTarget
from fcn_cli.cpu.kernels.tile_transforms import TileGrid, TileRange
from fcn_cli.cpu.layers import CompiledLayers
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.cpu.onednn_layers import OnednnLayers
from fcn_cli.cpu.toom_cook import Transforms
from fcn_cli.cpu.workspace import Workspace
from fcn_cli.models import networks, registry

from . import references
from .conftest import torch_threads
from .test_matmul import UNTOUCHED, integers

PAIRS = 2 * matmul.DEPTH
# One line of pairs; a partial sum, a line more, and two and a half partial sums.
DEPTHS = (PAIRS, 2 * matmul.SUM_BLOCK, 2 * matmul.SUM_BLOCK + PAIRS, 5 * matmul.SUM_BLOCK)


def rounded(exact: references.Floats) -> Tensor:
    """Round to the nearest bfloat16; what is rounded is exact in float32."""
    return torch.from_numpy(exact).float().bfloat16()


def check_pointwise(rows: int, depth: int, columns: int, clamp: Clamp, *, add: bool) -> None:
    pixels, weights, bias = integers(rows, depth), integers(depth, columns, seed=1), integers(columns, seed=2)
    around = torch.full((rows + 2, columns), UNTOUCHED).bfloat16()
    untouched, result = around[0].clone(), around[1:-1]
    result.copy_(integers(rows, columns, seed=3))
    expected = references.product(pixels, weights) + bias.numpy() + (result.float().numpy() if add else 0)
    panels = matmul.in_bf16_panels(weights)
    bias = matmul.filled(bias)
    matmul.pointwise(pixels.bfloat16(), panels, bias, result, clamp, Workspace(), add=add)
    assert torch.equal(result, rounded(references.clamped(expected, clamp)))
    assert torch.equal(around[0], untouched)
    assert torch.equal(around[-1], untouched)


def test_a_product_of_pairs_at_the_edges_of_blocks_panels_and_sums(bf16_target: SimdTarget) -> None:
    block, panel, lanes = bf16_target.rows, bf16_target.columns, bf16_target.lanes
    rows, columns = (block - 1, block + 1), (panel, panel + lanes)
    for (height, depth, width), add in zip(
        itertools.product(rows, DEPTHS, columns), itertools.cycle([False, True, True, False, True])
    ):
        check_pointwise(height, depth, width, (None, None), add=add)
    for clamp in ((0.0, None), (None, 6.0), (0.0, 6.0)):
        check_pointwise(1, PAIRS, lanes, clamp, add=True)


def test_a_product_of_pairs_at_the_edges_of_items(
    bf16_target: SimdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "_BLOCKS_BYTES", 2 * 4 * matmul.DEPTH * bf16_target.rows)
    item = 2 * bf16_target.rows
    for count in (1, 8 * torch.get_num_threads(), 20 * torch.get_num_threads()):
        for rows in (count * item - 1, count * item, count * item + 1):
            check_pointwise(rows, PAIRS, bf16_target.columns, (0.0, None), add=True)


def test_threads_do_not_change_a_bit(bf16_target: SimdTarget) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(300, 64, generator=generator).bfloat16()
    panels = matmul.in_bf16_panels(torch.randn(64, 96, generator=generator))
    results = []
    for threads in (1, 2, 3):
        results.append(torch.empty(300, 96).bfloat16())
        with torch_threads(threads):
            matmul.pointwise(
                pixels, panels, torch.zeros(96), results[-1], (None, None), Workspace(), add=False
            )
    assert all(torch.equal(result, results[0]) for result in results)


def through_a_product(numbers: Tensor) -> Tensor:
    """Return numbers that a product added to zeros and rounded."""
    panels = matmul.in_bf16_panels(torch.zeros(PAIRS, len(numbers)))
    result = torch.zeros(1, len(numbers)).bfloat16()
    bias = matmul.filled(numbers)
    matmul.pointwise(
        torch.zeros(1, PAIRS).bfloat16(), panels, bias, result, (None, None), Workspace(), add=False
    )
    return result[0]


def test_rounding_is_to_the_nearest_and_to_even(bf16_target: SimdTarget) -> None:
    generator = torch.Generator().manual_seed(0)
    tie = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, -3.4e38])
    special = torch.tensor([0.0, float("inf"), -float("inf"), 1e-30, 2.0**-126, 65280.0])
    numbers = torch.cat([tie, special, torch.randn(500, generator=generator) * 1e3])
    assert torch.equal(through_a_product(numbers), numbers.bfloat16())
    bits = torch.tensor([0x7F800001, 0x7FC00000, 0x7FFFFFFF, -1], dtype=torch.int32).repeat(4)
    assert through_a_product(bits.view(torch.float32)).isnan().all()


@pytest.mark.parametrize("tile", [4, 6])
def test_transforms_of_a_bfloat16_image_are_those_of_its_numbers(bf16_target: SimdTarget, tile: int) -> None:
    """Reading widens, writing rounds; all between is the same computation in float32."""
    generator = torch.Generator().manual_seed(tile)
    grid, matrices = TileGrid(13, 18, 2, tile), Transforms.of(tile)
    tiles, size = TileRange(grid, 1, grid.tiles - 1), (tile + 2) ** 2
    image = torch.randn(grid.height, grid.width, 32, generator=generator).bfloat16()
    blocks = -(-tiles.count // bf16_target.rows)
    narrow, wide = torch.zeros(2, size, blocks, 2, bf16_target.rows, 16)
    tile_transforms.transform_input(image, tiles, matrices.input, narrow)
    tile_transforms.transform_input(image.float(), tiles, matrices.input, wide)
    assert torch.equal(narrow, wide)
    products, bias = torch.randn(size, tiles.count, 32, generator=generator), torch.randn(32)
    out, exact = torch.zeros(image.shape).bfloat16(), torch.zeros(image.shape)
    tile_transforms.transform_output(products, tiles, matrices.output, bias, (0.0, None), out)
    tile_transforms.transform_output(products, tiles, matrices.output, bias, (0.0, None), exact)
    assert torch.equal(out, exact.bfloat16())
    assert len(torch.unique(out)) > 100


@pytest.mark.skipif(not AVX512_BF16.runs_here(), reason="needs AVX512_BF16")
def test_the_instructions_give_what_float32_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(77, 1056, generator=generator).bfloat16()
    weights, results = torch.randn(1056, 80, generator=generator), []
    for target in (AVX512_BF16, AVX512):
        monkeypatch.setattr(simd_targets, "simd_target", lambda target=target: target)
        result = torch.empty(77, 80).bfloat16()
        panels, bias = matmul.in_bf16_panels(weights), matmul.filled(torch.zeros(80))
        matmul.pointwise(pixels, panels, bias, result, (None, None), Workspace(), add=False)
        results.append(result)
    exact = pixels.double() @ weights.bfloat16().double()
    assert (results[0] - exact).abs().max() < 2**-8 * exact.abs().max()
    # A last digit may differ: the instruction need not round between the two products.
    assert (results[0] != results[1]).float().mean() < 0.01
    assert (results[0].float() - results[1].float()).abs().max() <= 2**-7 * exact.abs().max()


# ---- whole networks


def made(name: str) -> nn.Module:
    """Return a network with random weights; ``bottlenecks`` is a ResNet with one in each stage."""
    if name == "bottlenecks":
        model: nn.Module = networks.fcn_resnet((1, 1, 1, 1), 21).eval()
    else:
        model = registry.find(name).build(21).eval()
    randomise(model)
    return model


def error(logits: Tensor, exact: Tensor) -> float:
    """The root mean square error over the standard deviation of the logits."""
    return float((logits - exact).square().mean().sqrt() / exact.std())


def torch_logits(model: nn.Module, batch: Tensor, precision: str) -> Tensor:
    """PyTorch's own; in bfloat16 by autocast, with the last layer in float32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        x = model.get_submodule("backbone")(batch)
        *inner, last = model.get_submodule("classifier").children()
        for layer in inner:
            x = layer(x)
    logits: Tensor = last(x.float())
    return logits


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "bottlenecks",
        "efficientnet_lite0",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "resnet101")),
    ],
)
def test_the_error_is_no_larger_than_pytorchs(name: str) -> None:
    model, batch = made(name), torch.randn(2, 3, 65, 90, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = torch_logits(model, batch, "fp32")
        theirs = error(torch_logits(model, batch, "bf16"), exact)
        all_layers: list[Layers] = [CompiledLayers(torch.bfloat16), OnednnLayers()]
        if amx.available():
            all_layers.append(AmxLayers())
        for layers in all_layers:
            network = CpuNetwork(model, layers)
            logits = network(batch)
            assert logits.dtype == torch.float32
            # Logits in bfloat16 would be equal too often: the last layer is float32.
            assert not torch.equal(logits, logits.bfloat16().float())
            assert 1e-4 < error(logits, exact) <= theirs
            assert sum(network.kernels().values()) == sum(
                isinstance(module, nn.Conv2d) for module in model.modules()
            )
            # Neighbours in a batch change nothing.
            for index in range(2):
                assert torch.equal(network(batch[index : index + 1])[0], logits[index])


@pytest.mark.long
def test_without_fused_operators_plain_ones_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = made("bottlenecks"), torch.randn(1, 3, 65, 70, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = torch_logits(model, batch, "fp32")
        monkeypatch.setattr(onednn_layers, "_fused_operators", lambda: None)
        logits = CpuNetwork(model, OnednnLayers())(batch)
        assert error(logits, exact) < 0.05
    assert len(np.unique(logits.argmax(1))) > 1
