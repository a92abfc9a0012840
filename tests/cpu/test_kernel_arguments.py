"""A wrong shape, type or stride raises before a compiled kernel, which would go out of bounds, gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fcn_cli.cpu import winograd
from fcn_cli.cpu.kernels import argmax, compiler, matmul, simd_targets, tile_transforms
from fcn_cli.cpu.kernels.tile_transforms import TileGrid, TileRange
from fcn_cli.cpu.toom_cook import Matrix, Transforms
from fcn_cli.cpu.workspace import Workspace

Arguments = dict[str, Any]
Wrong = Callable[[Any], Any]

ROWS, DEPTH, COLUMNS = 13, 32, 64
GRID = TileGrid(20, 17, dilation=2, tile=4)
PLACES = (GRID.tile + 2) ** 2
CHANNELS = 32


def for_pointwise() -> Arguments:
    return {
        "pixels": torch.rand(ROWS, DEPTH),
        "panels": matmul.in_panels(torch.rand(DEPTH, COLUMNS)),
        "bias": torch.rand(matmul.padded(COLUMNS)),
        "result": torch.zeros(ROWS, COLUMNS),
        "clamp": (None, None),
        "space": Workspace(),
        "add": False,
    }


def for_pointwise_in_bf16() -> Arguments:
    return {
        **for_pointwise(),
        "pixels": torch.rand(ROWS, DEPTH).bfloat16(),
        "panels": matmul.in_bf16_panels(torch.rand(DEPTH, COLUMNS)),
        "result": torch.zeros(ROWS, COLUMNS).bfloat16(),
    }


def for_batched_product() -> Arguments:
    rows = simd_targets.simd_target().rows
    return {
        "left": torch.rand(PLACES, 3, DEPTH // matmul.DEPTH, rows, matmul.DEPTH),
        "panels": matmul.in_panels(torch.rand(PLACES, DEPTH, COLUMNS)),
        "result": torch.zeros(PLACES, 3 * rows, matmul.padded(COLUMNS)),
    }


def matrix(name: str) -> Matrix:
    rows: Matrix = getattr(Transforms.of(GRID.tile), name)
    return rows


def all_tiles(grid: TileGrid) -> TileRange:
    return TileRange(grid, 0, grid.tiles)


def for_transform_input() -> Arguments:
    rows = simd_targets.simd_target().rows
    blocks = -(-GRID.tiles // rows)
    return {
        "x": torch.rand(GRID.height, GRID.width, CHANNELS),
        "tiles": all_tiles(GRID),
        "transform": matrix("input"),
        "result": torch.zeros(PLACES, blocks, CHANNELS // matmul.DEPTH, rows, matmul.DEPTH),
    }


def for_transform_output() -> Arguments:
    return {
        "products": torch.rand(PLACES, GRID.tiles, CHANNELS),
        "tiles": all_tiles(GRID),
        "transform": matrix("output"),
        "bias": torch.rand(CHANNELS),
        "clamp": (0.0, None),
        "out": torch.zeros(GRID.height, GRID.width, CHANNELS),
    }


def for_argmax() -> Arguments:
    return {
        "wide": torch.rand(3, 5, 48),
        "ends": torch.tensor([0, 4, 9]),
        "rows": torch.tensor([[0, 1], [1, 2]]),
        "weights": torch.rand(9),
        "labels": torch.zeros((9, 48), dtype=torch.uint8),
    }


def short(dimension: int) -> Wrong:
    """One element less along a dimension, in memory of its own."""
    return lambda tensor: tensor.narrow(dimension, 0, tensor.shape[dimension] - 1).clone()


def strided(tensor: Tensor) -> Tensor:
    """Of the same shape and values, with a gap between neighbours along the last dimension."""
    return torch.stack([tensor, tensor], -1)[..., 0]


def of_another_type(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64 if tensor.dtype == torch.float32 else torch.int32)


def same(tensor: Tensor) -> Tensor:
    """Matrices that all lie at the same place."""
    return tensor[:1].expand(tensor.shape)


def instead(value: Any) -> Wrong:
    return lambda _: value


CASES: dict[str, tuple[Callable[..., None], Callable[[], Arguments], dict[str, list[Wrong]]]] = {
    "pointwise": (
        matmul.pointwise,
        for_pointwise,
        {
            "pixels": [short(0), short(1), strided, of_another_type, torch.flatten],
            "panels": [short(0), short(1), short(2), strided, of_another_type, torch.flatten],
            "bias": [short(0), instead(torch.rand(COLUMNS - 16)), strided, of_another_type],
            "result": [short(0), short(1), strided, of_another_type, torch.flatten],
        },
    ),
    "pointwise in bf16": (
        matmul.pointwise,
        for_pointwise_in_bf16,
        {
            "pixels": [short(0), short(1), instead(torch.rand(ROWS, 16).bfloat16()), strided, Tensor.float],
            "panels": [*map(short, range(4)), strided, Tensor.float, lambda panels: panels.flatten(2)],
            "result": [short(0), short(1), strided, Tensor.float],
        },
    ),
    "batched_product": (
        matmul.batched_product,
        for_batched_product,
        {
            "left": [*map(short, range(5)), strided, of_another_type, torch.flatten, same],
            "panels": [*map(short, range(4)), strided, of_another_type, torch.flatten],
            "result": [*map(short, range(3)), strided, of_another_type, torch.flatten, same],
        },
    ),
    "transform_input": (
        tile_transforms.transform_input,
        for_transform_input,
        {
            "x": [*map(short, range(3)), strided, of_another_type, Tensor.half, torch.flatten],
            "tiles": [instead(all_tiles(TileGrid(21, 17, 2, 4))), instead(all_tiles(TileGrid(20, 17, 2, 6)))],
            "transform": [instead(matrix("output")), instead(matrix("input")[:-1])],
            "result": [*map(short, range(5)), strided, of_another_type, torch.flatten, same],
        },
    ),
    "transform_output": (
        tile_transforms.transform_output,
        for_transform_output,
        {
            "products": [*map(short, range(3)), strided, of_another_type, torch.flatten, same],
            "tiles": [instead(all_tiles(TileGrid(20, 18, 2, 4))), instead(all_tiles(TileGrid(20, 17, 2, 6)))],
            "transform": [instead(matrix("input")), instead(matrix("output")[:-1])],
            "bias": [short(0), strided, of_another_type],
            "out": [*map(short, range(3)), strided, of_another_type, torch.flatten],
        },
    ),
    "argmax": (
        argmax.argmax,
        for_argmax,
        {
            "wide": [short(0), short(2), instead(torch.rand(3, 256, 48)), strided, of_another_type],
            "ends": [
                short(0),
                instead(torch.tensor([0, 4, 10])),
                instead(torch.tensor([-1, 4, 9])),
                instead(torch.tensor([0, 9, 4])),
                instead(torch.tensor([0, 9, 9])),
                strided,
                of_another_type,
            ],
            "rows": [
                short(0),
                short(1),
                instead(torch.tensor([[0, 1], [1, 3]])),
                instead(torch.tensor([[-1, 1], [1, 2]])),
                strided,
                of_another_type,
            ],
            "weights": [short(0), strided, of_another_type],
            "labels": [short(0), short(1), strided, of_another_type, torch.flatten],
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_right_arguments_are_taken(name: str) -> None:
    wrapper, arguments, _ = CASES[name]
    wrapper(**arguments())


@pytest.mark.parametrize(
    ("name", "argument", "index"),
    [
        (name, argument, index)
        for name, (_, _, wrong) in CASES.items()
        for argument, each in wrong.items()
        for index in range(len(each))
    ],
)
def test_a_wrong_argument_raises_before_the_kernel_runs(
    name: str, argument: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper, make, wrong = CASES[name]
    arguments = make()
    arguments[argument] = wrong[argument][index](arguments[argument])
    started: list[str] = []
    monkeypatch.setattr(compiler.Kernel, "__call__", lambda *_, **__: started.append(name))
    with pytest.raises((ValueError, TypeError)) as raised:
        wrapper(**arguments)
    assert not started
    # It says what came and what is needed, in numbers or types.
    assert any(character.isdigit() for character in str(raised.value))


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (1, GRID.tiles), (0, 0), (0, GRID.tiles + 1)])
def test_tiles_beyond_the_grid_are_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"{GRID.tiles}"):
        TileRange(GRID, first, count)


def test_tiles_of_size_six_are_checked_as_well() -> None:
    """A layer built for one number of channels gets an image with another."""
    weight = torch.rand(32, 16, 3, 3, dtype=torch.float64)
    layer = winograd.Winograd(weight, torch.zeros(32, dtype=torch.float64), 1, 6, (None, None))
    out = torch.zeros(12, 12, 32)
    layer(torch.rand(12, 12, 16), out, Workspace())
    with pytest.raises(ValueError, match="shape"):
        layer(torch.rand(12, 12, 32), out, Workspace())
    with pytest.raises(ValueError, match="shape"):
        layer(torch.rand(12, 12, 16), torch.zeros(12, 12, 16), Workspace())
