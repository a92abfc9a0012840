"""One small class for each kind of output: it encodes a label map to a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol

from PIL import Image

from ..common.errors import FailureKind, ImageError
from ..common.label_map import LabelMap, Segmentation
from ..common.palettes import Palette

OVERLAY_OPACITY = 0.5
_JPEG_QUALITY = 90
_BLEND_ROWS = 512
# Label maps are runs of equal bytes: zlib's run-length strategy is the fastest here, and small.
_Z_RLE = 3

Photo = Callable[[], Image.Image]
"""Opens the upright RGB photo of a label map; called only by writers that need it."""


class Writer(Protocol):
    """Encodes one kind of output; `output_layout.KINDS` says what the kind is."""

    def __init__(self, palette: Palette) -> None: ...

    @staticmethod
    def look(palette: str) -> str | None:
        """Return the look of this kind as it stands in records, or None for a kind without a look.

        Parameters
        ----------
        palette
            The palette's name, or the hash of its colours.
        """
        ...

    def write(self, segmentation: Segmentation, photo: Photo, stream: BinaryIO) -> None:
        """Encode this kind of output of one photo to a stream."""


class MaskWriter:
    """8-bit greyscale PNG whose pixel values are class indices."""

    def __init__(self, palette: Palette) -> None:
        pass

    @staticmethod
    def look(palette: str) -> None:
        """Return None; see `Writer`."""

    def write(self, segmentation: Segmentation, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the labels; see `Writer`."""
        Image.fromarray(segmentation.labels).save(stream, "PNG", compress_type=_Z_RLE)


class ColorWriter:
    """Paletted PNG: the same indices, with a palette of always 256 entries."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    @staticmethod
    def look(palette: str) -> str:
        """Return the palette; see `Writer`."""
        return palette

    def write(self, segmentation: Segmentation, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the labels; see `Writer`."""
        colored(segmentation.labels, self.palette).save(stream, "PNG", compress_type=_Z_RLE)


class OverlayWriter:
    """JPEG of the photo, blended with the class colours wherever the class is not 0."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    @staticmethod
    def look(palette: str) -> str:
        """Return palette and opacity; see `Writer`."""
        return f"{palette}, opacity {OVERLAY_OPACITY:g}"

    def write(self, segmentation: Segmentation, photo: Photo, stream: BinaryIO) -> None:
        """Encode the labels over their photo; see `Writer`."""
        blended(photo(), segmentation.labels, self.palette).save(stream, "JPEG", quality=_JPEG_QUALITY)


class ConfidenceWriter:
    """8-bit greyscale PNG of the winning class's softmax probability, times 255."""

    def __init__(self, palette: Palette) -> None:
        pass

    @staticmethod
    def look(palette: str) -> None:
        """Return None; see `Writer`."""

    def write(self, segmentation: Segmentation, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the confidence; see `Writer`."""
        assert segmentation.confidence is not None  # noqa: S101 - the engine returns it when this kind is wanted
        Image.fromarray(segmentation.confidence).save(stream, "PNG")


WRITERS: dict[str, type[Writer]] = {
    "masks": MaskWriter,
    "color": ColorWriter,
    "overlay": OverlayWriter,
    "confidence": ConfidenceWriter,
}
"""The writer of each kind in `output_layout.KINDS`."""


def colored(labels: LabelMap, palette: Palette) -> Image.Image:
    """Return a paletted ("P") image of a label map."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes(), "RGB")
    return image


def blended(photo: Image.Image, labels: LabelMap, palette: Palette) -> Image.Image:
    """Blend the RGB photo with `OVERLAY_OPACITY` of its class's colour on every pixel except class 0's.

    Raises
    ------
    ImageError
        The photo does not have the label map's size.
    """
    if photo.size != labels.shape[::-1]:
        raise ImageError(FailureKind.CHANGED, "the file changed while it was being segmented")
    opacity = [0] + [round(OVERLAY_OPACITY * 255)] * 255
    result = photo.copy()
    # Otherwise Pillow writes the photo's comment into the overlay.
    result.info.clear()
    for top in range(0, photo.height, _BLEND_ROWS):
        strip = labels[top : top + _BLEND_ROWS]
        colors = colored(strip, palette).convert("RGB")
        result.paste(colors, (0, top), mask=Image.fromarray(strip).point(opacity))
    return result
