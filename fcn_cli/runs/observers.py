"""Who is told what happens in a run."""

from __future__ import annotations

from typing import Protocol

from ..outputs.record import Record
from .resume_plan import ResumePlan


class RunObserver(Protocol):
    """Is told what happens; see `run_display` for the one of the command line."""

    def planned(self, plan: ResumePlan) -> None:
        """Be told that the photos are found and sorted, and the work begins."""

    def finished(self, record: Record, *, skipped: bool) -> None:
        """Be told that a photo is recorded, or was before."""

    def pruned(self, record: Record) -> None:
        """Be told that the outputs and the record of a photo that is gone were removed."""

    def downloading(self, done: int, total: int | None) -> None:
        """Be told how many bytes of the weights have come."""

    def warn(self, text: str) -> None:
        """Be told something that people must know, also those who want only errors."""

    def note(self, text: str) -> None:
        """Be told something that people should know."""

    def detail(self, text: str) -> None:
        """Be told something for those who ask for more."""

    def waiting(self) -> None:
        """Be told that nothing happened for a moment."""


class ProgressObserver(Protocol):
    """Is told how far other work on images is; see `progress_bar`."""

    def begin(self, total: int) -> None:
        """Be told how many images there are."""

    def step(self, *, failed: bool = False) -> None:
        """Be told that one is finished."""

    def waiting(self) -> None:
        """Be told that nothing happened for a moment."""

    def downloading(self, done: int, total: int | None) -> None:
        """Be told how many bytes of the weights have come."""
