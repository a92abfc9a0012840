"""Convert decoded images of any mode to RGB."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_STRIP_PIXELS = 1 << 20


def to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return a decoded image as RGB, and a note where its samples had to be scaled."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_grey(np.asarray(image) >> 8), None
    if mode == "I" and image.format in {"PPM", "PNG"}:
        # These two decoders return 16-bit samples as 32-bit integers.
        return _from_grey(np.clip(np.asarray(image), 0, 65535) >> 8), None
    if mode in {"I", "F"}:
        return _scaled(image, "32-bit float" if mode == "F" else "32-bit integer")
    if image.has_transparency_data or mode in {"La", "RGBa"}:
        return _on_white(image.convert("RGBA")), None
    if mode == "LAB":
        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, to_srgb)
        assert converted is not None  # noqa: S101 - None only for an in-place conversion
        return converted, None
    return (image if mode == "RGB" else image.convert("RGB")), None


def _from_grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _scaled(image: Image.Image, sample_type: str) -> tuple[Image.Image, str]:
    """Scale 32-bit samples to 8 bits, in strips: a whole photo in float64 would take gigabytes."""
    low, high, not_finite = float("inf"), float("-inf"), 0
    for _, values in _strips(image):
        finite = values[np.isfinite(values)]
        not_finite += values.size - finite.size
        low, high = float(finite.min(initial=low)), float(finite.max(initial=high))
    if low > high:
        low = high = 0.0
    grey = Image.new("L", image.size)
    for top, values in _strips(image):
        scaled = np.where(np.isfinite(values), (values - low) / (high - low or 1.0), 0.0) * 255
        grey.paste(Image.fromarray(np.rint(scaled).astype(np.uint8)), (0, top))
    note = f"{sample_type} samples scaled from {low:g}..{high:g}"
    if not_finite:
        note += f", {not_finite} that {'is' if not_finite == 1 else 'are'} not finite taken as black"
    return grey.convert("RGB"), note


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        # NumPy warns about a signalling NaN; values that are not finite are counted anyway.
        with np.errstate(invalid="ignore"):
            yield top, np.asarray(strip).astype(np.float64)


def _on_white(rgba: Image.Image) -> Image.Image:
    rgb = Image.new("RGB", rgba.size, "white")
    rgb.paste(rgba, mask=rgba.getchannel("A"))
    return rgb
