"""One small class for each kind of output: it makes an image of a label map; `encode` writes it to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar, Protocol

from PIL import Image

from ..common.errors import FailureKind, ImageError
from ..common.label_map import Segmentation
from . import index_png
from .looks import Style, describe_cutout
from .overlay import colored, cutout, overlay

FileFormat = Mapping[str, Any]
"""The parameters of Pillow's `Image.save` but the file's."""

# Label maps are runs of equal bytes: zlib's run-length strategy is the fastest here, and small. Photos get as
# small by it as by the default strategy, in a quarter of the time.
_Z_RLE = 3
_RLE_PNG: FileFormat = {"format": "PNG", "compress_type": _Z_RLE}
_PNG: FileFormat = {"format": "PNG"}
_JPEG_LONGEST_SIDE = 65500

Photo = Callable[[], Image.Image]
"""Opens the upright RGB photo of a label map; called only by writers that need it."""


class Writer(Protocol):
    """Makes the images of one kind of output; `output_layout.KINDS` says what the kind is.

    `file_format` is the format of the kind's files.
    """

    file_format: ClassVar[FileFormat]

    def __init__(self, look: Style) -> None: ...

    @staticmethod
    def describe(look: Style) -> str | None:
        """Return the look of this kind as it stands in records, or None for a kind without a look."""
        ...

    def image(self, segmentation: Segmentation, photo: Photo) -> Image.Image:
        """Return the image of this kind for one photo."""
        ...


_LEGEND = "legend"


def has_legend(look: str | None) -> bool:
    """Say whether outputs of a recorded look have a legend, which makes them higher than their photo."""
    return look is not None and any(part.startswith(_LEGEND) for part in look.split(", "))


class MaskWriter:
    """8-bit greyscale whose pixel values are class indices."""

    file_format: ClassVar[FileFormat] = _RLE_PNG
    palette: bytes | None = None

    def __init__(self, look: Style) -> None:
        pass

    @staticmethod
    def describe(look: Style) -> None:
        """Return None; see `Writer`."""

    def image(self, segmentation: Segmentation, photo: Photo) -> Image.Image:  # noqa: ARG002
        """Return the labels; see `Writer`."""
        return Image.fromarray(segmentation.labels)


class ColorWriter:
    """The same indices, with a palette of always 256 entries."""

    file_format: ClassVar[FileFormat] = _RLE_PNG

    def __init__(self, look: Style) -> None:
        self._palette = look.palette
        self.palette: bytes | None = look.palette.tobytes()

    @staticmethod
    def describe(look: Style) -> str:
        """Return the palette; see `Writer`."""
        return look.palette_name

    def image(self, segmentation: Segmentation, photo: Photo) -> Image.Image:  # noqa: ARG002
        """Return the labels in colours; see `Writer`."""
        return colored(segmentation.labels, self._palette)


class OverlayWriter:
    """The photo with the class colours over it, wherever the class is not 0."""

    file_format: ClassVar[FileFormat] = {"format": "JPEG", "quality": 90}

    def __init__(self, look: Style) -> None:
        self._look = look

    @staticmethod
    def describe(look: Style) -> str:
        """Return palette, opacity, borders and legend; see `Writer`."""
        parts = [look.palette_name, f"opacity {look.opacity:g}"]
        parts += ["borders"] if look.borders else []
        if look.legend:
            parts.append(f"{_LEGEND} of names {look.legend_mark}" if look.legend_mark else _LEGEND)
        return ", ".join(parts)

    def image(self, segmentation: Segmentation, photo: Photo) -> Image.Image:
        """Return the labels over their photo; see `Writer`."""
        return overlay(photo(), segmentation.labels, self._look)


class ConfidenceWriter:
    """8-bit greyscale of the winning class's softmax probability, times 255."""

    file_format: ClassVar[FileFormat] = _PNG

    def __init__(self, look: Style) -> None:
        pass

    @staticmethod
    def describe(look: Style) -> None:
        """Return None; see `Writer`."""

    def image(self, segmentation: Segmentation, photo: Photo) -> Image.Image:  # noqa: ARG002
        """Return the confidence; see `Writer`."""
        assert segmentation.confidence is not None  # noqa: S101 - the engine returns it when this kind is wanted
        return Image.fromarray(segmentation.confidence)


class CutoutWriter:
    """RGBA: the pixels of some classes of the photo, everything else transparent."""

    file_format: ClassVar[FileFormat] = _RLE_PNG

    def __init__(self, look: Style) -> None:
        self._classes = look.cutout_classes

    @staticmethod
    def describe(look: Style) -> str:
        """Return the indices of the classes that are kept; see `Writer`."""
        return describe_cutout(look.cutout_classes)

    def image(self, segmentation: Segmentation, photo: Photo) -> Image.Image:
        """Return the photo with its background transparent; see `Writer`."""
        return cutout(photo(), segmentation.labels, self._classes)


WRITERS: dict[str, type[Writer]] = {
    "masks": MaskWriter,
    "color": ColorWriter,
    "overlay": OverlayWriter,
    "confidence": ConfidenceWriter,
    "cutout": CutoutWriter,
}
"""The writer of each kind in `output_layout.KINDS`."""


def encode(
    writer: Writer, segmentation: Segmentation, photo: Photo, stream: BinaryIO, *, as_png: bool = False
) -> None:
    """Write one photo's output to a stream.

    Parameters
    ----------
    writer
        Of the kind of output.
    segmentation, photo
        What to write, and the photo.
    stream
        Receives the encoded image.
    as_png
        Write a PNG whatever the format of the kind's files is.

    Raises
    ------
    ImageError
        The photo has changed, or is too large for the format.
    """
    if isinstance(writer, MaskWriter | ColorWriter):
        index_png.write(
            stream, segmentation.labels, segmentation.compressed(index_png.compress), writer.palette
        )
        return
    image = writer.image(segmentation, photo)
    file_format = writer.file_format
    if as_png and file_format["format"] != "PNG":
        file_format = _RLE_PNG
    if file_format["format"] == "JPEG" and max(image.size) > _JPEG_LONGEST_SIDE:
        size = f"{image.width}x{image.height}"
        limit = f"a JPEG has at most {_JPEG_LONGEST_SIDE} pixels a side, this one would have {size}"
        raise ImageError(FailureKind.OUTPUT_REFUSED, limit)
    image.save(stream, **file_format)
