"""Convert decoded images of any mode to RGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import IO

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from . import samples
from .samples import BY_THE_FILE, Rendering
from .tiff import Tiff

# Pillow decodes PNGs of these to their upper 8 bits; with the other byte order it takes the lower ones.
_LOWER_HALF = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def load_rgb(opened: Image.Image, rendering: Rendering = BY_THE_FILE) -> tuple[Image.Image, tuple[str, ...]]:
    """Load an image that was opened, and return it as RGB, and notes where its samples had to be changed."""
    if isinstance(opened, Tiff) and opened.samples is not None:
        image, notes = samples.to_8_bits(opened.samples, rendering)
        rgb, more = to_rgb(image, rendering)
        return rgb, notes + more
    if not has_upper_halves(opened):
        opened.load()
        return to_rgb(opened, rendering)
    file = opened.fp if isinstance(opened, PngImageFile) else None
    opened.load()
    left_out = _left_out(opened, rendering)
    if file is not None and (rendering.stretch or left_out is not None):
        return _of_16_bit_png(opened, file, rendering, left_out)
    rgb, notes = to_rgb(opened, rendering)
    return rgb, samples.dark_note(greatest_of_halves(opened), 16) + notes


def has_upper_halves(opened: Image.Image) -> bool:
    """Say whether Pillow will decode no more than the upper 8 bits of an image's 16-bit samples."""
    if isinstance(opened, Tiff):
        return opened.has_upper_halves
    return isinstance(opened, PngImageFile) and bool(opened.tile) and opened.tile[0].args in _LOWER_HALF


def greatest_of_halves(image: Image.Image) -> int:
    """Return a bound of the 16-bit samples of an image of which there are the upper 8 bits."""
    bands = image.getextrema()[:3]
    return (max(int(band[1]) for band in bands if isinstance(band, tuple)) << 8) | 255


def to_rgb(image: Image.Image, rendering: Rendering = BY_THE_FILE) -> tuple[Image.Image, tuple[str, ...]]:
    """Return a decoded image as RGB, and notes where its samples had to be changed."""
    mode = image.mode
    # Two decoders return 16-bit samples as 32-bit integers.
    if mode.startswith("I;16") or (mode == "I" and image.format in {"PPM", "PNG"}):
        eight, notes = samples.to_8_bits(
            samples.of_image(image, 16, "16-bit", transparent=_left_out(image, rendering)), rendering
        )
        rgb, more = to_rgb(eight, rendering)
        return rgb, notes + more
    if mode in {"I", "F"}:
        name = "32-bit float" if mode == "F" else "32-bit integer"
        grey, notes = samples.to_8_bits(samples.of_image(image, None, name), rendering)
        return grey.convert("RGB"), notes
    if image.has_transparency_data or mode in {"La", "RGBa"}:
        return _on_white(image, rendering)
    if mode == "LAB":
        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, to_srgb)
        assert converted is not None  # noqa: S101 - None only for an in-place conversion
        return converted, ()
    return (image if mode == "RGB" else image.convert("RGB")), ()


_LARGEST_PROFILE = 4 << 20
_UNUSABLE = (OSError, ValueError, TypeError, KeyError, ImageCms.PyCMSError)


def to_srgb(rgb: Image.Image, stored: Image.Image | None = None) -> Image.Image:
    """Return an RGB image in sRGB, by the ICC profile that it carries; as it is where that is of no use.

    All pixels that people look at come through here, and none that a network sees. `stored` is the image as
    its file has it, which some profiles are of: those of CMYK.
    """
    stored = stored or rgb
    try:
        mode, transform = _transform_of(stored)
        if transform is None or (mode == "CMYK" and stored.mode != mode):
            return rgb
        if mode == "L":
            grey, *others = rgb.split()
            return transform.apply(grey) if all(band == grey for band in others) else rgb
        return transform.apply(rgb if mode == "RGB" else stored)
    except _UNUSABLE:
        return rgb


def note_on_profile(stored: Image.Image) -> tuple[str, ...]:
    """Return a note on an image, which was opened, whose ICC profile is of no use."""
    try:
        _transform_of(stored)
    except _UNUSABLE:
        return ("unusable colour profile ignored",)
    return ()


def is_srgb(stored: Image.Image) -> bool:
    """Say whether `to_srgb` would change no colour of an image that was opened."""
    try:
        return _transform_of(stored)[1] is None
    except _UNUSABLE:
        return True


def _transform_of(stored: Image.Image) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    profile = stored.info.get("icc_profile")
    # What is stored as LAB has become sRGB already.
    return _srgb_transform(profile) if profile and stored.mode != "LAB" else ("", None)


@lru_cache(maxsize=4)
def _srgb_transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return a transform to sRGB and the mode that it takes; None where it would change no value by 2."""
    if len(profile) > _LARGEST_PROFILE:
        raise ValueError("an ICC profile of megabytes")
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[opened.profile.xcolor_space.strip()]
    transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(colours) if mode == "RGB" else Image.fromarray(levels[None])
    change = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return mode, transform if np.abs(change).max() > 1 else None


def _on_white(image: Image.Image, rendering: Rendering) -> tuple[Image.Image, tuple[str, ...]]:
    if rendering.alpha == "ignore":
        if image.mode in {"La", "RGBa"}:
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        if "transparency" in image.info:
            image = image.copy()
            del image.info["transparency"]
        return image.convert("RGB"), ()
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    rgb = Image.new("RGB", rgba.size, "white")
    rgb.paste(rgba, mask=alpha)
    return rgb, _doubt(alpha) if rendering.alpha is None else ()


def _doubt(alpha: Image.Image) -> tuple[str, ...]:
    """Return a note on a band that is called alpha and does not look like it."""
    counts = alpha.histogram()
    pixels = alpha.width * alpha.height
    if counts[0] == pixels:
        return ("fully transparent, so it is white; --alpha ignore shows its colours",)
    if 2 * (pixels - counts[0] - counts[255]) > pixels:
        return ("more than half of its alpha is between 0 and 255: if it is not alpha, use --alpha ignore",)
    return ()


def _left_out(image: Image.Image, rendering: Rendering) -> tuple[int, ...] | None:
    """Return the colour of 16-bit samples that a PNG leaves out."""
    color = image.info.get("transparency") if image.format == "PNG" else None
    if color is None or rendering.alpha == "ignore":
        return None
    return color if isinstance(color, tuple) else (color,)


def _of_16_bit_png(
    loaded: Image.Image, file: IO[bytes], rendering: Rendering, left_out: tuple[int, ...] | None
) -> tuple[Image.Image, tuple[str, ...]]:
    """Return a PNG of several bands of 16 bits as RGB; Pillow has loaded the upper 8 bits of each."""
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as lower:
        lower.tile = [lower.tile[0]._replace(args=_LOWER_HALF[str(lower.tile[0].args)])]
        lower.load()
        halves = samples.of_halves(loaded, lower, transparent=left_out)
        eight, notes = samples.to_8_bits(halves, rendering)
    rgb, more = to_rgb(eight, rendering)
    return rgb, notes + more
