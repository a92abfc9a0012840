"""Show a run: messages on stderr, and data (records with ``--json``, the plan of a dry run) on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..common.errors import FailureKind
from ..common.output_layout import JOURNAL_FILE
from ..common.wording import counted
from ..runs.plan import Action, Prune
from . import tables
from .console import print_message
from .data_lines import DataLines, step_as_fields, step_as_json
from .progress_bar import ProgressBar

if TYPE_CHECKING:
    from ..outputs.record import Record
    from ..runs.plan import Plan
    from ..runs.report import Summary

_SHOWN_FAILURES = 10


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
        """Report the removal of a photo's outputs."""
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
        self._progress.line(text, show=not self._quiet)

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
            text = f"and {hidden} more without a mask; see their errors in {JOURNAL_FILE}"
            print_message(text, log=False)


def _is_refused(record: Record) -> bool:
    return record.error is not None and record.error.kind == FailureKind.NAME_TAKEN


def _failure(record: Record) -> str:
    return f"no mask for {record.source}: {record.error.message if record.error else 'failed'}"


def _counts(summary: Summary) -> str:
    if not summary.total and summary.shard is not None:
        return f"nothing to do: none of the images is in shard {summary.shard}"
    if not summary.total and not summary.pruned:
        return "no photo came" if summary.watched else "nothing to do: the list is empty"
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
