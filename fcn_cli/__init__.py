"""Segment images with torchvision's Fully Convolutional Networks.

>>> from fcn_cli import Segmenter  # doctest: +SKIP
>>> segmenter = Segmenter("efficientnet_lite0")  # doctest: +SKIP
>>> result = segmenter("photo.jpg")  # doctest: +SKIP
>>> result.labels.shape, result.labels.dtype  # doctest: +SKIP
((300, 451), dtype('uint8'))
>>> for result in segmenter.batch(["a.jpg", "b.jpg"]):  # doctest: +SKIP
...     print(result.stats())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .common.errors import DeviceLost as DeviceLost
    from .common.errors import Failure as Failure
    from .common.errors import FailureKind as FailureKind
    from .common.errors import FcnError as FcnError
    from .common.errors import ImageError as ImageError
    from .common.errors import RequestError as RequestError
    from .common.errors import WeightsError as WeightsError
    from .segmenter import ClassShare as ClassShare
    from .segmenter import Result as Result
    from .segmenter import Segmenter as Segmenter
    from .segmenter import SegmenterOptions as SegmenterOptions

__version__ = "0.3.0"
__all__ = [
    "ClassShare",
    "DeviceLost",
    "Failure",
    "FailureKind",
    "FcnError",
    "ImageError",
    "RequestError",
    "Result",
    "Segmenter",
    "SegmenterOptions",
    "WeightsError",
    "__version__",
]

_MODULES = {
    ".segmenter": ("ClassShare", "Result", "Segmenter", "SegmenterOptions"),
    ".common.errors": (
        *("DeviceLost", "Failure", "FailureKind", "FcnError"),
        *("ImageError", "RequestError", "WeightsError"),
    ),
}


def __getattr__(name: str) -> Any:
    # The command line imports this package, for `--version` too, and before it handles signals.
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
