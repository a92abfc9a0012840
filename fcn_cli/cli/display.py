"""Progress and messages of a run on stderr, and its data (records with ``--json``, a plan) on stdout."""

from __future__ import annotations

import io
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from rich.bar import Bar
from rich.console import Console

from ..common.errors import FailureKind
from ..common.output_layout import JOURNAL_FILE
from ..common.wording import counted, duration
from ..outputs.json_text import printable_utf8, to_line
from ..outputs.record import begin
from ..runs.plan import Action, Prune
from . import tables
from .console import one_line, print_message

if TYPE_CHECKING:
    from ..outputs.record import Record
    from ..runs.plan import Plan, Step
    from ..runs.report import Summary

_SHOWN_FAILURES = 10
_PLAIN_SECONDS = 30.0
_MIN_BAR_COLUMNS = 5
_DRAWING_SECONDS = 0.1
_MARKS = 30


class Display:
    """Shows a run on the command line; implements `RunObserver`.

    Parameters
    ----------
    quiet
        Print only errors.
    verbose
        Also print details, and each image as it finishes.
    as_json
        Print each record on stdout as a line of JSON.
    dry
        Print the plan on stdout, as in a dry run.
    """

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, as_json: bool = False, dry: bool = False
    ) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._json = as_json
        self._dry = dry
        self._progress = ProgressBar(quiet=quiet)
        self._data = DataLines(flush=not dry)

    def planned(self, plan: Plan) -> None:
        """Print the number of images by action; in a dry run print every step of the plan."""
        self._progress.begin(plan.work)
        counts = Counter(step.action for step in plan.steps)
        parts = [f"{counts[Action.SEGMENT]} to segment"]
        parts.append(f"{counts[Action.ADD] + counts[Action.REPAINT]} to complete")
        parts.append(f"{counts[Action.SKIP]} done before")
        parts.append(f"{counts[Action.FAILED]} failed{'' if self._dry else ' before and unchanged'}")
        if counts[Action.REFUSED]:
            parts.append(f"{counts[Action.REFUSED]} refused")
        if counts[Action.PRUNE]:
            parts.append(f"{counts[Action.PRUNE]} to prune")
        images = len(plan.steps) - plan.count(Prune)
        text = f"{counted(images, 'image')}: {', '.join(parts)}"
        if self._dry:
            self.note(f"dry run, nothing is written; {text}")
            for step in sorted(plan.steps, key=lambda step: step.image):
                self._data.write(step_as_json(step, plan) if self._json else step_as_fields(step))
        else:
            self.detail(text)

    def done_before(self, records: Iterable[Record | None]) -> None:
        """Print them with ``--json``; else they are in one line, of the plan."""
        for record in records if self._json else ():
            if record is not None:
                self._data.write_json({**record.as_json(), "skipped": True})

    def finished(self, record: Record, *, skipped: bool) -> None:
        """Count an image; with ``--json`` print its record."""
        if self._json:
            self._data.write_json({**record.as_json(), "skipped": skipped})
        if not record.ok:
            self.detail(_failure(record))
        elif not skipped:
            self.detail(f"{record.source}: done, {record.width}x{record.height}, {record.seconds:.2f} s")
        if not skipped and not _is_refused(record):
            self._progress.step(failed=not record.ok)

    def pruned(self, record: Record) -> None:
        """Report the removal of an image's outputs."""
        if self._json:
            self._data.write_json({**record.as_json(), "status": "gone", "skipped": False})
        self.detail(f"{record.source}: gone, its outputs are removed")

    def batch_done(self, batch: Summary) -> None:
        """Print the failures and the counts of a watch's batch; no bar until the next one."""
        self._progress.close()
        self._print_failures(batch)
        print_message(_counts(batch), show=not self._quiet)

    def waiting(self) -> None:
        """Refresh the progress while no image finishes."""
        self._progress.waiting()

    def limited_by(self, stage: str | None) -> None:
        """Show which stage limits the run."""
        self._progress.limited_by(stage)

    def downloading(self, done: int, total: int | None) -> None:
        """Show a download's progress in bytes."""
        self._progress.downloading(done, total)

    def warn(self, text: str) -> None:
        """Print a message, also with ``--quiet``."""
        self._progress.line(text)

    def note(self, text: str) -> None:
        """Print a message, except with ``--quiet``."""
        self._progress.note(text)

    def detail(self, text: str) -> None:
        """Print a message with ``--verbose``."""
        self._progress.line(text, show=self._verbose)

    def summed_up(self, summary: Summary) -> None:
        """Print a run's summary: the table of classes, ignored files, failures, counts."""
        self._progress.close()
        show = not self._quiet
        if self._dry:
            if summary.ignored:
                print_message(summary.ignored, show=show)
            return
        if show and summary.done:
            tables.run(summary)
        if summary.ignored:
            print_message(summary.ignored, show=show)
        self._print_failures(summary)
        print_message(_counts(summary), show=show)
        if summary.stopped is not None:
            print_message(str(summary.stopped))

    def _print_failures(self, summary: Summary) -> None:
        """Print failures, at most `_SHOWN_FAILURES`, with ``--quiet`` only new ones; `finished` logs each."""
        if self._verbose:
            return
        known = summary.known_failures if self._quiet else frozenset[str]()
        records = [record for record in summary.failures if record.image not in known]
        for record in records[:_SHOWN_FAILURES]:
            print_message(_failure(record), log=False)
        if len(records) > _SHOWN_FAILURES:
            hidden = len(records) - _SHOWN_FAILURES
            text = f"and {hidden} more failed; see the errors in {JOURNAL_FILE}"
            print_message(text, log=False)


def _is_refused(record: Record) -> bool:
    return record.error is not None and record.error.kind == FailureKind.NAME_TAKEN


def _failure(record: Record) -> str:
    return f"no mask for {record.source}: {record.error.message if record.error else 'failed'}"


def _counts(summary: Summary) -> str:
    if not summary.total and summary.shard is not None:
        return f"nothing to do: none of the images is in shard {summary.shard}"
    if not summary.total and not summary.pruned:
        return "no images arrived" if summary.watched else "nothing to do: the list is empty"
    if not summary.pruned and not summary.done and not summary.failed and not summary.left:
        images = "the only image was" if summary.total == 1 else f"all {summary.total} images were"
        return f"nothing to do: {images} done before, see {summary.output}"
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before")
    parts.append(f"{summary.failed} failed")
    if summary.left:
        parts.append(f"{summary.left} not reached")
    if summary.pruned:
        parts.append(f"{summary.pruned} pruned")
    text = f"{counted(summary.total, 'image')}: {', '.join(parts)}"
    if (rate := summary.images_per_second) is not None:
        text += f"; {summary.seconds:.1f} s, {rate:.2f} images/s"
    return f"{text}; see {summary.output}"


class DataLines:
    """Writes lines to stdout.

    Parameters
    ----------
    flush
        Whether each line shall reach its reader at once.
    """

    def __init__(self, *, flush: bool) -> None:
        self._flush = flush

    def write_json(self, value: dict[str, Any]) -> None:
        """Write an object as a line of JSON."""
        self.write(to_line(value))

    def write(self, line: str) -> None:
        """Write a line."""
        sys.stdout.write(line + "\n")
        if self._flush:
            sys.stdout.flush()


def step_as_fields(step: Step) -> str:
    """Return a step of a plan as action, image and reason, separated by tabs."""
    return "\t".join((step.action, _field(step.image), _field(step.reason)))


def step_as_json(step: Step, plan: Plan) -> str:
    """Return a step of a plan as a line of JSON: the image's record, with the action and the reason."""
    value: dict[str, Any] = {"action": str(step.action)}
    if (record := plan.record_of(step)) is not None:
        value |= record.as_json()
    elif not isinstance(step, Prune):
        value |= begin(step.source, "").as_json()
        for unknown in ("status", "fingerprint", "finished"):
            value[unknown] = None
    return to_line({**value, "reason": printable_utf8(step.reason)})


def _field(text: str) -> str:
    """Return text for a tab-separated field: without tabs and line ends."""
    return one_line(printable_utf8(text))


class ProgressBar:
    """Shows the number of finished images, and prints other messages without damaging the bar.

    Parameters
    ----------
    quiet
        Show no progress.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = tables.can_draw(sys.stderr) and not quiet
        self._bar: TerminalBar | None = None
        self._total = self._seen = self._failed = 0
        self._is_downloading = False
        self._limit: str | None = None
        self._next_line = 0.0

    def begin(self, total: int) -> None:
        """Start with the number of images."""
        self._total, self._seen, self._failed, self._limit = total, 0, 0, None
        self._next_line = time.monotonic() + _PLAIN_SECONDS

    def step(self, *, failed: bool = False) -> None:
        """Count a finished image."""
        self._seen += 1
        self._failed += failed
        if self._terminal:
            self._images_bar().go_to(self._seen)
        self._plain_line()

    def waiting(self) -> None:
        """Refresh the display while no image finishes."""
        if self._terminal:
            self._images_bar().refresh()
        self._plain_line()

    def limited_by(self, stage: str | None) -> None:
        """Show which stage limits the rate, or None."""
        self._limit = stage

    def note(self, text: str) -> None:
        """Print a message, except with ``--quiet``."""
        self.line(text, show=not self._quiet)

    def downloading(self, done: int, total: int | None) -> None:
        """Show a download's progress in bytes; where there is no terminal, print one line at its start."""
        if self._quiet:
            return
        first, self._is_downloading = not self._is_downloading, done != total
        if not self._terminal:
            if first:
                print_message("downloading weights" + (f" ({total / 1e6:.0f} MB)" if total else ""))
            return
        if first or self._bar is None:
            self.close()
            self._bar = TerminalBar(total, sys.stderr, BYTES)
        self._bar.go_to(done)
        if done == total:
            self.close()

    def line(self, text: str, *, show: bool = True) -> None:
        """Print a message without damaging the bar; see `console.print_message`."""
        if show and self._bar is not None:
            self._bar.close()
        print_message(text, show=show)
        if show and self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _images_bar(self) -> TerminalBar:
        if self._bar is None:
            self._bar = TerminalBar(self._total, sys.stderr)
        self._bar.failed, self._bar.limit = self._failed, self._limit
        return self._bar

    def _plain_line(self) -> None:
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PLAIN_SECONDS
            failed = f", {self._failed} failed" if self._failed else ""
            # With a bar, this line is for the log file only.
            limit = f", {self._limit} limits the rate" if self._limit else ""
            text = f"{self._seen} of {counted(self._total, 'image')}{failed}{limit}"
            print_message(text, show=not self._quiet and not self._terminal)


class Unit(NamedTuple):
    """What a bar counts: what stands before the numbers, how many make one that is shown, and its name."""

    label: str
    size: float
    name: str


IMAGES, BYTES = Unit("", 1, "images"), Unit("weights ", 1e6, "MB")


class TerminalBar:
    """Shows how much is done, the rate, the time left, failures, and what limits the rate.

    The line is as long as the terminal is wide, also after its window was resized; what does not fit is left
    out, the least important first. When a window becomes narrower, terminals wrap what they show, and the
    cursor stays with its character: so every line leaves it at its beginning, and the next one is drawn over
    the whole of the wrapped one.
    """

    def __init__(self, total: int | None, stream: TextIO, unit: Unit = IMAGES) -> None:
        self._total, self._stream, self._unit = total, stream, unit
        self._done = 0
        now = time.monotonic()
        # When how much was done: the rate is that of the last half minute or so.
        self._marks = deque([(now, 0)], maxlen=_MARKS)
        self._next_drawing = now
        self.failed = 0
        self.limit: str | None = None
        self.refresh()

    def go_to(self, done: int) -> None:
        """Take how much is done, and draw the bar if some time has passed."""
        self._done = done
        if time.monotonic() >= self._next_drawing:
            self.refresh()

    def refresh(self) -> None:
        """Draw the bar again: the time left changes, and perhaps the terminal's width."""
        now = time.monotonic()
        self._next_drawing = now + _DRAWING_SECONDS
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self._done))
        self._draw(self._line(now))

    def close(self) -> None:
        """Remove the bar; `refresh` draws it again."""
        self._draw("")

    def _draw(self, line: str) -> None:
        # Erases from the cursor to the end of the screen.
        self._stream.write(f"\r{line}\x1b[J\r")
        self._stream.flush()

    def _line(self, now: float) -> str:
        # A line that fills the terminal's last column wraps on some terminals.
        columns = _columns(self._stream) - 1
        label, size, name = self._unit
        count = f"{label}{self._done / size:,.0f}"
        if self._total is not None:
            count += f"/{self._total / size:,.0f}"
        if label:
            count += f" {name}"
        for tail in self._tails(now):
            room = columns - len(count) - len(tail) - 2
            if room >= _MIN_BAR_COLUMNS:
                return f"{count} {self._drawn(room)} {tail}"
        return count[: max(columns, 1)]

    def _drawn(self, width: int) -> str:
        part = self._done / self._total if self._total else 0.0
        if "utf" not in (self._stream.encoding or "").lower():
            return f"{'#' * int(part * width):{width}}"
        console = Console(file=io.StringIO(), color_system=None, width=width)
        return "".join(segment.text for segment in console.render(Bar(1, 0, part))).rstrip("\n")

    def _tails(self, now: float) -> list[str]:
        """Return what stands behind the bar, the longest first."""
        (since, before), (_, size, name) = self._marks[0], self._unit
        rate = (self._done - before) / (now - since) if now > since else 0.0
        seconds_left = (self._total - self._done) / rate if rate and self._total is not None else None
        left = f"{duration(seconds_left)} left" if seconds_left is not None else ""
        speed = _three_digits(rate / size) if rate else "?"
        failed = f"{self.failed:,} failed" if self.failed else ""
        limit = f"{self.limit} limits" if self.limit else ""
        choices: list[list[str]] = [
            [f"{speed} {name}/s", left, failed, limit],
            [f"{speed} {name}/s", left, failed],
            [f"{speed}/s", left, failed],
            [f"{speed}/s", failed or left],
            [failed or left],
        ]
        return [", ".join(filter(None, parts)) for parts in choices]


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
