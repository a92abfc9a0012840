"""Finds out which stage of a pipeline limits its speed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_MEMORY_SECONDS = 10.0
_MIN_SECONDS = 2.0
_MIN_SHARE = 0.6


class StageClock:
    """Measures how long the thread that drives a pipeline is held up by each stage.

    The stages run beside each other, so each one's own work says little. What limits the pipeline is what its
    driving thread waits for. Stages nest: time in an inner stage does not count for the outer one.

    Parameters
    ----------
    now
        The clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: list[str] = []
        self._since = now()
        self._recent: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in the context for a stage."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; count the time that each one takes to come for a stage."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def limiting(self) -> str | None:
        """Return the stage that took most of the last seconds, or None where none clearly does."""
        total = sum(self._recent.values())
        if total < _MIN_SECONDS:
            return None
        name, seconds = max(self._recent.items(), key=lambda entry: entry[1])
        return name if seconds >= _MIN_SHARE * total else None

    def _charge(self) -> None:
        now = self._now()
        passed, self._since = now - self._since, now
        if not self._open:
            return
        name = self._open[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + passed
        fading = math.exp(-passed / _MEMORY_SECONDS)
        for other in self._recent:
            self._recent[other] *= fading
        # The integral of the fading weight over the time that passed.
        self._recent[name] = self._recent.get(name, 0.0) + _MEMORY_SECONDS * (1 - fading)
