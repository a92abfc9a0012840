"""The exceptions people can meet, and the exit code each one becomes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    """What the process tells its caller."""

    OK = 0
    SOME_FAILED = 1
    BAD_REQUEST = 2
    NOTHING_FOUND = 3
    LOCKED = 4
    STOPPED = 5
    BUG = 70
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class FcnError(Exception):
    """Anything this package raises on purpose; its text is one line written for people."""

    exit_code = ExitCode.BAD_REQUEST


class RequestError(FcnError):
    """The request itself is wrong: a flag, an input, a name, a setting."""


class SettingsMismatch(RequestError):
    """The output directory was written with other settings."""


class NameCollision(RequestError):
    """Inputs would be written under one name; `each` has a line for every such pair."""

    def __init__(self, text: str, each: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.each = each


class WeightsError(RequestError):
    """Weights are missing, damaged, or do not fit the network."""


class NothingFound(FcnError):
    """There is nothing to segment."""

    exit_code = ExitCode.NOTHING_FOUND


class OutputLocked(FcnError):
    """Another run holds the output directory."""

    exit_code = ExitCode.LOCKED


class OutputLost(FcnError):
    """The output directory cannot be written (any more): full, read-only, gone."""

    exit_code = ExitCode.STOPPED

    @classmethod
    @contextlib.contextmanager
    def when_refused(cls, path: object) -> Iterator[None]:
        """Turn an OSError into this, naming the path that was being written."""
        try:
            yield
        except OSError as error:
            raise cls(f"{path}: cannot be written ({error.strerror or error})") from error


class DeviceLost(FcnError):
    """The device that runs the network is gone; nothing more can be computed in this process."""

    exit_code = ExitCode.STOPPED


class StoppedEarly(FcnError):
    """The run ended before the end, because it was told to (``--fail-fast``)."""

    exit_code = ExitCode.STOPPED


class Interrupted(FcnError):
    """A signal asked the process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted ({signal.Signals(signum).name})")
        self.exit_code = ExitCode(128 + signum)


class FailureKind(StrEnum):
    """Why one image has no mask; the value stands in the journal."""

    NOT_FOUND = "NotFound"
    UNREADABLE = "Unreadable"
    NOT_A_FILE = "NotAFile"
    EMPTY_FILE = "EmptyFile"
    NOT_AN_IMAGE = "NotAnImage"
    TRUNCATED = "TruncatedImage"
    BROKEN = "BrokenImage"
    TOO_MANY_PIXELS = "TooManyPixels"
    OUT_OF_MEMORY = "OutOfMemory"
    NO_DECODER = "DecoderMissing"
    DECODER_DIED = "DecoderDied"
    DECODER_HUNG = "DecoderHung"
    CHANGED = "ChangedWhileReading"
    OUTPUT_REFUSED = "OutputRefused"
    BAD_LABELS = "BadLabels"
    SIZES_DIFFER = "SizesDiffer"
    NAME_TAKEN = "NameTaken"
    NOT_FINITE = "NonFiniteLogits"


class Failure(NamedTuple):
    """Why one image failed: a kind for programs, a sentence for people.

    `limit` is the number of a limit that the image exceeded (pixels, seconds), where the kind has one.
    """

    kind: FailureKind
    message: str
    limit: float | None = None


class ImageError(FcnError):
    """One image cannot be segmented; the others are not concerned."""

    exit_code = ExitCode.SOME_FAILED

    def __init__(self, kind: FailureKind, message: str, limit: float | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message, limit)
