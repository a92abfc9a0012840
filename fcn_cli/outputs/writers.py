"""One small class per output type that makes an image of a label map; `encode` writes it to a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from ..common.errors import FailureKind, ImageError
from ..common.label_map import Segmentation
from ..inputs import workers
from ..inputs.decode_options import DecodeOptions
from ..inputs.decoder import Measured
from . import geotiff, index_png
from .looks import Style, describe_background
from .overlay import colored, cutout, overlay

FileFormat = Mapping[str, Any]
"""The parameters of Pillow's `Image.save` but the file's."""

# Label maps are runs of equal bytes: zlib's run-length strategy is the fastest here, and small. Images get as
# small by it as by the default strategy, in a quarter of the time.
_Z_RLE = 3
RLE_PNG: FileFormat = {"format": "PNG", "compress_type": _Z_RLE}
_PNG: FileFormat = {"format": "PNG"}
_JPEG_LONGEST_SIDE = 65500


class Original:
    """The image of a label map: read, in a process with bounds, only by writers that need it."""

    def __init__(self, path: str, options: DecodeOptions) -> None:
        self._path = path
        self._options = options

    @cached_property
    def image(self) -> Image.Image:
        """The upright image, in sRGB."""
        options = self._options
        return workers.decode_for_people(
            self._path, options.max_pixels, options.rendering, options.timeout
        ).image

    @cached_property
    def measured(self) -> Measured:
        """What its header says."""
        return workers.measure(self._path, self._options.max_pixels)


class Writer:
    """Makes the images of one output type; `output_layout.OUTPUT_TYPES` says what the type is.

    `file_format` is the format of its files.
    """

    file_format: ClassVar[FileFormat] = RLE_PNG

    def __init__(self, style: Style) -> None:
        self._style = style

    @staticmethod
    def describe(style: Style) -> str | None:  # noqa: ARG004
        """Return the style of this type as it stands in records, or None for a type without one."""
        return None

    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        """Return the output of this type for one image."""
        raise NotImplementedError


_LEGEND = "legend"


def has_legend(look: str | None) -> bool:
    """Say whether outputs of a recorded look have a legend, which makes them higher than their image."""
    return look is not None and any(part.startswith(_LEGEND) for part in look.split(", "))


class MaskWriter(Writer):
    """8-bit greyscale whose pixel values are class indices."""

    palette: bytes | None = None

    @override
    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        return Image.fromarray(segmentation.labels)


class ColorWriter(Writer):
    """The same indices, with a palette of always 256 entries."""

    @property
    def palette(self) -> bytes | None:
        """The palette as a PNG has it."""
        return self._style.palette.tobytes()

    @staticmethod
    @override
    def describe(style: Style) -> str:
        return style.palette_name

    @override
    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        return colored(segmentation.labels, self._style.palette)


class OverlayWriter(Writer):
    """The image with the class colours over it, wherever the class is not the background."""

    file_format: ClassVar[FileFormat] = {"format": "JPEG", "quality": 90}

    @staticmethod
    @override
    def describe(style: Style) -> str:
        parts = [style.palette_name, f"opacity {style.opacity:g}"]
        parts += ["borders"] if style.borders else []
        if style.legend:
            parts.append(f"{_LEGEND} of names {style.legend_mark}" if style.legend_mark else _LEGEND)
        parts += describe_background(style.background_class)
        return ", ".join(parts)

    @override
    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        return overlay(original.image, segmentation.labels, self._style)


class ConfidenceWriter(Writer):
    """8-bit greyscale of the winning class's softmax probability, times 255."""

    file_format: ClassVar[FileFormat] = _PNG

    @override
    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        assert segmentation.confidence is not None  # noqa: S101 - the engine returns it when this type is wanted
        return Image.fromarray(segmentation.confidence)


class CutoutWriter(Writer):
    """RGBA: the pixels of some classes of the image, everything else transparent; or RGB on a background."""

    @staticmethod
    @override
    def describe(style: Style) -> str:
        return str(style.cutout)

    @override
    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        return cutout(original.image, segmentation.labels, self._style.cutout)


class GeotiffWriter(Writer):
    """The mask as a TIFF with the georeference of its image."""

    @override
    def image(self, segmentation: Segmentation, original: Original) -> Image.Image:
        return Image.fromarray(segmentation.labels)


class LogitsWriter(Writer):
    """The network's logits as a NumPy file: float16, shape (classes, rows, columns), at its stride."""


WRITERS: dict[str, type[Writer]] = {
    "masks": MaskWriter,
    "color": ColorWriter,
    "overlay": OverlayWriter,
    "confidence": ConfidenceWriter,
    "cutout": CutoutWriter,
    "geotiff": GeotiffWriter,
    "logits": LogitsWriter,
}
"""The writer of each output type in `output_layout.OUTPUT_TYPES`."""


def encode(
    writer: Writer, segmentation: Segmentation, original: Original, stream: BinaryIO, *, as_png: bool = False
) -> None:
    """Write one image's output to a stream.

    Parameters
    ----------
    writer
        Of the output type.
    segmentation, original
        What to write, and its image.
    stream
        Receives the encoded image.
    as_png
        Write a PNG whatever the format of the type's files is.

    Raises
    ------
    ImageError
        The image has changed, or is too large for the format.
    """
    if isinstance(writer, MaskWriter | ColorWriter):
        index_png.write(
            stream, segmentation.labels, segmentation.compressed(index_png.compress), writer.palette
        )
        return
    if isinstance(writer, GeotiffWriter) and not as_png:
        geotiff.write_beside(stream, segmentation.labels, original.measured)
        return
    if isinstance(writer, LogitsWriter):
        assert segmentation.logits is not None  # noqa: S101 - the engine returns them when they are wanted
        np.lib.format.write_array(stream, segmentation.logits, allow_pickle=False)
        return
    image = writer.image(segmentation, original)
    file_format = writer.file_format
    if as_png and file_format["format"] != "PNG":
        file_format = RLE_PNG
    if file_format["format"] == "JPEG" and max(image.size) > _JPEG_LONGEST_SIDE:
        size = f"{image.width}x{image.height}"
        limit = f"a JPEG has at most {_JPEG_LONGEST_SIDE} pixels a side, this one would have {size}"
        raise ImageError(FailureKind.OUTPUT_REFUSED, limit)
    image.save(stream, **file_format)
