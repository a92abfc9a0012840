"""The registry of architectures: name → how to build one, its weights, its properties.

Reading it does not import torch; building a model does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import RequestError

if TYPE_CHECKING:
    from torch import nn


MAX_CLASSES = 255
"""Label maps are uint8, and 255 is void."""


@dataclass(frozen=True)
class OfficialWeights:
    """A published weights file: its URL, and the first 8 hex digits of its sha256 (part of its name)."""

    url: str
    sha256_prefix: str

    @property
    def file_name(self) -> str:
        """The name of the file, on the server and in every directory."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class BundledWeights:
    """Weights inside this package, and their sha256."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Architecture:
    """An FCN architecture.

    `build` takes the number of classes and returns the network (see `networks`), without weights. `stride` is
    the stride of its logits in pixels. `bytes_per_pixel` is the peak memory of a forward pass in float32 on a
    CPU, per input pixel of one image: measured, and rounded up. `gflop_per_megapixel` is the work of a
    forward pass, in 10^9 floating-point operations by direct convolution.
    """

    name: str
    weights: OfficialWeights | BundledWeights
    stride: int
    bytes_per_pixel: int
    gflop_per_megapixel: float
    build: Callable[[int], nn.Module]
    note: str = ""

    @property
    def sha256(self) -> str:
        """The known hex digits of the weights' sha256: all, or the first ones."""
        return self.weights.sha256 if isinstance(self.weights, BundledWeights) else self.weights.sha256_prefix


def _fcn_resnet50(classes: int) -> nn.Module:
    from . import networks

    return networks.fcn_resnet((3, 4, 6, 3), classes)


def _fcn_resnet101(classes: int) -> nn.Module:
    from . import networks

    return networks.fcn_resnet((3, 4, 23, 3), classes)


def _fcn_efficientnet_lite0(classes: int) -> nn.Module:
    from . import networks

    return networks.fcn_efficientnet_lite0(classes)


_RELEASE = "https://download.pytorch.org/models"
BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Architecture(
            "resnet50",
            OfficialWeights(f"{_RELEASE}/fcn_resnet50_coco-1167a1af.pth", "1167a1af"),
            stride=8,
            bytes_per_pixel=700,
            gflop_per_megapixel=1056,
            build=_fcn_resnet50,
        ),
        Architecture(
            "resnet101",
            OfficialWeights(f"{_RELEASE}/fcn_resnet101_coco-7ecb50ca.pth", "7ecb50ca"),
            stride=8,
            bytes_per_pixel=700,
            gflop_per_megapixel=1648,
            build=_fcn_resnet101,
        ),
        Architecture(
            "efficientnet_lite0",
            BundledWeights(
                Path(__file__).parents[1] / "data" / "fcn_efficientnet_lite0_preview.pth",
                "9d23f0798147db723bf3a8dd67e478505fb4c335de8d31f363743c0c71d418da",
            ),
            stride=16,
            bytes_per_pixel=250,
            gflop_per_megapixel=29,
            build=_fcn_efficientnet_lite0,
            note=(
                "efficientnet_lite0 is a small preview network for trying the tool: it mixes classes up; "
                "use resnet50 or resnet101 for real work"
            ),
        ),
    )
}
DEFAULT_BACKBONE = "resnet50"
REPLACED = {"mobilenet_v2": "efficientnet_lite0"}
"""Names that earlier versions had, and those that took their place."""


def find(name: str) -> Architecture:
    """Return an architecture by name.

    Raises
    ------
    RequestError
        There is no architecture of that name.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name in REPLACED:
        raise RequestError(f"--backbone {name}: replaced by {REPLACED[name]}")
    raise RequestError(f"--backbone {name}: not one of {', '.join(BACKBONES)}")
