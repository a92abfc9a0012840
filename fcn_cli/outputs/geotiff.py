"""Masks as GeoTIFF: one band of class indices with the georeference of their image."""

from __future__ import annotations

import importlib.util
from typing import BinaryIO

from ..common.errors import FailureKind, ImageError, RequestError
from ..common.label_map import VOID_INDEX, LabelMap
from ..inputs.decoder import Measured
from ..inputs.tiff import GEO_TAGS, Georeference

_TILED_FROM, _TILE = 2048, 256
_ASCII, _GDAL_NO_DATA = 2, 42113


def require() -> None:
    """Raise RequestError where the library that writes GeoTIFFs is not installed."""
    if importlib.util.find_spec("tifffile") is None:
        raise RequestError("geotiff: install the extra: pip install 'fcn-cli[geotiff]'")


def write_beside(stream: BinaryIO, labels: LabelMap, image: Measured) -> None:
    """Write the label map of an image with its georeference.

    Raises
    ------
    ImageError
        The image has another size by now, or is turned by its EXIF orientation.
    """
    if image.size != labels.shape[::-1]:
        raise ImageError(FailureKind.CHANGED, "its image has changed since it was segmented")
    if image.turn != 1 and image.georeference:
        reason = "its EXIF orientation turns it, but not its georeference"
        raise ImageError(FailureKind.OUTPUT_REFUSED, reason)
    write(stream, labels, image.georeference)


def write(stream: BinaryIO, labels: LabelMap, georeference: Georeference) -> None:
    """Write a label map (uint8, (height, width)); void is its value for no data.

    An empty georeference makes a TIFF without one. From 2,048 pixels on it is tiled.
    """
    import tifffile

    tags = [(code, GEO_TAGS[code], len(values), values, True) for code, values in georeference.items()]
    tags.append((_GDAL_NO_DATA, _ASCII, 0, str(VOID_INDEX), True))
    tifffile.imwrite(
        stream,
        labels,
        photometric="minisblack",
        compression="zlib",
        tile=(_TILE, _TILE) if max(labels.shape) >= _TILED_FROM else None,
        metadata=None,
        software=False,
        extratags=tags,
    )
