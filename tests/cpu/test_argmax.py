"""Labels against their NumPy reference, at the edges of vectors, of a thread's columns and of strips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcn_cli.cpu.kernels import argmax as kernel
from fcn_cli.cpu.kernels.argmax import COLUMNS
from fcn_cli.cpu.kernels.simd_targets import SimdTarget

from . import references
from .test_matmul import integers

STRIPS = [
    ([0, 1], [(0, 0)]),
    ([0, 3, 4, 9], [(0, 1), (1, 2), (2, 2)]),
]


@pytest.mark.parametrize("classes", [1, 2, 21, 255])
@pytest.mark.parametrize(("ends", "between"), STRIPS, ids=["one row", "three strips"])
def test_labels(target: SimdTarget, classes: int, ends: list[int], between: list[tuple[int, int]]) -> None:
    lanes = target.lanes
    weights = torch.arange(ends[-1]).float() / 8
    for width in (lanes, 2 * lanes, COLUMNS - lanes, COLUMNS, COLUMNS + lanes, 2 * COLUMNS + lanes):
        # Of nine values, so that the largest one is there several times; mixed with eighths they stay exact.
        logits = integers(3, classes, width)
        around = torch.full((ends[-1] + 2, width), 99, dtype=torch.uint8)
        kernel.argmax(logits, torch.tensor(ends), torch.tensor(between), weights, around[1:-1])
        np.testing.assert_array_equal(around[1:-1], references.labels(logits, ends, between, weights))
        assert (around[[0, -1]] == 99).all()


def test_the_lowest_of_equal_classes_wins(target: SimdTarget) -> None:
    labels = torch.full((2, target.lanes), 99, dtype=torch.uint8)
    rows, ends = torch.tensor([[0, 0]]), torch.tensor([0, 2])
    kernel.argmax(torch.zeros(1, 7, target.lanes), ends, rows, torch.tensor([0.0, 1.0]), labels)
    assert not labels.any()


@pytest.mark.parametrize("shape", [(0, 5, 16), (3, 0, 16), (3, 5, 0)])
def test_no_logits_are_refused(target: SimdTarget, shape: tuple[int, int, int]) -> None:
    labels = torch.zeros((1, shape[2]), dtype=torch.uint8)
    with pytest.raises(ValueError, match="shape"):
        kernel.argmax(
            torch.zeros(shape), torch.tensor([0, 1]), torch.tensor([[0, 0]]), torch.zeros(1), labels
        )
