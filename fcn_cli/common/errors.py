"""The exceptions that reach users, and the exit code of each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from .redaction import redacted


class ExitCode(IntEnum):
    """The exit codes of the process."""

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
    """Base class of all errors that this package raises on purpose.

    The message is one line. URLs in it have no credentials or signatures: it may be logged.
    """

    exit_code = ExitCode.BAD_REQUEST

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class RequestError(FcnError):
    """An option, input, name or setting is wrong."""


class SettingsMismatch(RequestError):
    """The output directory was written with other settings."""


class NameCollision(RequestError):
    """Several inputs have the same output name; `each` has one line per pair."""

    def __init__(self, text: str, each: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.each = each


class WeightsError(RequestError):
    """The weights are missing, damaged, or do not fit the network."""


class NothingFound(FcnError):
    """No images were found."""

    exit_code = ExitCode.NOTHING_FOUND


class OutputLocked(FcnError):
    """Another run holds the output directory."""

    exit_code = ExitCode.LOCKED


class OutputLost(FcnError):
    """The output directory cannot be written: it is full, read-only or gone."""

    exit_code = ExitCode.STOPPED

    @classmethod
    @contextlib.contextmanager
    def when_refused(cls, path: object) -> Iterator[None]:
        """Raise OutputLost in place of an OSError, with the path that was being written."""
        try:
            yield
        except OSError as error:
            raise cls(f"{path}: cannot be written ({error.strerror or error})") from error


class DeviceLost(FcnError):
    """The device that runs the network failed; this process cannot use it any more."""

    exit_code = ExitCode.STOPPED


class StoppedEarly(FcnError):
    """The run stopped early on request (``--fail-fast``)."""

    exit_code = ExitCode.STOPPED


class FailureKind(StrEnum):
    """Why an image has no mask; the values are those of ``error.kind`` in records."""

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
    WORKER_DIED = "WorkerDied"
    CHANGED = "ChangedWhileReading"
    OUTPUT_REFUSED = "OutputRefused"
    BAD_LABELS = "BadLabels"
    SIZES_DIFFER = "SizesDiffer"
    NAME_TAKEN = "NameTaken"
    NOT_FINITE = "NonFiniteLogits"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image failed: `kind` for programs, `message` for people.

    `limit` is the limit that the image exceeded, in pixels or seconds, or None.
    """

    kind: FailureKind
    message: str
    limit: int | float | None = None


class ImageError(FcnError):
    """One image cannot be segmented; others are not affected.

    Attributes
    ----------
    failure
        Why: `Failure.kind`, `Failure.message` and `Failure.limit`.
    source
        In the Python API the image: its path, or ``image 3`` for the fourth of a batch without a path. The
        text of the error begins with it.
    """

    exit_code = ExitCode.SOME_FAILED

    def __init__(
        self, kind: FailureKind, message: str, limit: float | None = None, *, source: str = ""
    ) -> None:
        super().__init__(message)
        self.failure = Failure(kind, super().__str__(), limit)
        self.source = source

    @classmethod
    def of(cls, failure: Failure, *, source: str = "") -> ImageError:
        """Return the error of a failure."""
        return cls(failure.kind, failure.message, failure.limit, source=source)

    def __str__(self) -> str:
        return f"{self.source}: {self.failure.message}" if self.source else self.failure.message
