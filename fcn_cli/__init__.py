"""Segment images with torchvision's Fully Convolutional Networks.

>>> from fcn_cli import Segmenter  # doctest: +SKIP
>>> result = Segmenter("mobilenet_v2")("photo.jpg")  # doctest: +SKIP
>>> result.labels.shape, result.labels.dtype  # doctest: +SKIP
((300, 451), dtype('uint8'))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .segmenter import Result as Result
    from .segmenter import Segmenter as Segmenter

__version__ = "0.1.0"
__all__ = ["Result", "Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    # The command line imports this package for `--version`; torch must not come with it.
    if name in {"Segmenter", "Result"}:
        from . import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
