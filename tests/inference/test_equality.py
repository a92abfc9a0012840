"""The label maps are what plain torchvision gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.models.segmentation import FCN_ResNet101_Weights, fcn_resnet101

from benchmarks.material import randomise

from ..conftest import SAMPLES, Fcn

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg")


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    """Plain torchvision, auxiliary head and all."""
    model: torch.nn.Module = fcn_resnet101(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    randomise(model)
    # Random logits are smooth and one class wins: even the classes out on a real photo.
    model.eval()
    photo = transforms.ToTensor()(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[None]
    with torch.inference_mode():
        logits = model(photo)["out"]
    final = model.get_submodule("classifier.4")
    with torch.no_grad():
        final.weight /= logits.std((0, 2, 3))[:, None, None, None]
        final.bias -= logits.mean((0, 2, 3))
        final.bias /= logits.std((0, 2, 3))
    return model


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
    "photos",
    [pytest.param(PHOTOS[1:2], marks=pytest.mark.long), pytest.param(PHOTOS, marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_native_size_is_the_hub_example(
    photos: Sequence[str], fcn: Fcn, plain: torch.nn.Module, checkpoint: Path, tmp_path: Path
) -> None:
    fcn(
        "segment",
        *(SAMPLES / name for name in photos),
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
    for name in photos:
        batch = preprocess(Image.open(SAMPLES / name).convert("RGB")).unsqueeze(0)
        with torch.inference_mode():
            logits = plain(batch)["out"][0]
        labels = np.array(Image.open(tmp_path / "out/masks" / f"{Path(name).stem}.png"))
        assert_same(labels, logits)


@pytest.mark.slow
def test_default_is_the_preset_upsampled_to_the_photo(
    fcn: Fcn, plain: torch.nn.Module, checkpoint: Path, tmp_path: Path
) -> None:
    photos = [SAMPLES / name for name in PHOTOS]
    fcn("segment", *photos, "--backbone", "resnet101", "--weights", checkpoint, "-o", "out")
    preset = FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1.transforms()
    for name in PHOTOS:
        photo = Image.open(SAMPLES / name).convert("RGB")
        with torch.inference_mode():
            features = plain.backbone(preset(photo)[None])["out"]  # type: ignore[operator]
            low = plain.classifier(features)  # type: ignore[operator]
            logits = F.interpolate(low, (photo.height, photo.width), mode="bilinear", align_corners=False)[0]
        labels = np.array(Image.open(tmp_path / "out/masks" / f"{Path(name).stem}.png"))
        assert_same(labels, logits)
