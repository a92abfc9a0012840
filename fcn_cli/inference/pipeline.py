"""Batches through the network, each stage beside the others: stack and upload, compute, download.

One thread takes batches as they come, stacks each into one of two buffers that are used in turn, and begins
its upload (see `feeder`). The thread that iterates computes. A third one waits for results. On a CPU, where
the network uses all of it, the other two have little to do, and a lower priority.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from ..common.errors import DeviceLost, Failure
from ..common.label_map import Segmentation
from ..common.ordered_work import OrderedWork, Task
from .engine import Engine
from .feeder import Batch, Feeder, Prepared
from .launching import Outcome

POLL_SECONDS = 0.5
"""How often whoever iterates regains control while nothing is ready."""

_IN_FLIGHT_POLL_SECONDS = 0.005
_NO_BOUND = 1 << 62

K = TypeVar("K")


class Predicted(NamedTuple, Generic[K]):
    """A batch's key, the result for each image, and the seconds that the network took for each."""

    key: K
    results: Sequence[Segmentation | Failure]
    seconds: float


def run_batches(
    engine: Engine,
    batches: Generator[Batch[K] | None],
    waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Generator[Predicted[K] | None]:
    """Run batches through an engine.

    What was computed before an error is yielded before the error is raised. Closing the generator drops what
    is not computed yet.

    Parameters
    ----------
    engine
        The network.
    batches
        The batches; None says that none is ready for a moment. Another thread takes them, and closes them.
    waiting
        Returns a context to be in while no batch is ready, for a clock.

    Yields
    ------
    Predicted or None
        The results of each batch, in order; None when nothing came for `POLL_SECONDS`.

    Raises
    ------
    DeviceLost
        The device cannot compute any more.
    """
    with Feeder(engine, batches) as feeder, _InFlight[K](engine) as in_flight:
        while True:
            try:
                with waiting():
                    prepared = feeder.next(_IN_FLIGHT_POLL_SECONDS if in_flight else POLL_SECONDS)
                if prepared is not None and prepared.batch is not None:
                    in_flight.launch(prepared.batch, prepared, feeder)
            except Exception:
                yield from in_flight.salvage()
                raise
            if prepared is not None and prepared.batch is None:
                break
            if prepared is None and not in_flight:
                yield None
            yield from in_flight.take()
        yield from in_flight.take(everything=True)


class _Launched(NamedTuple, Generic[K]):
    batch: Batch[K]
    started: float


class _InFlight(Generic[K]):
    """The batches that are launched and whose results are not taken."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last = 0.0
        self._work = OrderedWork[_Launched[K], Sequence[Outcome]](
            1,
            "fcn-download",
            max_bytes=_NO_BOUND,
            max_count=engine.device.in_flight - 1,
            low_priority=True,
        )

    def __enter__(self) -> _InFlight[K]:
        return self

    def __exit__(self, *error: object) -> None:
        self._work.__exit__(*error)

    def __len__(self) -> int:
        return len(self._work)

    def launch(self, batch: Batch[K], prepared: Prepared[K], feeder: Feeder[K]) -> None:
        """Launch a batch; its buffer is free then."""
        entry = _Launched(batch, time.perf_counter())
        try:
            if prepared.upload is not None:
                launched = self._engine.launch(prepared.upload, batch.sizes)
                if self._engine.device.in_flight > 1:
                    self._work.submit(entry, partial(self._engine.collect, launched))
                else:
                    # It is computed already.
                    self._work.submit_result(entry, self._engine.collect(launched))
            else:
                results = self._engine.predict(batch.pixels, batch.sizes, batch.smaller)
                self._work.submit_result(entry, results)
        finally:
            feeder.done(batch)

    def take(self, *, everything: bool = False) -> Iterator[Predicted[K]]:
        """Yield the results that are there; wait for those that the device's bound requires."""
        for task in self._work.take(everything=everything):
            yield self._finish(task)

    def salvage(self) -> Iterator[Predicted[K]]:
        """Yield what was computed before an error, unless the device is lost with it."""
        with contextlib.suppress(DeviceLost):
            yield from self.take(everything=True)

    def _finish(self, task: Task[_Launched[K], Sequence[Outcome]]) -> Predicted[K]:
        batch, started = task.key
        results = self._engine.complete(batch.pixels, batch.sizes, task.future.result())
        now = time.perf_counter()
        # A batch that was launched beside the one before counts from the end of that one.
        seconds = (now - max(started, self._last)) / max(1, len(batch.pixels))
        self._last = now
        return Predicted(batch.key, results, seconds)
