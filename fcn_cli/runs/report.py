"""What a run reports: counts, its end, statistics, and ``run.json`` while it works."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from types import NoneType
from typing import Any

from .. import __version__
from ..common import files
from ..common.class_names import class_name
from ..common.errors import ExitCode, FcnError, OutputLost, StoppedEarly
from ..common.label_map import VOID_INDEX
from ..common.output_layout import SUMMARY_BYTES, SUMMARY_FILE
from ..common.palettes import Palette
from ..common.shard import Shard
from ..common.signals import Interrupted
from ..inputs.discovery import Found
from ..outputs import statistics
from ..outputs.directory import read_classes
from ..outputs.journal import Journal
from ..outputs.json_text import printable_utf8, read_name, utc_now
from ..outputs.output_store import OutputStore, ReadableDirectory
from ..outputs.record import Record
from ..outputs.run_file import Counts, RunFile
from ..outputs.statistics import Totals
from ..outputs.write_queue import Outcome
from .observers import RunObserver
from .plan import KnownFailure, NetworkStep, Plan, Prune, Refuse, Segment, Skip
from .request import ResolvedRequest, SegmentRequest

_REFUSED_KEYS = ("image", "image_bytes", "source", "source_bytes", "error")


@dataclass
class Summary:
    """The counts of a run: `total` images = `done` + `skipped` + `failed` (+ `left` when it ended early).

    Of the images done, the network segmented `segmented` in `seconds`; the others got more output types.
    `failures` are the records of all failed images; `known_failures` are the images among them that failed in
    an earlier run too and have not changed. `refused` images count as failed, and are not in the journal.
    `stage_seconds` says how long the run waited for each stage: decoding, network, writing.
    `pruned` images are in none of these counts. `stopped` is the error that ended the run early. `how` says
    how the run computed: device, precision and the like. All counts are those of its `shard`, if it is one.
    `watched` says that it was a watch. `end` is when it ended, in UTC; None while it goes on.
    """

    output: str
    class_names: Sequence[str] = ()
    palette: Palette | None = None
    total: int = 0
    done: int = 0
    segmented: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    failures: list[Record] = field(default_factory=list)
    known_failures: set[str] = field(default_factory=set)
    refused: list[Record] = field(default_factory=list)
    pruned: int = 0
    totals: Totals = field(default_factory=Totals)
    ignored: str = ""
    stopped: FcnError | Interrupted | None = None
    how: dict[str, Any] = field(default_factory=dict)
    watched: bool = False
    shard: Shard | None = None
    end: str | None = None

    @property
    def left(self) -> int:
        """The number of images that the run did not reach."""
        return self.total - self.done - self.skipped - self.failed

    @property
    def counts(self) -> Counts:
        """The counts as ``run.json`` has them."""
        return Counts(self.done + self.skipped, self.failed, self.left)

    @property
    def images_per_second(self) -> float | None:
        """Images segmented per second, start-up not counted."""
        return self.segmented / self.seconds if self.segmented and self.seconds else None

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return ExitCode.SOME_FAILED if self.failed else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``run`` of ``summary.json``."""
        rate = self.images_per_second
        return {
            "images": self.total,
            "ok": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "not_reached": self.left,
            "pruned": self.pruned,
            "refused": [
                {key: value for key, value in record.as_json().items() if key in _REFUSED_KEYS}
                for record in self.refused
            ],
            "stopped": printable_utf8(str(self.stopped)) if self.stopped else None,
            "end": self.end,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(rate, 3) if rate else None,
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in self.stage_seconds.items()},
            **self.how,
        }


class RunReport:
    """Counts every image of a run once, tells the observer, and writes the projections at the end."""

    def __init__(
        self, request: SegmentRequest, resolved: ResolvedRequest, found: Found, observer: RunObserver
    ) -> None:
        self._request = request
        self._resolved = resolved
        self._observer = observer
        self._output = request.output.store
        self._failed_before: dict[str, Record] = {}
        self._refused_before = _refused_last_time(self._output)
        self.first_failure: StoppedEarly | None = None
        # Of a watch: it writes the projections now and then.
        self.goes_on = False
        self.summary = Summary(
            str(self._output),
            palette=resolved.look.palette,
            total=len(found.sources),
            ignored=found.ignored_text(),
            shard=request.shard,
        )

    def planned(self, plan: Plan, *, count: bool = True) -> None:
        """Count the images of a plan that need no work: done before, failed before, refused."""
        self._observer.planned(plan)
        # Of a shard, fewer than were found.
        self.summary.total = len(plan.steps) - plan.count(Prune)
        if not count:
            return
        self.summary.skipped, self.summary.totals = plan.done.images, plan.done
        self._observer.done_before(map(plan.record_of, plan.of(Skip)))
        for step in plan.steps:
            if isinstance(step, Segment):
                failed = plan.records(step.image)
                if failed is not None and failed.status == "failed" and failed.is_of(step.source):
                    self._failed_before[step.image] = failed
            elif isinstance(step, (KnownFailure, Refuse)):
                if isinstance(step, KnownFailure) or step.image in self._refused_before:
                    self.summary.known_failures.add(step.image)
                if isinstance(step, Refuse):
                    self.summary.refused.append(step.record)
                self._count(step.record, is_known=isinstance(step, KnownFailure))

    def all_failed_before(self, steps: Sequence[NetworkStep]) -> bool:
        """Say whether every image to segment has failed in an earlier run and has not changed."""
        return all(step.image in self._failed_before for step in steps)

    def finished(self, outcome: Outcome) -> None:
        """Count an image whose record is in the journal."""
        record = outcome.record
        before = self._failed_before.get(record.image)
        if before is not None and before.error and record.error and before.error.kind == record.error.kind:
            self.summary.known_failures.add(record.image)
        self._count(record)
        if not record.ok and self._request.fail_fast and self.first_failure is None:
            self.first_failure = StoppedEarly(
                f"--fail-fast: stopped at the first failed image, {record.source}"
            )

    def pruned(self, record: Record) -> None:
        """Count a removed image whose outputs were removed."""
        self.summary.pruned += 1
        self._observer.pruned(record)

    def class_names(self) -> Sequence[str] | None:
        """Return the class names, from the network or the request; None if not even their number is known."""
        names = self.summary.class_names or self._resolved.class_names
        if names is None and (recorded := read_classes(self._output)) is not None:
            mapped = self._resolved.rules.classes is not None
            return recorded if mapped else [class_name((), index) for index in range(len(recorded))]
        return names

    def project(self, journal: Journal, *, changed: bool) -> None:
        """Write stats.csv and summary.json from the journal; only the run if they are up to date."""
        names = self.describe()
        refused = {record.image for record in self.summary.refused}
        changed = changed or refused != self._refused_before
        run, fingerprint = self.summary.as_json(), self._resolved.fingerprint
        try:
            with OutputLost.when_refused(self._output):
                if not changed and statistics.up_to_date(self._output, names):
                    statistics.write_run(self._output, run)
                else:
                    statistics.write(self._output, journal, fingerprint, names, run)
        except OutputLost as error:
            self.summary.stopped = self.summary.stopped or error

    def describe(self) -> Sequence[str]:
        """Complete the summary with what its counts do not say; return the class names."""
        self.summary.class_names = self.class_names() or [f"class_{index}" for index in range(VOID_INDEX)]
        self.summary.end = None if self.goes_on else utc_now()
        self.summary.how.update(kinds=list(self._request.output.types), versions=_versions())
        return self.summary.class_names

    def _count(self, record: Record, *, is_known: bool = False) -> None:
        if record.ok:
            self.summary.done += 1
        else:
            self.summary.failed += 1
            self.summary.failures.append(record)
        self.summary.totals.add(record)
        self._observer.finished(record, skipped=is_known)


def _refused_last_time(output: ReadableDirectory) -> set[str]:
    """Return the images that the last run refused; they are in no journal."""
    try:
        refused = files.read_small_json(output / SUMMARY_FILE, SUMMARY_BYTES)["run"]["refused"]
        return {read_name(record, "image") for record in refused}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "pillow")}
    if (torch := sys.modules.get("torch")) is not None:
        # This names the build too, as in 2.10.0+cu128.
        packages["torch"] = torch.__version__
    return {"fcn": __version__, "python": platform.python_version(), **packages}


class RunProgress:
    """Writes ``run.json`` when the work of a run, or a batch of a watch, begins, and when the context ends.

    A run that finds nothing to do writes when it ended, too. That of a shard has what the merge adds up.
    """

    def __init__(
        self,
        output: OutputStore,
        types: Sequence[str],
        summary: Callable[[], Summary],
        shard: Shard | None = None,
    ) -> None:
        self._output = output
        self._shard = shard
        self._types = tuple(types)
        self._summary = summary
        self._file: RunFile | None = None

    def begin(self, journal: Journal, plan: Plan, counts: Counts) -> None:
        """Write who runs and what is to be done; the journal only grows from now on."""
        began = self._file.start if self._file is not None else None
        self._file = RunFile.begin(self._types, journal.size_bytes, counts, began)
        if plan.work:
            with OutputLost.when_refused(self._output):
                self._file.save(self._output, self._shard)

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._file is None or not isinstance(error, (Exception, Interrupted, NoneType)):
            return
        # The results do not depend on this file: a full or lost disk was or will be reported by others.
        with contextlib.suppress(OSError, OutputLost):
            summary = self._summary()
            code: int = summary.exit_code
            stopped = str(summary.stopped) if summary.stopped is not None else None
            if isinstance(error, (FcnError, Interrupted)):
                code, stopped = error.exit_code, str(error)
            elif error is not None:
                code, stopped = ExitCode.BUG, f"a bug in fcn ({type(error).__name__}: {error})"
            for_merge = summary.as_json() if self._shard is not None else None
            self._file.ended(summary.counts, code, stopped, for_merge).save_ending(self._output, self._shard)
