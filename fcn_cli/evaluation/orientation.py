"""Which way round a photo is compared: truth was drawn on the upright photo, or on the stored one."""

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
"""The (width, height) of an image's truth, the PNG whose header tells, or why there is none."""


@dataclass(frozen=True)
class OrientationRule:
    """Decides for each photo; it is asked in the decoding workers (see `decode_worker.Orient`).

    Parameters
    ----------
    frames
        Of each photo's truth, by the name of its image.
    wanted
        ``auto`` takes whatever has the truth's size.
    where_both_fit
        What ``auto`` takes where that does not decide: ``upright`` or ``stored``.
    """

    frames: Mapping[str, Frame]
    wanted: Orientation
    where_both_fit: Orientation

    def __call__(self, source: Source, upright: Size, turn: int) -> bool:
        """Return whether to take a photo as stored; without a `turn` there is only one way.

        Raises
        ------
        ImageError
            The photo's truth does not have its size, or cannot be opened.
        """
        frame = self.frames[source.image]
        if isinstance(frame, Failure):
            raise ImageError(*frame)
        truth = truth_files.size_of(frame) if isinstance(frame, Path) else frame
        stored = exif.turned_size(upright, turn)
        fits = {Orientation.UPRIGHT: truth == upright, Orientation.STORED: truth == stored}
        if turn == 1:
            taken = Orientation.UPRIGHT
        elif self.wanted is not Orientation.AUTO:
            taken = self.wanted
        elif all(fits.values()):
            taken = self.where_both_fit
        else:
            taken = Orientation.STORED if fits[Orientation.STORED] else Orientation.UPRIGHT
        if not fits[taken]:
            what = f"its truth {frame.name}" if isinstance(frame, Path) else "its truth"
            raise ImageError(
                FailureKind.SIZES_DIFFER,
                f"{what} has {_pixels(truth)} pixels, {_of_photo(truth, upright, stored, turn)}",
            )
        return taken is Orientation.STORED


def _of_photo(truth: Size, upright: Size, stored: Size, turn: int) -> str:
    if turn == 1:
        turned = " (is it turned by 90 degrees?)" if truth == upright[::-1] else ""
        return f"the photo {_pixels(upright)}{turned}"
    text = f"the photo {_pixels(upright)} upright and {_pixels(stored)} as stored (EXIF orientation {turn})"
    fits = next((way for way, size in (("upright", upright), ("stored", stored)) if size == truth), None)
    return f"{text}; --orientation {fits} takes it as the truth has it" if fits else text


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
