"""What people see of a run, on stderr; stdout carries data only: the journal's records with ``--json``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import journal, tables
from .messages import give_up_stdout, say
from .progress import Progress
from .wording import counted

if TYPE_CHECKING:
    from .journal import Record
    from .plan import Plan
    from .summary import Summary

_SHOWN_FAILURES = 10


class Display:
    """Observes a run for a person (and, with `as_json`, for a program on stdout).

    Parameters
    ----------
    quiet
        Only errors.
    verbose
        Also details, and each failure as it happens.
    as_json
        Print each record on stdout.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, as_json: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._json = as_json
        self._progress = Progress(quiet=quiet)
        self.stdout_error: str | None = None

    def planned(self, made: Plan) -> None:
        """Say what is ahead."""
        self._progress.begin(made.work)
        to_complete = len(made.to_add) + len(made.to_repeat)
        self.detail(
            f"{counted(len(made), 'image')}: {len(made.to_segment)} to segment, {to_complete} to complete, "
            f"{len(made.done)} done before, {len(made.still_failed)} failed before and unchanged"
        )

    def finished(self, record: Record, *, skipped: bool) -> None:
        """Count a record; print it with ``--json``."""
        if self._json:
            self._print_json({**record.as_json(), "skipped": skipped})
        if skipped:
            return
        if record.error:
            self.detail(f"{record.source}: {record.error.message}")
        self._progress.step(failed=not record.ok)

    def waiting(self) -> None:
        """Show that the work goes on."""
        self._progress.waiting()

    def downloading(self, done: int, total: int | None) -> None:
        """Show a download's progress."""
        self._progress.downloading(done, total)

    def note(self, text: str) -> None:
        """Say something, unless quiet."""
        self._progress.line(text, show=not self._quiet)

    def detail(self, text: str) -> None:
        """Say something if verbose."""
        self._progress.line(text, show=self._verbose)

    def summed_up(self, summary: Summary, *, dry: bool = False) -> None:
        """Print a run's summary: table, ignored files, failures, counts."""
        self._progress.close()
        show = not self._quiet
        if dry:
            text = f"{summary.left} of {counted(summary.total, 'image')} would be segmented"
            say(f"dry run: {text} into {summary.output}", show=show)
        if show and not dry and summary.done:
            with contextlib.suppress(OSError):
                tables.run(summary)
        if summary.ignored:
            say(summary.ignored, show=show)
        _failures(summary.failures)
        if not dry:
            say(_counts(summary), show=show)
        if summary.stopped is not None:
            say(str(summary.stopped))

    def _print_json(self, value: dict[str, Any]) -> None:
        try:
            sys.stdout.write(journal.to_line(value) + "\n")
            sys.stdout.flush()
        except OSError as error:
            # The masks are wanted all the same.
            self._json = False
            self.stdout_error = give_up_stdout(error)


def _failures(records: Sequence[Record]) -> None:
    """Say why there is no mask for these images; of many only the first."""
    for record in records[:_SHOWN_FAILURES]:
        message = record.error.message if record.error else "failed"
        say(f"no mask for {record.source}: {message}")
    if len(records) > _SHOWN_FAILURES:
        more = len(records) - _SHOWN_FAILURES
        say(f"and {more} more without a mask; {journal.JOURNAL_FILE} there has the reasons")


def _counts(summary: Summary) -> str:
    if not summary.done and not summary.failed and not summary.left:
        was = "the only image was" if summary.total == 1 else f"all {summary.total} images were"
        return f"nothing to do: {was} done before, see {summary.output}"
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before")
    parts.append(f"{summary.failed} failed")
    if summary.left:
        parts.append(f"{summary.left} not reached")
    text = f"{counted(summary.total, 'image')}: {', '.join(parts)}"
    if (rate := summary.images_per_second) is not None:
        text += f"; {summary.seconds:.1f} s, {rate:.2f} images/s"
    return f"{text}; see {summary.output}"
