"""What people see: a bar or plain lines while a run goes on, and its summary. On stderr.

stdout carries data only: the journal's records with ``--json``, a benchmark's figures.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from . import journal

if TYPE_CHECKING:
    from .journal import Record
    from .plan import Plan
    from .summary import Summary

_PLAIN_SECONDS = 30.0
_SHOWN_FAILURES = 10


def one_line(text: str) -> str:
    """Return a text with everything that is not printable (line ends, escape codes, odd bytes) escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def say(text: str) -> None:
    """Print one line for people."""
    print(f"fcn: {one_line(text)}", file=sys.stderr, flush=True)  # noqa: T201


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
        self._bar: Any = None
        self._terminal = sys.stderr.isatty() and not quiet
        self._work = self._seen = self._failed = 0
        self.stdout_error: str | None = None
        self._downloaded = 0
        self._next_line = 0.0

    def planned(self, made: Plan) -> None:
        """Say what is ahead."""
        self._work = made.work
        self._next_line = time.monotonic() + _PLAIN_SECONDS
        if self._verbose:
            say(
                f"{len(made)} images: {len(made.to_segment)} to segment, {len(made.to_add)} to complete, "
                f"{len(made.done)} done before, {len(made.still_failed)} failed before and unchanged"
            )

    def finished(self, record: Record, *, skipped: bool) -> None:
        """Count a record; print it with ``--json``."""
        if self._json:
            self._print_json({**record.as_json(), "skipped": skipped})
        if skipped:
            return
        self._seen += 1
        self._failed += not record.ok
        if self._verbose and record.error:
            self._line(f"{record.source}: {record.error.message}")
        if self._terminal:
            self._images_bar().update()
        else:
            self._plain_line()

    def waiting(self) -> None:
        """Keep the bar alive on a terminal; elsewhere print a plain line now and then."""
        if self._terminal:
            self._images_bar().refresh()
        else:
            self._plain_line()

    def _images_bar(self) -> Any:
        if self._bar is None:
            self._bar = tqdm(total=self._work, unit="image", file=sys.stderr, dynamic_ncols=True, leave=False)
        return self._bar

    def _plain_line(self) -> None:
        if not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PLAIN_SECONDS
            say(f"{self._seen} of {self._work} images" + (f", {self._failed} failed" if self._failed else ""))

    def downloading(self, done: int, total: int | None) -> None:
        """Show a download's progress on a terminal; elsewhere say once that it happens."""
        if self._quiet:
            return
        first = self._downloaded == 0
        more, self._downloaded = done - self._downloaded, done
        if not self._terminal:
            if first:
                say("downloading weights" + (f" ({total / 1e6:.0f} MB)" if total else ""))
            return
        if first:
            self._close_bar()
            self._bar = tqdm(
                desc="weights", total=total, unit="B", unit_scale=True, file=sys.stderr, leave=False
            )
        self._bar.update(more)
        if done == total:
            self._close_bar()

    def note(self, text: str) -> None:
        """Say something, unless quiet."""
        if not self._quiet:
            self._line(text)

    def detail(self, text: str) -> None:
        """Say something if verbose."""
        if self._verbose:
            self._line(text)

    def summed_up(self, summary: Summary, *, dry: bool = False) -> None:
        """Print a run's summary: table, ignored files, failures, counts."""
        self._close_bar()
        if dry and not self._quiet:
            say(f"dry run: {summary.left} of {summary.total} images would be segmented into {summary.output}")
        if not self._quiet and not dry and summary.done:
            self._table(summary)
        if summary.ignored and not self._quiet:
            say(summary.ignored)
        self._failures(summary.failures)
        if not dry and not self._quiet:
            say(_counts(summary))
        if summary.stopped is not None:
            say(str(summary.stopped))

    def _failures(self, failures: Sequence[Record]) -> None:
        for record in failures[:_SHOWN_FAILURES]:
            message = record.error.message if record.error else "failed"
            say(f"no mask for {record.source}: {message}")
        if len(failures) > _SHOWN_FAILURES:
            more = len(failures) - _SHOWN_FAILURES
            say(f"and {more} more without a mask; {journal.JOURNAL_FILE} there has the reasons")

    def _table(self, summary: Summary) -> None:
        table = Table(title=None, header_style="bold", pad_edge=False)
        table.add_column("")
        table.add_column("class")
        for heading in ("images", "pixels", "share"):
            table.add_column(heading, justify="right")
        totals = summary.totals
        for index, pixels in totals.class_pixels.most_common():
            color = summary.palette[index].tolist() if summary.palette is not None else (0, 0, 0)
            table.add_row(
                Text("   ", style=f"on rgb({color[0]},{color[1]},{color[2]})"),
                one_line(summary.class_names[index]),
                f"{totals.class_images[index]:,}",
                f"{pixels:,}",
                f"{pixels / totals.pixels:.1%}",
            )
        Console(stderr=True, highlight=False).print(table)

    def _print_json(self, value: dict[str, Any]) -> None:
        try:
            sys.stdout.write(journal.to_line(value) + "\n")
            sys.stdout.flush()
        except OSError as error:
            # A reader that has had enough (`| head`) is no error; and the masks are wanted all the same.
            self._json = False
            if not isinstance(error, BrokenPipeError):
                self.stdout_error = error.strerror
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _line(self, text: str) -> None:
        if self._terminal and self._bar is not None:
            with tqdm.external_write_mode(file=sys.stderr):
                say(text)
        else:
            say(text)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _counts(summary: Summary) -> str:
    if not summary.done and not summary.failed and not summary.left:
        return f"nothing to do: all {summary.total} images were done before, see {summary.output}"
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before")
    parts.append(f"{summary.failed} failed")
    if summary.left:
        parts.append(f"{summary.left} not reached")
    text = f"{summary.total} images: {', '.join(parts)}"
    if (rate := summary.images_per_second) is not None:
        text += f"; {summary.seconds:.1f} s, {rate:.2f} images/s"
    return f"{text}; see {summary.output}"


def bench_table(figures: dict[str, Any]) -> None:
    """Print what a benchmark found, on stdout: it is what was asked for."""
    say = Console(highlight=False, soft_wrap=True).print
    say(
        f"{figures['backbone']}, {figures['width']}x{figures['height']}, batches of {figures['batch_size']}, "
        f"{figures['device']} {figures['precision']}, {figures['kernels']} kernels, "
        f"{figures['threads']} threads; median of {figures['rounds']} rounds in turn"
    )
    say(f"{figures['machine']}, torch {figures['torch']}")
    table = Table(header_style="bold", pad_edge=False)
    table.add_column("")
    for heading in ("images/s", "s an image", "of torchvision", "of direct limit"):
        table.add_column(heading, justify="right")
    for name, one in figures["contenders"].items():
        rate = one["images_per_second"]
        table.add_row(
            name,
            f"{rate:.3f}",
            f"{1 / rate:.3f}",
            f"{one['ratio_to_torchvision']:.2f}",
            f"{one['ratio_to_direct_limit']:.2f}",
        )
    Console(highlight=False).print(table)
    say(
        f"direct limit: {figures['gflop_per_image']:.0f} GFLOP an image "
        f"({figures['gflop_per_image_with_auxiliary_head']:.0f} with the auxiliary head) at the "
        f"{figures['gemm_gflop_per_second']:.0f} GFLOP/s of the best matrix product"
    )
