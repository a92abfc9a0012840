"""Evaluation: measures accuracy, differences and speed. Returns result objects; prints nothing.

Here are the named choices of an evaluation, because the command line's options import nothing heavy.
"""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """The values of ``--protocol``: at which size label map and truth are compared."""

    ORIGINAL = "original"
    TORCHVISION = "torchvision"


class Orientation(StrEnum):
    """The values of ``--orientation``: how images with an EXIF orientation are compared."""

    AUTO = "auto"
    UPRIGHT = "upright"
    STORED = "stored"


class TruthColors(StrEnum):
    """The values of ``--truth-colors``: the meaning of the truth's pixel values."""

    INDEX = "index"
    VOC = "voc"
