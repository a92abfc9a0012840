"""The label maps are what plain torchvision gives; test_official_weights.py has the default size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from ..conftest import SAMPLES, Fcn
from ..plain_torchvision import stand_in

IMAGES = ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg")


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    return stand_in("resnet101")


@pytest.fixture(scope="module")
def checkpoint(plain: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random101.pth"
    torch.save(plain.state_dict(), path)
    return path


def assert_same(labels: NDArray[np.uint8], logits: torch.Tensor) -> None:
    """Check equality, but where the best two logits are as good as equal; 5 classes at least."""
    expected = logits.argmax(0).numpy().astype(np.uint8)
    assert labels.shape == expected.shape
    assert len(np.unique(expected)) >= 5
    best, second = logits.topk(2, dim=0).values
    tie = (best - second) <= 1e-4 * logits.std()
    differing = labels != expected
    assert not (differing & ~tie.numpy()).any()
    assert differing.mean() <= 0.001


@pytest.mark.parametrize(
    "images",
    [pytest.param(IMAGES[1:2], marks=pytest.mark.long), pytest.param(IMAGES, marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_native_size_is_the_hub_example(
    images: Sequence[str], fcn: Fcn, plain: torch.nn.Module, checkpoint: Path, tmp_path: Path
) -> None:
    fcn(
        "segment",
        *(SAMPLES / name for name in images),
        "--backbone",
        "resnet101",
        "--weights",
        checkpoint,
        "--resize",
        "none",
        "-o",
        "out",
    )
    preprocess = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    for name in images:
        batch = preprocess(Image.open(SAMPLES / name).convert("RGB")).unsqueeze(0)
        with torch.inference_mode():
            logits = plain(batch)["out"][0]
        labels = np.array(Image.open(tmp_path / "out/masks" / f"{Path(name).stem}.png"))
        assert_same(labels, logits)
