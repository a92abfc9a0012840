"""The driver of a run on Ray: gives blocks of photos to actors, and appends what they did to the journal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..common.errors import ExitCode, FcnError, StoppedEarly
from ..common.wording import counted
from ..outputs.write_queue import WriteQueue
from ..runs.network_stage import NetworkStage
from ..runs.request import PredictionRequest
from ..runs.resume_plan import ResumePlan, Step
from ..runs.run_report import RunReport
from . import address, session, shares
from .block_worker import Job
from .flow import Flow
from .ledger import Problem
from .receipts import Receipts
from .shared_output import SharedOutput, shared_output

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0
"""After how long without a ready actor users are told what the run waits for."""
_MAX_WORKERS = 16
_SHOWN_LOST = 10


class PhotosLost(FcnError):
    """Photos went to the actors, and no record of them came back."""

    exit_code = ExitCode.SOME_FAILED

    def __init__(self, lost: Sequence[str]) -> None:
        shown = ", ".join(lost[:_SHOWN_LOST])
        more = f" and {len(lost) - _SHOWN_LOST} more" if len(lost) > _SHOWN_LOST else ""
        super().__init__(
            f"{counted(len(lost), 'photo')} came back from Ray without a record: {shown}{more}; run the same "
            "command again"
        )


class ActorProblem(FcnError):
    """An actor cannot work; the message and the exit code are those of its own error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.exit_code = problem.exit_code


class RayStage(NetworkStage):
    """Segments the photos of a plan on Ray; parameters as in `NetworkStage`."""

    def run(self, steps: Sequence[Step], plan: ResumePlan, writes: WriteQueue, report: RunReport) -> None:
        """Segment the photos of these steps of a plan; `report` counts them.

        Raises
        ------
        RequestError, ActorProblem
            Ray cannot be used as asked for; nothing was done.
        """
        assert self._request.ray is not None  # noqa: S101 - else this is not the stage
        began = time.monotonic()
        # Missing weights, or wrong ones, end the run before Ray starts.
        network = self._network(self._resolved.model.weights_file(self._observer.downloading))
        report.summary.class_names = network.class_names
        self.earlier.add(plan)
        receipts = Receipts(steps, self._request.output.kinds, writes, self._folder)
        with (
            self.stop,
            session.started(address.parse(self._request.ray)),
            shared_output(str(self._folder.root)) as output,
        ):
            share = shares.divide(session.node_resources(), self._request.prediction.inference)
            blocks = shares.make_blocks(len(steps), share.actors)
            self._how["ray"] = {"address": self._request.ray, "nodes": share.nodes, "actors": blocks.actors}
            if self.stop.signum is None:
                receipts.withdraw()
                with Flow(self._job(share, output), network, steps, share, blocks) as flow:
                    self._work(flow, receipts, report, began)
        report.summary.how = dict(self._how)

    def _work(self, flow: Flow, receipts: Receipts, report: RunReport, began: float) -> None:
        """Take what comes back until nothing more does; say in the summary how it ended."""
        done_before, started = report.summary.done, None
        problem, is_stopping, is_told = None, False, False
        while True:
            running = flow.wait(_POLL_SECONDS)
            collected = flow.collect()
            if collected is None:
                break
            for execution in collected.executions:
                started = started or time.monotonic()
                self._actor_ready(execution)
            receipts.take(collected.entries)
            problem = collected.problem
            if collected.deaths:
                self._how["ray"]["actor_deaths"] = collected.deaths
            if self._is_to_stop(report) or problem is not None:
                if not is_stopping:
                    flow.stop()
                is_stopping = True
            if not running or (is_stopping and not collected.busy):
                break
            if started is None and not is_told and time.monotonic() - began > _PATIENCE_SECONDS:
                is_told = True
                self._observer.note("waiting for Ray to start the first actor; the cluster may be busy")
            self._observer.waiting()
        ended = time.monotonic()
        self._how["ray"]["start_seconds"] = round((started or ended) - began, 3)
        report.summary.seconds = ended - (started or ended)
        report.summary.segmented = report.summary.done - done_before
        if not self._is_to_stop(report):
            report.summary.stopped = _ending(flow, receipts, problem)

    def _is_to_stop(self, report: RunReport) -> bool:
        return self.stop.signum is not None or report.first_failure is not None

    def _job(self, share: shares.Share, output: SharedOutput) -> Job:
        """Return what the actors have to know; each has its own share of the CPUs."""
        asked = self._request.prediction
        threads = asked.inference.threads or max(1, share.cpus)
        workers = asked.decoding.workers
        if workers is None:
            workers = max(1, min(share.cpus, _MAX_WORKERS))
        prediction = PredictionRequest(
            asked.model,
            replace(asked.decoding, workers=workers),
            replace(asked.inference, device="cuda" if share.gpus else "cpu", threads=threads),
        )
        look, fingerprint = self._resolved.look, self._resolved.fingerprint
        return Job(output, self._request.output.kinds, look, fingerprint, prediction)

    def _actor_ready(self, execution: dict[str, Any]) -> None:
        """Report how an actor computes, unless the last one computes alike."""
        if self._how == {**self._how, **execution}:
            return
        self._how.update(execution)
        self._observer.detail(
            f"{counted(self._how['ray']['actors'], 'actor')} on Ray, each on {execution['device']}, "
            f"{execution['precision']}, {execution['kernels']} kernels, "
            f"{counted(execution['threads'], 'thread')}, batches of up to {execution['batch_size']}, "
            f"{counted(execution['workers'], 'decoding worker')}"
        )
        device = execution["device"].partition(":")[0]
        if warning := self.earlier.warning(device, execution["precision"]):
            self._observer.warn(warning)


def _ending(flow: Flow, receipts: Receipts, problem: Problem | None) -> FcnError | None:
    """Return why not every photo has a record, or None; raise what means that nothing could be done."""
    lost = receipts.lost()
    if problem is not None:
        error = ActorProblem(problem)
        if not len(receipts):
            raise error
        return error
    if not lost:
        return None
    if flow.error is None:
        return PhotosLost(lost)
    if session.is_bug(flow.error):
        raise RuntimeError(f"in an actor: {session.reason(flow.error)}")
    return StoppedEarly(
        f"Ray ended the run ({session.reason(flow.error)}); {counted(len(lost), 'photo')} left: run the same "
        "command again"
    )
