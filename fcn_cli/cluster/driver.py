"""The driver of a run on Ray: assigns blocks of images to actors and writes their records to the journal."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from ..common import resources, store_urls
from ..common.errors import ExitCode, Failure, FailureKind, FcnError, RequestError, StoppedEarly
from ..common.output_layout import output_file
from ..common.wording import counted
from ..outputs import record
from ..outputs.write_queue import Outcome, WriteQueue
from ..runs import segment as segmentation
from ..runs.network_stage import NetworkStage
from ..runs.observers import RunObserver
from ..runs.plan import Complete, NetworkStep, Plan
from ..runs.report import RunReport, Summary
from ..runs.request import PredictionRequest, SegmentRequest
from . import session, shares
from .shared_output import SharedOutput
from .shares import Block, BlockQueue
from .worker import Begun, Done, Job, Message, Problem, Worker

_END_SECONDS = 5
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0
"""After how long without a ready actor users are told what the run waits for."""
_MAX_WORKERS = 16
_SHOWN_LOST = 10
_DEATHS_IN_A_ROW = 5
"""So many deaths of one actor and its successors, without one image done in between, end the run."""


class ImagesLost(FcnError):
    """Images went to the actors, and no record of them came back."""

    exit_code = ExitCode.SOME_FAILED

    def __init__(self, lost: Sequence[str]) -> None:
        shown = ", ".join(lost[:_SHOWN_LOST])
        more = f" and {len(lost) - _SHOWN_LOST} more" if len(lost) > _SHOWN_LOST else ""
        super().__init__(
            f"{counted(len(lost), 'image')} came back from Ray without a record: {shown}{more}; run the same "
            "command again"
        )


class ActorProblem(FcnError):
    """An actor cannot work; the message and the exit code are those of its own error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.exit_code = problem.exit_code


def segment(request: SegmentRequest, observer: RunObserver) -> Summary:
    """Segment images on Ray, as `request.ray` says; otherwise as `runs.segment.segment`.

    Ray starts when the plan has images for the network, and not before.

    Raises
    ------
    RequestError
        Also when Ray is not installed, nothing answers at its address, or the device and Ray exclude each
        other.
    """
    assert request.ray is not None  # noqa: S101 - the caller decides by it
    if find_spec("ray") is None:
        raise RequestError("--ray needs Ray, which is not installed: pip install 'fcn-cli[ray]'")
    device = request.prediction.inference.device
    if ":" in device:
        raise RequestError(
            f"--device {device}: Ray gives each actor a GPU of its own; with --ray use --device cuda or auto"
        )
    where = session.parse_address(request.ray)
    if request.dry_run:
        return segmentation.segment(request, observer)
    if where is not None:
        where.check_answers()
    return segmentation.segment(request, observer, RayStage)


class RayStage(NetworkStage):
    """Segments the images of a plan on Ray; parameters as in `NetworkStage`."""

    def run(self, steps: Sequence[NetworkStep], plan: Plan, writes: WriteQueue, report: RunReport) -> None:
        """Segment the images of these steps of a plan; `report` counts them.

        Raises
        ------
        RequestError, ActorProblem
            Ray cannot be used as asked for; nothing was done.
        """
        assert self._request.ray is not None  # noqa: S101 - else this is not the stage
        began = time.monotonic()
        # Missing weights, or wrong ones, end the run before Ray starts.
        network = self._network(self._resolved.model.weights_file(self._observer.downloading))
        report.summary.class_names = self._resolved.rules.names(network.class_names)
        self.earlier.add(plan)
        with (
            self.stop,
            session.started(session.parse_address(self._request.ray)),
        ):
            share = shares.divide(session.node_resources(), self._request.prediction.inference)
            blocks = shares.block_count(len(steps), share.actors)
            actors = min(share.actors, blocks)
            self._how["ray"] = {"address": self._request.ray, "nodes": share.nodes, "actors": actors}
            if self.stop.signum is None:
                self._retract(steps, writes)
                job = self._job(share, SharedOutput.of_driver(self._folder.root))
                crew = _Crew(job, network, share, shares.BlockQueue(len(steps), blocks), steps)
                crew.hire(actors)
                self._work(crew, steps, writes, report, began)
        report.summary.how = dict(self._how)

    def _retract(self, steps: Sequence[NetworkStep], writes: WriteQueue) -> None:
        """Append records that no longer name the files that the actors are about to write."""
        types = self._request.output.types
        writes.retract((step.source, step.types if isinstance(step, Complete) else types) for step in steps)
        writes.commit(everything=True)

    def _work(
        self, crew: _Crew, steps: Sequence[NetworkStep], writes: WriteQueue, report: RunReport, began: float
    ) -> None:
        """Take what comes back until nothing more does; say in the summary how it ended."""
        done_before, started = report.summary.done, None
        is_told = False
        # What an actor said first is why the run ends; what Ray says then is only its consequence.
        error: BaseException | None = None
        try:
            for arrived in crew.work():
                for execution in arrived.executions:
                    started = started or time.monotonic()
                    self._actor_ready(execution)
                self._take(arrived.done, steps, writes)
                if crew.deaths:
                    self._how["ray"]["actor_deaths"] = crew.deaths
                if self._is_to_stop(report) or crew.problem is not None:
                    crew.stop()
                if started is None and not is_told and time.monotonic() - began > _PATIENCE_SECONDS:
                    is_told = True
                    self._observer.note("waiting for Ray to start the first actor; the cluster may be busy")
                self._observer.waiting()
            crew.dismiss()
        except session.ray_error() as ended:
            error = ended
        ended_at = time.monotonic()
        self._how["ray"]["start_seconds"] = round((started or ended_at) - began, 3)
        report.summary.seconds = ended_at - (started or ended_at)
        report.summary.segmented = report.summary.done - done_before
        if not self._is_to_stop(report):
            report.summary.stopped = _ending(crew, error)

    def _take(self, entries: Iterable[Done], steps: Sequence[NetworkStep], writes: WriteQueue) -> None:
        """Append the records of images whose files are on disk; of images that failed, remove old files."""
        for entry in entries:
            outcome, source = entry.outcome, steps[entry.place].source
            if outcome.replaces_earlier and not outcome.record.ok:
                # `_retract` has taken their names out of the journal, which else would say what is stale.
                names = (
                    output_file(source.output, output_type) for output_type in self._request.output.types
                )
                self._folder.remove(names)
            writes.add_outcome(outcome)
        writes.commit(everything=True)

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
        return Job(output, self._request.output.types, look, fingerprint, self._resolved.rules, prediction)

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


def _ending(crew: _Crew, error: BaseException | None) -> FcnError | None:
    """Return why not every image has a record, or None; raise what means that nothing could be done."""
    if crew.problem is not None:
        problem = ActorProblem(crew.problem)
        if not crew.queue.recorded:
            raise problem
        return problem
    lost = crew.lost()
    if error is not None:
        if session.is_bug(error):
            raise RuntimeError(f"in an actor: {session.reason(error)}")
        return StoppedEarly(
            f"Ray ended the run ({session.reason(error)}); {counted(len(lost), 'image')} left: run the same "
            "command again"
        )
    return ImagesLost(lost) if lost else None


@dataclass
class _Actor:
    """An actor: `waits_for` is its preparation or the generator of its block, or None when it is idle."""

    handle: Any
    waits_for: Any
    block: Block | None = None
    begun: int | None = None
    deaths_in_a_row: int = 0


@dataclass
class _Arrived:
    """What came from the actors: records, and how new actors compute."""

    done: list[Done] = field(default_factory=list)
    executions: list[dict[str, Any]] = field(default_factory=list)


class _Crew:
    """The actors of a run, and the images in flight; each gets a copy of `network`, a `LoadedModel`."""

    def __init__(
        self, job: Job, network: Any, share: shares.Share, queue: BlockQueue, steps: Sequence[NetworkStep]
    ) -> None:
        import ray

        self._job = job
        self._network = ray.put(network)
        self._share = share
        self.queue = queue
        self._steps = steps
        self.deaths = 0
        self.problem: Problem | None = None
        self._is_stopping = False
        self._actors: list[_Actor] = []

    def hire(self, count: int) -> None:
        """Start so many actors."""
        self._actors += [self._start() for _ in range(count)]

    def lost(self) -> list[str]:
        """Return the images without a record, as the user gave them."""
        return [
            step.source.given for place, step in enumerate(self._steps) if place not in self.queue.recorded
        ]

    def stop(self) -> None:
        """Let the actors finish the images in flight, and begin nothing."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self.queue.clear()
        for actor in self._actors:
            if actor.block is not None:
                actor.handle.stop.remote()

    def dismiss(self) -> None:
        """Let the actors put their places in order: Ray ends them without their interpreter's shutdown."""
        import ray

        ray.wait(
            [actor.handle.end.remote() for actor in self._actors],
            num_returns=len(self._actors),
            timeout=_END_SECONDS,
        )

    def work(self) -> Iterable[_Arrived]:
        """Yield what arrives until no image is left; something at least every `_POLL_SECONDS`.

        Raises
        ------
        ray.exceptions.RayError
            Ray is gone, an actor has a bug, or actors die again and again.
        """
        import ray

        while True:
            for actor in self._actors:
                if actor.waits_for is None and self.queue:
                    self._give(actor, self.queue.take())
            busy = [actor for actor in self._actors if actor.block is not None]
            starting = [
                actor for actor in self._actors if actor.block is None and actor.waits_for is not None
            ]
            if not busy and not (self.queue and starting):
                return
            by_waitable = {id(actor.waits_for): actor for actor in (*busy, *starting)}
            ready, _ = ray.wait([actor.waits_for for actor in (*busy, *starting)], timeout=_POLL_SECONDS)
            arrived = _Arrived()
            for waitable in ready:
                self._take(by_waitable[id(waitable)], arrived)
            yield arrived

    def _start(self) -> _Actor:
        import ray

        threads = self._job.prediction.inference.threads
        options = {
            "num_cpus": self._share.cpus,
            "num_gpus": self._share.gpus,
            # One thread segments, the other takes `go_on` and `stop`.
            "max_concurrency": 2,
            # Otherwise Ray gives OpenMP one thread.
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads), **resources.openmp_variables()}},
        }
        handle = ray.remote(Worker).options(**options).remote(self._job, [self._network])
        return _Actor(handle, handle.prepare.remote())

    def _give(self, actor: _Actor, block: Block) -> None:
        steps = {place: _for_any_directory(self._steps[place]) for place in block.places}
        actor.block, actor.begun = block, None
        actor.waits_for = actor.handle.segment.options(num_returns="streaming").remote(
            steps, singly=block.singly
        )

    def _take(self, actor: _Actor, arrived: _Arrived) -> None:
        """Take the next thing from an actor that has something."""
        import ray

        try:
            if actor.block is None:
                prepared = ray.get(actor.waits_for)
                actor.waits_for = None
                if isinstance(prepared, Problem):
                    self.problem = self.problem or prepared
                else:
                    arrived.executions.append(prepared)
                return
            self._heed(actor, ray.get(next(actor.waits_for)), arrived)
        except StopIteration:
            actor.waits_for = actor.block = None
        except ray.exceptions.RayActorError as error:
            self._replace(actor, error, arrived)

    def _heed(self, actor: _Actor, message: Message, arrived: _Arrived) -> None:
        if isinstance(message, Problem):
            self.problem = self.problem or message
        elif isinstance(message, Begun):
            actor.begun = message.place
            # When stopping, `stop` has told it, or does now.
            (actor.handle.stop if self._is_stopping else actor.handle.go_on).remote()
        else:
            actor.begun, actor.deaths_in_a_row = None, 0
            arrived.done += [done for done in message if self.queue.finished(done.place)]

    def _replace(self, actor: _Actor, error: Exception, arrived: _Arrived) -> None:
        """Start another actor in the place of one that died, and hand out its images in flight again."""
        import ray

        self.deaths += 1
        deaths = actor.deaths_in_a_row + 1
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            # Or it is only out of reach.
            ray.kill(actor.handle)
        if deaths >= _DEATHS_IN_A_ROW:
            raise error
        for place in self.queue.died(actor.block, actor.begun) if actor.block is not None else ():
            self.queue.finished(place)
            arrived.done.append(self._killed(place))
            deaths = 0
        if self._is_stopping:
            self.queue.clear()
            actor.waits_for = actor.block = None
            return
        new = self._start()
        actor.handle, actor.waits_for, actor.block = new.handle, new.waits_for, None
        actor.begun, actor.deaths_in_a_row = None, deaths

    def _killed(self, place: int) -> Done:
        step = self._steps[place]
        failure = Failure(
            FailureKind.WORKER_DIED,
            f"{shares.DEATHS_TO_FAIL} Ray actors died while they processed it; the next run retries it",
        )
        failed = record.finish(record.begin(step.source, self._job.fingerprint), failure)
        return Done(place, Outcome(failed, replaces_earlier=not isinstance(step, Complete)))


def _for_any_directory(step: NetworkStep) -> NetworkStep:
    """Return a step whose image is found from whatever directory an actor runs in."""
    source = step.source
    if store_urls.is_url(source.path):
        return step
    return replace(step, source=replace(source, path=os.path.abspath(source.path)))
