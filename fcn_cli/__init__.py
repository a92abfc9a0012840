"""Segment images with torchvision's Fully Convolutional Networks.

>>> from fcn_cli import Segmenter  # doctest: +SKIP
>>> segmenter = Segmenter("mobilenet_v2")  # doctest: +SKIP
>>> result = segmenter("photo.jpg")  # doctest: +SKIP
>>> result.labels.shape, result.labels.dtype  # doctest: +SKIP
((300, 451), dtype('uint8'))
>>> for result in segmenter.batch(["a.jpg", "b.jpg"]):  # doctest: +SKIP
...     print(result.stats())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common.errors import DeviceLost, Failure, FailureKind, FcnError, ImageError, RequestError, WeightsError

if TYPE_CHECKING:
    from .segmenter import ClassShare as ClassShare
    from .segmenter import Result as Result
    from .segmenter import Segmenter as Segmenter

__version__ = "0.2.0"
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
    "WeightsError",
    "__version__",
]

_FROM_SEGMENTER = frozenset({"ClassShare", "Result", "Segmenter"})


def __getattr__(name: str) -> Any:
    # The command line imports this package for `--version`; torch must not come with it.
    if name in _FROM_SEGMENTER:
        from . import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_SEGMENTER})
