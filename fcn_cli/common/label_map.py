"""Label maps: the type, the void index, predictions, reading a PNG."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from . import limits
from .errors import FailureKind, ImageError
from .files import ReadableFile, UnfitFile, read_small

VOID_INDEX = 255
"""The label map value that means "no class", as in Pascal VOC's ground truth."""

_MOST_BYTES = 1 << 30
_STRIP_PIXELS = 16 << 20
_most_pixels = limits.MOST_MASK_PIXELS

AnyImage = TypeVar("AnyImage", bound=Image.Image)

Size = tuple[int, int]
RecordedSize = tuple[int | None, int | None]
"""(width, height), as a record has them, which may be a damaged one."""

# With shorter runs of equal pixels, counting runs is not faster than counting pixels.
_PIXELS_A_RUN = 8

LabelMap = NDArray[np.uint8]
"""uint8, shape (height, width): the class index of every pixel, 255 for void."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The predicted label map of an image.

    `labels` holds class indices, and 255 where the confidence is below the requested minimum. `confidence`,
    if requested, is the softmax probability of the predicted class times 255, of the same shape and dtype.
    `precision` is the network's (``fp32``, ``bf16``, ``fp16``); None for a label map that was read from a
    file. `logits`, if requested, are float16, shape (classes, rows, columns), at the network's stride.
    """

    labels: LabelMap
    confidence: LabelMap | None = None
    precision: str | None = None
    logits: NDArray[np.float16] | None = None

    @property
    def nbytes(self) -> int:
        """The size of all maps in bytes."""
        return sum(one.nbytes for one in (self.labels, self.confidence, self.logits) if one is not None)

    def compressed(self, compress: Callable[[LabelMap], bytes]) -> bytes:
        """Return what the function returns for the labels; the result is kept for the next call."""
        kept: bytes | None = self.__dict__.get("_compressed")
        if kept is None:
            kept = self.__dict__["_compressed"] = compress(self.labels)
        return kept


def count_classes(labels: LabelMap) -> dict[int, int]:
    """Return class index → number of pixels for the classes in a label map (uint8, (height, width))."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    if len(ends) * _PIXELS_A_RUN < flat.size:
        # A histogram looks at every pixel, and equal neighbours make it wait for itself.
        bounds = np.concatenate([[-1], ends, [flat.size - 1]])
        histogram = np.bincount(flat[bounds[1:]], weights=bounds[1:] - bounds[:-1]).astype(np.int64).tolist()
    else:
        histogram = Image.fromarray(labels).histogram()
    return {index: pixels for index, pixels in enumerate(histogram) if pixels}


def allow_pixels(max_pixels: int) -> None:
    """Let this process read label maps of so many pixels, but not of fewer than `limits.MOST_MASK_PIXELS`."""
    global _most_pixels
    _most_pixels = max(limits.MOST_MASK_PIXELS, max_pixels)


def most_pixels() -> int:
    """Return how many pixels a label map, and a picture made of one, may have in this process."""
    return _most_pixels


def too_many_pixels(size: Size) -> str | None:
    """Return what is wrong with a size, from a file's header, of more pixels than anybody wants to decode."""
    width, height = size
    if width * height <= _most_pixels:
        return None
    return (
        f"{width}x{height} pixels are more than {_most_pixels}; if that is intended, raise --max-image-pixels"
    )


def open_png(file: ReadableFile, *sizes: RecordedSize) -> contextlib.AbstractContextManager[PngImageFile]:
    """Open a PNG as `open_image` does; Pillow's own limit on pixels, which `Image.open` applies, is lower."""
    return open_image(file, PngImageFile, *sizes)


@contextlib.contextmanager
def open_image(
    file: ReadableFile, opener: Callable[[io.BytesIO], AnyImage], *sizes: RecordedSize
) -> Iterator[AnyImage]:
    """Open an image file, and check its header before anything is decoded.

    Parameters
    ----------
    file
        The file, or a link to it.
    opener
        Returns the image of a file's bytes.
    sizes
        The (width, height) that it may have; none where that is not known.

    Raises
    ------
    ImageError
        It is missing, broken, of another size or of too many pixels; also when that is found inside the
        context.
    """
    pixels = max(((width or 0) * (height or 0) for width, height in sizes), default=_most_pixels)
    try:
        data = read_small(file, min(_MOST_BYTES, limits.most_bytes(pixels)), follow=True)
        with opener(io.BytesIO(data)) as image:
            _check_header(file, image.size, sizes)
            yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(FailureKind.NOT_FOUND, f"{file}: no such file") from None
    except MemoryError:
        raise ImageError(FailureKind.OUT_OF_MEMORY, f"{file}: not enough memory to decode it") from None
    except UnfitFile as error:
        raise ImageError(FailureKind.BAD_LABELS, f"{file}: cannot be read ({error.strerror})") from None
    except Exception as error:  # noqa: BLE001 - as in `decoder`: decoders raise anything on broken data
        raise ImageError(FailureKind.BAD_LABELS, f"{file}: cannot be decoded ({error})") from None


def _check_header(file: ReadableFile, size: Size, sizes: Sequence[RecordedSize]) -> None:
    if sizes and size not in sizes:
        found, wanted = (f"{width}x{height}" for width, height in (size, sizes[0]))
        raise ImageError(FailureKind.SIZES_DIFFER, f"{file}: {found} pixels, its image has {wanted}")
    if problem := too_many_pixels(size):
        raise ImageError(FailureKind.TOO_MANY_PIXELS, f"{file}: {problem}")


def read_label_map(file: ReadableFile, *sizes: RecordedSize) -> LabelMap:
    """Read the class indices of an 8-bit greyscale or paletted PNG: uint8, shape (height, width).

    Raises
    ------
    ImageError
        The file is missing, broken, of another format or mode, or (see `open_png`) of another size.
    """
    with open_png(file, *sizes) as image:
        if image.mode not in {"L", "P"}:
            raise ImageError(
                FailureKind.BAD_LABELS, f"{file}: {image.mode} pixels; masks are 8-bit grey or paletted"
            )
        labels = np.empty((image.height, image.width), np.uint8)
        # Pillow makes two more copies of what becomes an array at once.
        rows = max(1, _STRIP_PIXELS // image.width)
        for top in range(0, image.height, rows):
            box = (0, top, image.width, min(top + rows, image.height))
            labels[top : top + rows] = np.asarray(image.crop(box))
    return labels
