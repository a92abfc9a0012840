"""The bar that a terminal shows while images are worked on: one line that fits the terminal's width."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

_MIN_BAR_COLUMNS = 5


class TerminalBar:
    """Shows how many images are finished, images per second, time left, failures, and what limits the rate.

    The line is as long as the terminal is wide, also after its window was resized; what does not fit is left
    out, the least important first.

    Parameters
    ----------
    total
        The number of images.
    stream
        The terminal.
    """

    def __init__(self, total: int, stream: TextIO) -> None:
        self._stream = stream
        # With a delay, it is not drawn before `_fit` has said how.
        self._bar: Any = _Line(total=total, file=stream, leave=False, delay=1e-9)
        self.failed = 0
        self.limit: str | None = None
        self.refresh()

    def step(self) -> None:
        """Count a finished image."""
        self._fit()
        self._bar.update()

    def refresh(self) -> None:
        """Draw the bar again: the time left changes, and perhaps the terminal's width."""
        self._fit()
        self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _fit(self) -> None:
        columns = _columns(self._stream)
        # A line that fills the terminal's last column wraps on some terminals.
        self._bar.ncols = max(columns - 1, 1)
        state = self._bar.format_dict
        count = f"{state['n']:,}/{state['total']:,}"
        for tail in self._tails(state):
            room = columns - 1 - len(count) - len(tail) - 2
            if room >= _MIN_BAR_COLUMNS:
                self._bar.bar_format = f"{count} {{bar}} {tail}"
                return
        self._bar.bar_format = count

    def _tails(self, state: dict[str, Any]) -> list[str]:
        """Return what stands behind the bar, the longest first."""
        rate = state["rate"] or (state["n"] / state["elapsed"] if state["elapsed"] else 0)
        seconds_left = (state["total"] - state["n"]) / rate if rate else None
        left = f"{tqdm.format_interval(seconds_left)} left" if seconds_left is not None else ""
        speed = _three_digits(rate) if rate else "?"
        failed = f"{self.failed:,} failed" if self.failed else ""
        limit = f"{self.limit} limits" if self.limit else ""
        choices: list[list[str]] = [
            [f"{speed} images/s", left, failed, limit],
            [f"{speed} images/s", left, failed],
            [f"{speed}/s", left, failed],
            [f"{speed}/s", failed or left],
            [failed or left],
        ]
        return [", ".join(filter(None, parts)) for parts in choices]


class _Line(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar that leaves the cursor at its beginning.

    When a window becomes narrower, terminals wrap what they show, and the cursor stays with its character:
    so the next line is drawn over the whole of the wrapped one.
    """

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Return the function that draws a line over the last one."""

        def draw(line: str) -> None:
            # Erases from the cursor to the end of the screen.
            file.write(f"\r{line}\x1b[J\r")
            file.flush()

        return draw


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _three_digits(rate: float) -> str:
    """Return a rate with three digits, without an exponent."""
    if rate >= 100:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"
