"""The official weights are fetched, and the masks of sample_images are plain torchvision's argmax.

`make official-test` fetches the real files. Without `--official-weights` a server on this machine has
stand-ins of random weights under their names: the way is the same, and nothing is to be seen in their masks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torchvision.models import segmentation

from fcn_cli.__main__ import run
from fcn_cli.models.registry import BACKBONES, OfficialWeights

from .conftest import SAMPLES
from .plain_torchvision import plain_network, stand_in
from .web_server import web_server

IMAGES = ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg")
# With stand-ins a landscape and a portrait are enough: the slow tests have no time for more.
FEWER = ("chelsea.png", "grace_hopper.jpg")
PRESET = segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.transforms()
CAT, PERSON = 8, 15
# An image, the class that it shows, a pixel (x, y) in the middle of the face, the least share of the image.
SEEN = (
    ("chelsea.png", CAT, (240, 150), 0.4),
    ("astronaut.png", PERSON, (225, 115), 0.2),
    ("grace_hopper.jpg", PERSON, (265, 235), 0.3),
)


class Segmented(NamedTuple):
    weights: Path
    masks: Path
    backbone: str

    def labels(self, image: str) -> NDArray[np.uint8]:
        with Image.open(self.masks / f"{Path(image).stem}.png") as mask:
            return np.array(mask)


def plain_logits(model: Any, image: str) -> torch.Tensor:
    """Return the logits (classes, height, width) of an image by torchvision's preprocessing and network."""
    with Image.open(SAMPLES / image) as opened, torch.inference_mode():
        picture = opened.convert("RGB")
        low = model.classifier(model.backbone(PRESET(picture)[None])["out"])
        size = picture.height, picture.width
        return F.interpolate(low, size, mode="bilinear", align_corners=False)[0]


def wrong_pixels(labels: NDArray[np.uint8], logits: torch.Tensor, near_tie: float) -> int:
    """Count pixels of another class than the best logit's, but for near-ties (in the logits' deviations)."""
    best, second = logits.topk(2, dim=0).values
    is_clear = (best - second) >= near_tie * logits.std()
    return int(((torch.from_numpy(labels) != logits.argmax(0)) & is_clear).sum())


def serve_stand_in(backbone: str, stack: ExitStack, patch: pytest.MonkeyPatch) -> None:
    """Have a mirror with a stand-in under the official name, and the hash of the stand-in expected."""
    file = io.BytesIO()
    torch.save(stand_in(backbone).state_dict(), file)
    content = file.getvalue()
    architecture = BACKBONES[backbone]
    assert isinstance(architecture.weights, OfficialWeights)
    expected = dataclasses.replace(
        architecture.weights, sha256_prefix=hashlib.sha256(content).hexdigest()[:8]
    )
    patch.setitem(BACKBONES, backbone, dataclasses.replace(architecture, weights=expected))
    server = stack.enter_context(web_server())
    server.files[f"/{expected.file_name}"] = content
    patch.setenv("FCN_WEIGHTS_MIRROR", server.url)


@pytest.fixture(scope="module")
def is_official(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--official-weights"))


@pytest.fixture(scope="module")
def needs_official(is_official: bool) -> None:
    if not is_official:
        pytest.skip(
            "these are STAND-INS of random weights, which see nothing; `make official-test` has real ones"
        )


@pytest.fixture(scope="module", params=["resnet50", "resnet101"])
def segmented(
    request: pytest.FixtureRequest, is_official: bool, tmp_path_factory: pytest.TempPathFactory
) -> Segmented:
    """The samples, segmented with weights that were just fetched."""
    backbone = request.param
    folder = tmp_path_factory.mktemp(backbone)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in [name for name in os.environ if name.startswith("FCN_")]:
            patch.delenv(name)
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        if not is_official:
            serve_stand_in(backbone, stack, patch)
        assert run(["weights", "fetch", backbone]) == 0
        images = [SAMPLES] if is_official else [SAMPLES / name for name in FEWER]
        options = ["--backbone", backbone, "--offline", "--device", "cpu", "--output", folder / "out"]
        line = ["segment", *images, *options]
        assert run([str(word) for word in line]) == 0
    (weights,) = (folder / "torch/hub/checkpoints").glob("*.pth")
    return Segmented(weights, folder / "out/masks", backbone)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_masks_are_plain_torchvisions_argmax(segmented: Segmented, is_official: bool) -> None:
    model = plain_network(segmented.backbone)
    model.load_state_dict(torch.load(segmented.weights, weights_only=True))
    wrong = {}
    images = IMAGES if is_official else FEWER
    for image in images:
        labels = segmented.labels(image)
        logits = plain_logits(model, image)
        wrong[image] = wrong_pixels(labels, logits, 1e-3 if is_official else 1e-4)
        # Else nothing was compared.
        assert is_official or len(np.unique(labels)) >= 5
    assert wrong == dict.fromkeys(images, 0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_is_plainly_in_the_pictures_is_seen(needs_official: None, segmented: Segmented) -> None:
    for image, expected, (x, y), least in SEEN:
        labels = segmented.labels(image)
        assert labels[y, x] == expected, image
        assert (labels == expected).mean() >= least, image


def test_another_class_is_noticed() -> None:
    """Else the comparison could not fail."""
    logits = torch.randn(21, 40, 50, generator=torch.Generator().manual_seed(1))
    labels = logits.argmax(0).numpy().astype(np.uint8)
    assert wrong_pixels(labels, logits, 1e-4) == 0
    labels[3, 4] = (labels[3, 4] + 1) % 21
    assert wrong_pixels(labels, logits, 1e-4) == 1
    # Where two classes are as good as equal, either may be.
    best, second = logits[:, 3, 4].topk(2).indices
    logits[best, 3, 4] = logits[second, 3, 4] + 1e-5
    labels[3, 4] = second
    assert wrong_pixels(labels, logits, 1e-4) == 0
