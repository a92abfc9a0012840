"""What is used of torchvision: every other module has it from here.

torchvision imports PyTorch's compiler, and the compiler makes a cache directory when it is imported: in the
temporary directory, where a file of that name or somebody else's directory may be. Nothing here compiles,
so it is shown a directory that exists.
"""

from __future__ import annotations

import os

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_given = os.environ.get(_VARIABLE)
if not os.path.isdir(_given or ""):
    os.environ[_VARIABLE] = os.path.dirname(__file__)
try:
    import torchvision
    from torchvision.models import mobilenet_v2, segmentation
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.mobilenetv2 import InvertedResidual
    from torchvision.models.resnet import Bottleneck
    from torchvision.models.segmentation.fcn import FCN, FCNHead
finally:
    if _given is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = _given

VERSION = str(torchvision.__version__)

__all__ = [
    "FCN",
    "VERSION",
    "Bottleneck",
    "FCNHead",
    "IntermediateLayerGetter",
    "InvertedResidual",
    "mobilenet_v2",
    "segmentation",
]
