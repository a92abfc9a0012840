"""The interfaces through which a run reports what happens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from ..outputs.record import Record
from .plan import Plan

if TYPE_CHECKING:
    # Reports tell observers.
    from .report import Summary


class RunObserver(Protocol):
    """Is told what happens in a run; the command line's observer is `cli.display.Display`."""

    def planned(self, plan: Plan) -> None:
        """Be told that planning is done and the work begins."""

    def done_before(self, records: Iterable[Record | None]) -> None:
        """Be told of the images that earlier runs have done; each record is read when it is asked for."""

    def finished(self, record: Record, *, skipped: bool) -> None:
        """Be told that an image is done or has failed, now or (`skipped`) in an earlier run."""

    def pruned(self, record: Record) -> None:
        """Be told that the outputs and the record of a removed image were removed."""

    def batch_done(self, batch: Summary) -> None:
        """Be told that one batch of a watch is done; the watch goes on."""

    def downloading(self, done: int, total: int | None) -> None:
        """Be told how many bytes of the weights are downloaded."""

    def limited_by(self, stage: str | None) -> None:
        """Be told which stage limits the run now: decoding, network or writing; None where none does."""

    def warn(self, text: str) -> None:
        """Be told something that users must know, even with ``--quiet``."""

    def note(self, text: str) -> None:
        """Be told something that users should know."""

    def detail(self, text: str) -> None:
        """Be told a detail, for ``--verbose``."""

    def waiting(self) -> None:
        """Be called while nothing happens, to keep a display alive."""


class ProgressObserver(Protocol):
    """Is told the progress of other work on images; see `cli.display.ProgressBar`."""

    def begin(self, total: int) -> None:
        """Be told the number of images."""

    def step(self, *, failed: bool = False) -> None:
        """Be told that an image is finished."""

    def note(self, text: str) -> None:
        """Be told something that users should know."""

    def waiting(self) -> None:
        """Be called while nothing happens, to keep a display alive."""

    def downloading(self, done: int, total: int | None) -> None:
        """Be told how many bytes of the weights are downloaded."""
