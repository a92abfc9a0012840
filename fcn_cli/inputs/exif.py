"""EXIF orientation: transpose an image to upright, and back to the stored orientation."""

from __future__ import annotations

from PIL import Image

ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = range(5, 9)

# EXIF 2.3, tag 0x0112: the operation that undoes each orientation.
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
    """Return the value of the orientation tag, 1 without the tag, None if the EXIF data cannot be read."""
    try:
        value = loaded.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - broken EXIF data raises anything
        return None
    return value if isinstance(value, int) else 1


def tiff_turn(opened: Image.Image) -> int:
    """Return the orientation of a TIFF that has not been loaded yet; 1 for other formats.

    Pillow makes a TIFF upright as it loads it, and discards the orientation.
    """
    tags = getattr(opened, "tag_v2", None) if opened.format == "TIFF" else None
    return known_turn(tags.get(ORIENTATION_TAG)) if tags is not None else 1


def known_turn(value: object) -> int:
    """Return an orientation from 2 to 8 unchanged, and 1 (upright) for anything else."""
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def turned_size(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Return a (width, height) after an orientation has been undone or applied."""
    return (size[1], size[0]) if turn in _QUARTER_TURNS else size


def upright(image: Image.Image, turn: int) -> Image.Image:
    """Return the upright form of an image that is stored with an orientation; pixel values do not change."""
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image


def as_stored(image: Image.Image, turn: int) -> Image.Image:
    """Return the stored form of an upright image: the inverse of `upright`."""
    return image.transpose(_AS_STORED[turn]) if turn in _AS_STORED else image
