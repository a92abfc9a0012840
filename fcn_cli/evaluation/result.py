"""The result of an evaluation: figures, notes and failures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import ExitCode, Failure
from ..inputs import exif
from ..inputs.discovery import Source
from . import Orientation
from .confusion import Confusion

if TYPE_CHECKING:
    from ..inputs.decode_options import InputSize
    from ..inputs.decoder import DecodedImage


@dataclass(frozen=True, slots=True)
class SeenImage:
    """What is known about an image without its pixels.

    `size` is the (width, height) in pixels in which it is compared: upright, or with `stored` as in the file.
    `turn` is the EXIF orientation, 1 for none. `smaller` is true if the network's input was smaller than
    requested, because the image is long and thin.
    """

    size: tuple[int, int]
    turn: int = 1
    stored: bool = False
    notes: tuple[str, ...] = ()
    smaller: bool = False

    @classmethod
    def of(cls, item: DecodedImage, short_side: InputSize) -> SeenImage:
        """Describe a decoded image; `short_side` is the size that was asked for."""
        fed = min(item.pixels.shape[:2]) if item.pixels is not None else None
        smaller = fed is not None and isinstance(short_side, int) and fed < short_side
        return cls((item.width, item.height), item.turn, item.stored, item.notes, smaller)

    @property
    def other_size(self) -> tuple[int, int]:
        """The (width, height) in the other orientation: stored for an upright image, and the reverse."""
        return exif.turned_size(self.size, self.turn)


@dataclass
class ImageNotes:
    """Notes on the measured images.

    `turned` counts the images that EXIF turns or mirrors, `stored` those of them that were compared as
    stored, and `either` those whose size fits in both orientations. `smaller` counts the images whose network
    input was smaller than requested.
    """

    turned: int = 0
    stored: int = 0
    either: int = 0
    smaller: int = 0
    texts: list[tuple[Source, tuple[str, ...]]] = field(default_factory=list)

    def add(self, source: Source, image: SeenImage) -> None:
        """Count one image."""
        self.turned += image.turn != 1
        self.stored += image.stored
        self.either += image.turn != 1 and image.other_size == image.size
        self.smaller += image.smaller
        if image.notes:
            self.texts.append((source, image.notes))

    def by_kind(self) -> dict[str, int]:
        """Return the number of times of each note; notes that differ only in numbers count as the same."""
        kinds = (re.sub(r"\d[\d.]*(?!-bit)", "N", note) for _, notes in self.texts for note in notes)
        return dict(Counter(kinds).most_common())


@dataclass
class Evaluation:
    """The result: `total` images = evaluated (`confusion.images`) + `skipped` + failed.

    `skipped` counts the images without truth, `truth_unused` the true label maps without an image.
    `truth_counts` holds further figures of the truth.
    """

    confusion: Confusion
    class_names: tuple[str, ...]
    protocol: dict[str, Any]
    orientation: Orientation
    where_both_fit: Orientation
    total: int
    skipped: int
    truth_unused: int
    truth_counts: Mapping[str, Any]
    notes: ImageNotes = field(default_factory=ImageNotes)
    failures: list[tuple[Source, Failure]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return ExitCode.SOME_FAILED if self.failures else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name: fractions from 0 to 1, None for an undefined figure."""
        counts = self.confusion
        classes = self._classes()
        return {
            "mean_iou": _known(counts.mean_iou()),
            "pixel_accuracy": _known(counts.pixel_accuracy()),
            "mean_accuracy": _known(counts.mean_accuracy()),
            "mean_dice": _known(counts.mean_dice()),
            "frequency_weighted_iou": _known(counts.frequency_weighted_iou()),
            "images": counts.images,
            "images_given": self.total,
            "images_without_truth": self.skipped,
            "images_failed": len(self.failures),
            "truth_without_image": self.truth_unused,
            "truth_counts": dict(self.truth_counts),
            "classes_in_mean": sum(entry["iou"] is not None for entry in classes.values()),
            "classes_absent": [entry["name"] for entry in classes.values() if entry["iou"] is None],
            "pixels": counts.pixels,
            "void_fraction": counts.void_fraction,
            "classes": classes,
            "orientation": {
                "asked": self.orientation,
                "images_turned": self.notes.turned,
                "taken_upright": self.notes.turned - self.notes.stored,
                "taken_as_stored": self.notes.stored,
                "fit_both_ways": self.notes.either,
                "where_both_fit": self.where_both_fit,
            },
            "images_fed_smaller": None if "predictions" in self.protocol else self.notes.smaller,
            "notes_by_kind": self.notes.by_kind(),
            "notes": [{"image": source.given, "notes": list(texts)} for source, texts in self.notes.texts],
            "failures": [
                {"image": source.given, "kind": failure.kind, "message": failure.message}
                for source, failure in self.failures
            ],
            "protocol": self.protocol,
        }

    def _classes(self) -> dict[str, dict[str, Any]]:
        counts = self.confusion
        rows = zip(
            self.class_names,
            counts.iou(),
            counts.dice(),
            counts.precision(),
            counts.accuracy(),
            counts.true_pixels,
            counts.predicted_pixels,
            counts.class_images,
            strict=True,
        )
        return {
            str(index): {
                "name": name,
                "iou": _known(iou),
                "dice": _known(dice),
                "precision": _known(precision),
                "recall": _known(recall),
                # As torchvision and the FCN paper call it.
                "accuracy": _known(recall),
                "truth_pixels": int(true),
                "predicted_pixels": int(predicted),
                "truth_images": int(shown),
            }
            for index, (name, iou, dice, precision, recall, true, predicted, shown) in enumerate(rows)
        }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
