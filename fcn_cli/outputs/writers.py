"""Label maps to files: one small class for each kind of output."""

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
"""Opens the upright RGB photo of a label map; only called where it is needed."""


class Writer(Protocol):
    """One kind of output; `from_labels` says whether a label map (and the photo) is all it takes."""

    kind: str
    suffix: str
    from_labels: bool

    def __init__(self, palette: Palette) -> None: ...

    @staticmethod
    def look(palette: str) -> str | None:
        """Return what the look of this kind depends on, as it stands in records; None where nothing does."""
        ...

    def write(self, predicted: Segmentation, photo: Photo, stream: BinaryIO) -> None:
        """Encode it to a stream."""


class MaskWriter:
    """8-bit greyscale PNG whose pixel values are class indices."""

    kind = "masks"
    suffix = ".png"
    from_labels = True

    def __init__(self, palette: Palette) -> None:
        pass

    @staticmethod
    def look(palette: str) -> None:
        """Return None; see `Writer`."""

    def write(self, predicted: Segmentation, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the labels; see `Writer`."""
        Image.fromarray(predicted.labels).save(stream, "PNG", compress_type=_Z_RLE)


class ColorWriter:
    """Paletted PNG: the same indices, with a palette of always 256 entries."""

    kind = "color"
    suffix = ".png"
    from_labels = True

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    @staticmethod
    def look(palette: str) -> str:
        """Return the palette; see `Writer`."""
        return palette

    def write(self, predicted: Segmentation, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the labels; see `Writer`."""
        colored(predicted.labels, self.palette).save(stream, "PNG", compress_type=_Z_RLE)


class OverlayWriter:
    """JPEG of the photo, blended with the class colours wherever the class is not 0."""

    kind = "overlay"
    suffix = ".jpg"
    from_labels = True

    def __init__(self, palette: Palette) -> None:
        self.palette = palette

    @staticmethod
    def look(palette: str) -> str:
        """Return palette and opacity; see `Writer`."""
        return f"{palette}, opacity {OVERLAY_OPACITY:g}"

    def write(self, predicted: Segmentation, photo: Photo, stream: BinaryIO) -> None:
        """Encode the labels over their photo; see `Writer`."""
        blended(photo(), predicted.labels, self.palette).save(stream, "JPEG", quality=_JPEG_QUALITY)


class ConfidenceWriter:
    """8-bit greyscale PNG of the winning class's softmax probability, times 255."""

    kind = "confidence"
    suffix = ".png"
    from_labels = False

    def __init__(self, palette: Palette) -> None:
        pass

    @staticmethod
    def look(palette: str) -> None:
        """Return None; see `Writer`."""

    def write(self, predicted: Segmentation, photo: Photo, stream: BinaryIO) -> None:  # noqa: ARG002
        """Encode the confidence; see `Writer`."""
        assert predicted.confidence is not None  # noqa: S101 - whoever asks for this kind asks the engine
        Image.fromarray(predicted.confidence).save(stream, "PNG")


_KINDS: tuple[type[Writer], ...] = (MaskWriter, ColorWriter, OverlayWriter, ConfidenceWriter)
WRITERS = {writer.kind: writer for writer in _KINDS}
"""The kinds of output, in the order in which they are written."""


def colored(labels: LabelMap, palette: Palette) -> Image.Image:
    """Return a paletted ("P") image of a label map."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes(), "RGB")
    return image


def blended(photo: Image.Image, labels: LabelMap, palette: Palette) -> Image.Image:
    """Return the RGB photo with `OVERLAY_OPACITY` of its class's colour on every pixel but class 0's.

    Raises
    ------
    ImageError
        The photo has not the label map's size.
    """
    if photo.size != labels.shape[::-1]:
        raise ImageError(FailureKind.CHANGED, "the file changed while it was being segmented")
    opacity = [0] + [round(OVERLAY_OPACITY * 255)] * 255
    result = photo.copy()
    # Pillow would write the photo's comment into the overlay.
    result.info.clear()
    for top in range(0, photo.height, _BLEND_ROWS):
        strip = labels[top : top + _BLEND_ROWS]
        colors = colored(strip, palette).convert("RGB")
        result.paste(colors, (0, top), mask=Image.fromarray(strip).point(opacity))
    return result
