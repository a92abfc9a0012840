"""EXIF orientation: what turns an image upright, and back to the way it is stored."""

from __future__ import annotations

from PIL import Image

ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = range(5, 9)

# EXIF 2.3, tag 0x0112: what undoes each orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_AS_STORED = {
    **_UPRIGHT,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def orientation(loaded: Image.Image) -> int | None:
    """Return the orientation tag's value, 1 without one, None where the EXIF data cannot be read."""
    try:
        value = loaded.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - EXIF is a format of its own, broken in ways of its own
        return None
    return value if isinstance(value, int) else 1


def tiff_turn(opened: Image.Image) -> int:
    """Return the orientation of a TIFF that is not loaded yet; 1 for other formats.

    Pillow turns a TIFF upright while it loads it, and forgets the orientation then.
    """
    tags = getattr(opened, "tag_v2", None) if opened.format == "TIFF" else None
    return known_turn(tags.get(ORIENTATION_TAG)) if tags is not None else 1


def known_turn(value: object) -> int:
    """Return an orientation from 2 to 8 as it is, and anything else as 1: nothing to turn."""
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def turned_size(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Return what turning by an orientation, to upright or back, makes of a (width, height)."""
    return (size[1], size[0]) if turn in _QUARTER_TURNS else size


def upright(image: Image.Image, turn: int) -> Image.Image:
    """Return an image, stored with an orientation, turned upright; no pixel changes its value."""
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image


def as_stored(image: Image.Image, turn: int) -> Image.Image:
    """Return an upright image as it is stored with an orientation: the inverse of `upright`."""
    return image.transpose(_AS_STORED[turn]) if turn in _AS_STORED else image
