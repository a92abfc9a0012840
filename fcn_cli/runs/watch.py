"""Watch mode: segment images as they arrive, batch by batch, until a signal."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from ..common import signals, store_urls
from ..common.errors import FcnError, OutputLost, RequestError
from ..common.signals import Interrupted
from ..common.wording import counted
from ..inputs import decoder, workers
from ..inputs.arrivals import SETTLE_SECONDS
from ..inputs.discovery import Found, Source
from ..outputs.journal import Journal
from ..outputs.lock import OutputLock
from ..outputs.record import Record
from .network_stage import NetworkStage
from .observers import RunObserver
from .plan import Plan, Wanted
from .report import RunProgress, RunReport, Summary
from .request import ResolvedRequest, SegmentRequest
from .segment import Run, tell_what_is_not_there
from .watch_report import WatchReport
from .watched_directories import WatchedDirectories, WatchPruning

_POLL_SECONDS = 0.1
_REFRESH_REST = 20
"""Between two projections lies so many times as long as one takes: 5 % of the time at most goes into them."""
_REFRESH_SECONDS = 60.0
"""After how long the projections are written although images keep coming."""


def watch(request: SegmentRequest, observer: RunObserver, settle: float = SETTLE_SECONDS) -> Summary:
    """Segment the images in directories, and then those that come, until a signal ends it.

    The output directory is locked, and its journal open, for the whole time. The network is loaded once, with
    the first image that needs it. What ends a watch early, but for a signal, is in the summary
    (`Summary.stopped`).

    Parameters
    ----------
    request
        Its inputs are directories. `ResumeOptions.overwrite` and `ResumeOptions.retry_failed` are for the
        images that are there at the start, and for these once.
    observer
        Is told what happens.
    settle
        An image is taken when its size and mtime have not changed for so many seconds.

    Raises
    ------
    RequestError
        The request is wrong, or nothing that can be watched; nothing was written.
    OutputLocked, OutputLost
        The output directory is another run's, or cannot be written.
    """
    refuse_unwatchable(request)
    request.check()
    request.output.check()
    decoder.prepare_process(request.prediction.decoding.max_pixels)
    # Each batch has decoding workers of its own; some image may be repainted before the first of them.
    workers.preload("fcn_cli.inputs.decode_pool")
    resolved = request.resolve()
    with OutputLock(request.output.store, request.wait, observer.note) as lock:
        if lock.waited:
            resolved = request.resolve()
        with OutputLost.when_refused(request.output.directory):
            journal = Journal(request.output.store)
        try:
            return _Watch(request, observer, resolved, journal, settle).run()
        finally:
            journal.close()


def refuse_unwatchable(request: SegmentRequest) -> None:
    """Raise RequestError for what a watch cannot do; the place for every option that does not go with it."""
    other = [given for given in request.inputs.inputs if not os.path.isdir(given)]
    for wrong, text in (
        (request.inputs.listed is not None, "--watch takes directories, not a list (--files-from)"),
        (request.dry_run, "--watch and --dry-run exclude each other; leave one of them out"),
        (
            request.shard is not None,
            "--watch and --shard exclude each other; leave one of them out",
        ),
        (
            store_urls.is_url(str(request.output.store)),
            f"--watch needs a local --output, not {request.output.directory}",
        ),
        (
            request.ray is not None,
            "--watch and --ray exclude each other; leave one of them out",
        ),
        (not request.inputs.inputs, "--watch needs a directory to watch"),
        (bool(other), f"{''.join(other[:1])}: --watch takes directories that exist on this machine"),
    ):
        if wrong:
            raise RequestError(text)


class _Batch(Run):
    """One batch of a watch: the images that were found whole since the last one, and those that are gone."""

    def __init__(self, watch: _Watch, request: SegmentRequest, found: Found, gone: Sequence[Record]) -> None:
        super().__init__(request, watch.observer, found, watch.resolved, watch.network)
        self._watch = watch
        self._gone = gone

    def _check_settings(self, journal: Journal) -> bool:
        # Only once: after --overwrite, the file has other settings until the first image comes.
        return self._watch.network is not None or super()._check_settings(journal)

    def _wanted(self) -> Wanted:
        # Nobody is there to choose other names for images that come later.
        return replace(super()._wanted(), stop_at_collisions=self.request is self._watch.request)

    def _to_prune(self, journal: Journal) -> Sequence[Record]:  # noqa: ARG002 - as in `Run`
        return self._gone

    def _plan(self, journal: Journal) -> Plan:
        plan = super()._plan(journal)
        if not plan.through_network:
            self.network.earlier.add(plan)
        return replace(plan, steps=[step for step in plan.steps if not self._watch.report.knows(step)])


class _Watch:
    """A watch, from the first search to the summary."""

    def __init__(
        self,
        request: SegmentRequest,
        observer: RunObserver,
        resolved: ResolvedRequest,
        journal: Journal,
        settle: float,
    ) -> None:
        self.request = request
        self.observer = observer
        self.resolved = resolved
        self.report = WatchReport(request, resolved.fingerprint, journal)
        self.network: NetworkStage | None = None
        self._journal = journal
        self._directories = WatchedDirectories(request, observer, settle)
        self._pruning = WatchPruning(request.resume.prune, journal, observer)
        self._stopped: FcnError | Interrupted | None = None
        self._ended: Interrupted | None = None
        self._is_stale, self._is_closed = False, True
        self._refreshed, self._refresh_cost = time.monotonic(), 0.0
        # It checks the settings, consolidates the journal and prunes; images come with the next one.
        found = self._directories.found
        self._batch = _Batch(self, request, replace(found, sources=[]), self._pruning.at_the_start(found))
        self._stop = self._batch.stop
        self._final: Summary | None = None
        self._progress = RunProgress(request.output.store, request.output.types, self._so_far)

    def run(self) -> Summary:
        with self._progress:
            self._final = self._run()
        return self._final

    def _run(self) -> Summary:
        try:
            with self._directories:
                self._work()
        except Interrupted as error:
            signals.caught()
            self._ended = error
        self._close_batch()
        self._ended = self._ended or self._stop.error
        if self._ended is not None:
            left = self._batch.report.summary.left + self._directories.waiting
            rest = f"; {counted(left, 'image')} left to the next run" if left else ""
            self.observer.note(f"{self._ended}: the watch ends{rest}")
        summary = self._project(changed=self._is_stale)
        summary.stopped = self._stopped
        return summary

    def _work(self) -> None:
        self._do(self._batch)
        # An empty directory is what many a watch begins with.
        if self._directories.found.sources:
            tell_what_is_not_there(self._journal, self._directories.found, self.observer)
        self.network = self._batch.network
        self.network.give_back = self._give_back
        # What is wrong with the weights is said now, not when the first image comes.
        self.resolved.model.weights_file(self.observer.downloading)
        self.observer.note(
            f"watching {', '.join(self.request.inputs.inputs)} ({self._directories.how()}); "
            "Ctrl-C or SIGTERM ends it"
        )
        request = self.request
        while self._wait():
            self._scan(request)
            # What is asked for about images that are done or failed is about those that were there.
            resume = replace(self.request.resume, overwrite=False, retry_failed=False)
            request = replace(self.request, resume=resume)

    def _wait(self) -> bool:
        """Wait until it is time to search; False when the watch is over."""
        with self._stop:
            while self._stop.signum is None and self._stopped is None:
                self._refresh()
                if self._directories.is_due():
                    return True
                time.sleep(_POLL_SECONDS)
        return False

    def _scan(self, request: SegmentRequest) -> None:
        scan = self._directories.scan()
        found = self._directories.found
        ready = scan.ready
        if scan.vanished:
            self.report.vanished(scan.vanished)
            # The image that has their name may be gone.
            again = {source.path for source in ready}
            ready = ready + [
                source
                for source in found.sources
                if source.path not in again and self.report.is_refused(source)
            ]
        gone = self._pruning.gone(scan, found)
        if ready or gone:
            self._do(_Batch(self, request, replace(found, sources=ready), gone))

    def _do(self, batch: _Batch) -> None:
        self._batch, self._is_closed = batch, False
        plan = batch.prepare(self._journal)
        self._progress.begin(self._journal, plan, self.report.begin(plan, self._directories.found))
        batch.work(plan, self._journal)
        self._close_batch()

    def _close_batch(self) -> None:
        """Add what the last batch did, and report it; also when a signal has ended it."""
        if self._is_closed:
            return
        self._is_closed = True
        summary = self._batch.report.summary
        self.report.end(summary)
        self._stopped = summary.stopped or self._batch.report.first_failure
        if summary.done or summary.skipped or summary.failed or summary.pruned:
            self._is_stale = True
            self.observer.batch_done(summary)

    def _so_far(self) -> Summary:
        return self._final or self.report.summary(self._batch.report.summary, self._directories.found)

    def _give_back(self, source: Source) -> bool:
        if not self._directories.give_back(source):
            return False
        self._batch.report.summary.total -= 1
        self.observer.detail(
            f"{source.given}: changed while it was read; it is retried when it stops changing"
        )
        return True

    def _refresh(self) -> None:
        """Write the projections when there is nothing else to do, but not too often."""
        if not self._is_stale:
            return
        rest = time.monotonic() - self._refreshed
        if rest >= _REFRESH_REST * self._refresh_cost and (
            not self._directories.waiting or rest >= _REFRESH_SECONDS
        ):
            summary = self._project(changed=True, goes_on=True)
            self._stopped = self._stopped or summary.stopped

    def _project(self, *, changed: bool, goes_on: bool = False) -> Summary:
        began = time.monotonic()
        report = RunReport(self.request, self.resolved, self._directories.found, self.observer)
        report.goes_on = goes_on
        report.summary = self._so_far()
        report.project(self._journal, changed=changed)
        self._is_stale = False
        self._refreshed = time.monotonic()
        self._refresh_cost = self._refreshed - began
        return report.summary
