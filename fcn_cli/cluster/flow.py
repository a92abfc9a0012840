"""The blocks of a run on their way through Ray Data, in a thread of the driver."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from ..common import store_urls
from ..inputs.discovery import Source
from ..runs.resume_plan import Step
from .block_worker import BlockWorker, Job
from .ledger import Collected, Ledger
from .shares import Blocks, Share

_MAX_DEATHS = 16
"""How often one actor is started again, and one block given out again."""
_ANSWER_SECONDS = 60.0
_FAREWELL_SECONDS = 5.0
"""How long Ray Data may take to end: empty blocks need much less, a cluster that is gone never answers."""


class Flow:
    """Gives the photos of a run to actors, block by block; a context, inside of a Ray session.

    Parameters
    ----------
    job
        What the actors need to know.
    network
        The network, a `LoadedModel`: each actor gets a copy.
    steps
        The photos.
    share, blocks
        What each actor gets of the cluster, and how the photos are divided.

    `error` is what ended it early, or None; `received` are the photos (places in `steps`) of the blocks that
    came back.
    """

    def __init__(self, job: Job, network: Any, steps: Sequence[Step], share: Share, blocks: Blocks) -> None:
        self._job = job
        self._network = network
        self._steps = steps
        self._share = share
        self._blocks = blocks
        self._ledger: Any = None
        self.error: BaseException | None = None
        self.received: set[int] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fcn-ray", daemon=True)

    def __enter__(self) -> Flow:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Beside the driver: without this machine the run is over anyway.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ray Data must not find its session gone: it would print that, and connect to a Ray of its own.
        self._is_over.set()
        self._thread.join(_FAREWELL_SECONDS)
        # Whatever still runs ends with the session.
        self._ledger = None

    def wait(self, seconds: float) -> bool:
        """Wait; say whether blocks are still on their way."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def collect(self) -> Collected | None:
        """Return what the actors did since the last call, or None when that cannot be known any more."""
        import ray

        try:
            collected: Collected = ray.get(self._ledger.collect.remote(), timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            self.error = self.error or error
            return None
        return collected

    def stop(self) -> None:
        """Let the actors finish what they have in hand, and begin nothing."""
        self._ledger.stop.remote()

    def _run(self) -> None:
        try:
            for batch in self._dataset().iter_batches(
                batch_size=None, prefetch_batches=0, batch_format="numpy"
            ):
                self.received.update(map(int, batch["photo"]))
                if self._is_over.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - it is the driver's to judge
            self.error = self.error or error

    def _dataset(self) -> Any:
        """Return the photos that come back, as a dataset that is computed when it is read."""
        import ray
        import ray.data

        # Importing it turns its own warnings on again.
        warnings.simplefilter("ignore")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = 0
        if hasattr(context, "max_consecutive_actor_init_deaths"):
            context.max_consecutive_actor_init_deaths = 3
        rows = [
            {"photo": photo, "step": pickle.dumps(_for_any_directory(step))}
            for photo, step in enumerate(self._steps)
        ]
        cpus = self._share.cpus
        return ray.data.from_items(rows, override_num_blocks=self._blocks.count).map_batches(
            BlockWorker,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            # One task at a time: with the next one in its queue, a dead actor would hold that up too.
            compute=ray.data.ActorPoolStrategy(size=self._blocks.actors, max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(self._job, [ray.put(self._network)], self._ledger),
            num_cpus=cpus,
            num_gpus=self._share.gpus,
            # Otherwise Ray gives OpenMP one thread.
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self._job.prediction.inference.threads)}},
            max_restarts=_MAX_DEATHS,
            max_task_retries=_MAX_DEATHS,
        )


def _for_any_directory(step: Step) -> Step:
    """Return a step whose photo is found from whatever directory an actor runs in."""
    if step.source is None:
        return step
    return replace(step, source=_absolute(step.source))


def _absolute(source: Source) -> Source:
    if store_urls.is_url(source.path):
        return source
    return replace(source, path=os.path.abspath(source.path))
