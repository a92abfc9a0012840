"""What an evaluation can be asked for by name; light, as the command line's options are made of it."""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """What ``--protocol`` takes."""

    ORIGINAL = "original"
    TORCHVISION = "torchvision"


class Orientation(StrEnum):
    """What ``--orientation`` takes."""

    AUTO = "auto"
    UPRIGHT = "upright"
    STORED = "stored"


class TruthColors(StrEnum):
    """What ``--truth-colors`` takes: what the pixels of truth are."""

    INDEX = "index"
    VOC = "voc"
