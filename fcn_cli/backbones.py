"""The registry of networks: name → architecture, weights, classes.

Reading it needs no torch; building a network does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoints import load_state_dict
from .common.errors import RequestError, WeightsError
from .common.wording import counted
from .weights import OfficialWeights, WeightsFile

if TYPE_CHECKING:
    from torch import Tensor, nn


MAX_CLASSES = 255
"""Label maps are uint8 and 255 is void."""


@dataclass(frozen=True)
class BundledWeights:
    """Weights inside this package, and the sha256 they must have."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Backbone:
    """One network of the FCN family.

    `build` takes the number of classes and returns the torchvision model without auxiliary head or weights.
    `stride` is that of its logits. `bytes_per_pixel` is how much memory a forward pass of one image takes at
    its peak, in float32 on a CPU, per pixel of input: measured, and rounded up.
    """

    name: str
    weights: OfficialWeights | BundledWeights
    stride: int
    bytes_per_pixel: int
    build: Callable[[int], nn.Module]
    note: str = ""

    @property
    def sha256(self) -> str:
        """What is known of its weights' sha256: all of it, or the first digits."""
        return self.weights.sha256 if isinstance(self.weights, BundledWeights) else self.weights.sha256_prefix


def _fcn_resnet50(classes: int) -> nn.Module:
    from torchvision.models.segmentation import fcn_resnet50

    model: nn.Module = fcn_resnet50(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    return model


def _fcn_resnet101(classes: int) -> nn.Module:
    from torchvision.models.segmentation import fcn_resnet101

    model: nn.Module = fcn_resnet101(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    return model


def _fcn_mobilenet_v2(classes: int) -> nn.Module:
    """Build an FCN head on MobileNetV2's features, dilated after block 13 so that its stride is 16."""
    from torchvision.models import mobilenet_v2
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    features = mobilenet_v2(weights=None).features[:18]
    for index in range(14, 18):
        depthwise = next(m for m in features[index].modules() if getattr(m, "groups", 1) > 1)
        if index == 14:
            depthwise.stride = (1, 1)
        else:
            depthwise.dilation = depthwise.padding = (2, 2)
    model: nn.Module = FCN(IntermediateLayerGetter(features, {"17": "out"}), FCNHead(320, classes))
    return model


_RELEASE = "https://download.pytorch.org/models"
BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "resnet50",
            OfficialWeights(f"{_RELEASE}/fcn_resnet50_coco-1167a1af.pth", "1167a1af"),
            stride=8,
            bytes_per_pixel=700,
            build=_fcn_resnet50,
        ),
        Backbone(
            "resnet101",
            OfficialWeights(f"{_RELEASE}/fcn_resnet101_coco-7ecb50ca.pth", "7ecb50ca"),
            stride=8,
            bytes_per_pixel=700,
            build=_fcn_resnet101,
        ),
        Backbone(
            "mobilenet_v2",
            BundledWeights(
                Path(__file__).parent / "data" / "fcn_mobilenet_v2_preview.pth",
                "28cd0af6a50cd23c5df8289c3b496c27690c4e49777c3f0d734ee29d4002a6a7",
            ),
            stride=16,
            bytes_per_pixel=400,
            build=_fcn_mobilenet_v2,
            note=(
                "mobilenet_v2 is a small preview network for trying the tool: it mixes classes up; "
                "use resnet50 or resnet101 for real work"
            ),
        ),
    )
}
DEFAULT_BACKBONE = "resnet50"


def find(name: str) -> Backbone:
    """Return a backbone by name.

    Raises
    ------
    RequestError
        There is none of that name.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise RequestError(f"--backbone {name}: not one of {', '.join(BACKBONES)}") from None


@dataclass(frozen=True)
class Network:
    """A network with its weights, in eval mode on the CPU in float32, and the names of its classes."""

    backbone: Backbone
    model: nn.Module
    class_names: tuple[str, ...]


def load(backbone: Backbone, file: WeightsFile, class_names: Sequence[str] | None = None) -> Network:
    """Build a network and fill it from a checkpoint; the number of classes is the classifier's.

    Parameters
    ----------
    backbone
        The architecture that the checkpoint must have.
    file
        A verified weights file.
    class_names
        One name per class, or None for ``class_0``, ``class_1``, ….

    Raises
    ------
    WeightsError
        The checkpoint has missing, unexpected or wrongly shaped entries, or other than 2 to 255 classes.
    RequestError
        `class_names` are more or fewer than the classes.
    """
    state = load_state_dict(file)
    classes = _class_count(state, file)
    names = tuple(class_names) if class_names is not None else tuple(f"class_{i}" for i in range(classes))
    if len(names) != classes:
        raise RequestError(
            f"--class-names: {counted(len(names), 'name')} for the {classes} classes of {file.path}"
        )
    model = backbone.build(classes)
    _refuse_mismatch(model, state, f"{file.path}: does not fit {backbone.name}")
    model.load_state_dict(state, strict=False)
    return Network(backbone, model.eval(), names)


def _class_count(state: dict[str, Tensor], file: WeightsFile) -> int:
    final = state.get("classifier.4.weight")
    if final is None or final.ndim != 4:
        raise WeightsError(f"{file.path}: no FCN classifier in it (classifier.4.weight is missing)")
    if not 2 <= len(final) <= MAX_CLASSES:
        raise WeightsError(
            f"{file.path}: has {counted(len(final), 'class', 'classes')}; 2 to {MAX_CLASSES} are supported"
        )
    return len(final)


def _refuse_mismatch(model: nn.Module, state: dict[str, Tensor], what: str) -> None:
    # BatchNorm's batch counters play no part in prediction, and some checkpoints leave them out.
    own = {k: v for k, v in model.state_dict().items() if not k.endswith(".num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith(".num_batches_tracked")}
    if missing := sorted(own.keys() - given.keys()):
        raise WeightsError(f"{what}: {_some(missing)} missing")
    if unexpected := sorted(given.keys() - own.keys()):
        raise WeightsError(f"{what}: {_some(unexpected)} unexpected")
    if wrong := sorted(k for k in own if own[k].shape != given[k].shape):
        shapes = f"{tuple(given[wrong[0]].shape)} where {tuple(own[wrong[0]].shape)} belongs"
        raise WeightsError(f"{what}: {_some(wrong)} of another shape ({shapes})")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
