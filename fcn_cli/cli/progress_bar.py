"""Progress on stderr: a bar on a terminal, a plain line every 30 s elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from ..common.wording import counted
from .console import print_message
from .terminal_bar import TerminalBar
from .text_table import can_draw

_PLAIN_SECONDS = 30.0


class ProgressBar:
    """Shows the number of finished images, and prints other messages without damaging the bar.

    Parameters
    ----------
    quiet
        Show no progress.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = can_draw(sys.stderr) and not quiet
        self._images: TerminalBar | None = None
        self._weights: Any = None
        self._total = self._seen = self._failed = 0
        self._downloaded = 0
        self._limit: str | None = None
        self._next_line = 0.0

    def begin(self, total: int) -> None:
        """Start with the number of images."""
        self._total, self._seen, self._failed = total, 0, 0
        self._next_line = time.monotonic() + _PLAIN_SECONDS

    def step(self, *, failed: bool = False) -> None:
        """Count a finished image."""
        self._seen += 1
        self._failed += failed
        if self._terminal:
            self._images_bar().step()
        self._plain_line()

    def waiting(self) -> None:
        """Refresh the display while no image finishes."""
        if self._terminal:
            self._images_bar().refresh()
        self._plain_line()

    def limited_by(self, stage: str | None) -> None:
        """Show which stage limits the rate, or None."""
        self._limit = stage

    def downloading(self, done: int, total: int | None) -> None:
        """Show a download's progress in bytes; where there is no terminal, print one line at its start."""
        if self._quiet:
            return
        first = self._downloaded == 0
        new_bytes, self._downloaded = done - self._downloaded, done
        if not self._terminal:
            if first:
                print_message("downloading weights" + (f" ({total / 1e6:.0f} MB)" if total else ""))
            return
        if first:
            self.close()
            self._weights = tqdm(
                desc="weights",
                total=total,
                unit="B",
                unit_scale=True,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )
        self._weights.update(new_bytes)
        if done == total:
            self.close()

    def line(self, text: str, *, show: bool = True) -> None:
        """Print a message without damaging the bar; see `console.print_message`."""
        if show and (self._images is not None or self._weights is not None):
            with tqdm.external_write_mode(file=sys.stderr):
                print_message(text)
        else:
            print_message(text, show=show)

    def close(self) -> None:
        """Remove the bar."""
        for bar in (self._images, self._weights):
            if bar is not None:
                bar.close()
        self._images = self._weights = None

    def _images_bar(self) -> TerminalBar:
        if self._images is None:
            self._images = TerminalBar(self._total, sys.stderr)
        self._images.failed, self._images.limit = self._failed, self._limit
        return self._images

    def _plain_line(self) -> None:
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PLAIN_SECONDS
            failed = f", {self._failed} failed" if self._failed else ""
            # With a bar, this line is for the log file only.
            limit = f", {self._limit} limits the rate" if self._limit else ""
            text = f"{self._seen} of {counted(self._total, 'image')}{failed}{limit}"
            print_message(text, show=not self._quiet and not self._terminal)
