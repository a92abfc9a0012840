"""Choose the orientation in which a photo is compared with its truth: upright, or as stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import Failure, FailureKind, ImageError
from ..inputs import exif
from ..inputs.discovery import Source
from . import truth_files
from .choices import Orientation

Size = tuple[int, int]
Frame = Size | Path | Failure
"""The (width, height) of an image's truth, the PNG whose header has it, or why it is unknown."""


@dataclass(frozen=True)
class OrientationRule:
    """Chooses the orientation of each photo; the decoding workers call it (see `decoded_photo.Orient`).

    Parameters
    ----------
    frames
        The frame of each photo's truth, by the name of its image.
    wanted
        The requested orientation; ``auto`` chooses the one that has the truth's size.
    where_both_fit
        The choice of ``auto`` where both have that size: ``upright`` or ``stored``.
    """

    frames: Mapping[str, Frame]
    wanted: Orientation
    where_both_fit: Orientation

    def __call__(self, source: Source, upright: Size, turn: int) -> bool:
        """Return whether to compare a photo as stored.

        Parameters
        ----------
        source
            The photo.
        upright
            The upright photo's (width, height) in pixels.
        turn
            Its EXIF orientation, 1 to 8; 1 means that the stored photo is upright.

        Raises
        ------
        ImageError
            The photo and its truth have different sizes, or the truth cannot be opened.
        """
        frame = self.frames[source.image]
        if isinstance(frame, Failure):
            raise ImageError.of(frame)
        truth = truth_files.size_of(frame) if isinstance(frame, Path) else frame
        stored = exif.turned_size(upright, turn)
        fits = {Orientation.UPRIGHT: truth == upright, Orientation.STORED: truth == stored}
        if turn == 1:
            chosen = Orientation.UPRIGHT
        elif self.wanted is not Orientation.AUTO:
            chosen = self.wanted
        elif all(fits.values()):
            chosen = self.where_both_fit
        else:
            chosen = Orientation.STORED if fits[Orientation.STORED] else Orientation.UPRIGHT
        if not fits[chosen]:
            name = f"its truth {frame.name}" if isinstance(frame, Path) else "its truth"
            raise ImageError(
                FailureKind.SIZES_DIFFER,
                f"{name} has {_pixels(truth)} pixels, {_describe_photo(truth, upright, stored, turn)}",
            )
        return chosen is Orientation.STORED


def _describe_photo(truth: Size, upright: Size, stored: Size, turn: int) -> str:
    """Return the photo's sizes for a message, with the option that would fit the truth."""
    if turn == 1:
        turned = " (is it turned by 90 degrees?)" if truth == upright[::-1] else ""
        return f"the photo {_pixels(upright)}{turned}"
    text = f"the photo {_pixels(upright)} upright and {_pixels(stored)} as stored (EXIF orientation {turn})"
    fits = next((way for way, size in (("upright", upright), ("stored", stored)) if size == truth), None)
    return f"{text}; use --orientation {fits}, which has the truth's size" if fits else text


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
